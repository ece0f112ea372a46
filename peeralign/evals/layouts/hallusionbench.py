"""HallusionBench (Guan et al., 2024): yes or no questions on figures and on edited ones.

Its 178 questions without a figure (VS, visual_input 0) are set aside, and so are left out of the
accuracies by question too. Authors' files (tianyi-lab/HallusionBench): HallusionBench.json, and
hallusion_bench with the figures.
"""

from __future__ import annotations

import re

from peeralign.evals.layouts.cells import text, text_or_none
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout, Row
from peeralign.evals.layouts.prompts import PLAIN
from peeralign.store.conversations import Unusable

_KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id")
_FIGURES = "hallusion_bench"
# VLMEvalKit has the first two keys as its l2-category, and all of them at the end of the index.
_KIND = re.compile(r"(V[DS])_([a-z]+)")
_NUMBERS = re.compile(r"_(\d+)_(\d+)_(\d+)$")


def _item(row: Row) -> Item:
    keys = {name: text(row, name) for name in _KEYS}
    # The official judge compares a reply with this sentence.
    reference = text_or_none(row, "gt_answer_details")
    image = row.get("filename") if row.get("image") is None else row["image"]
    shown = text_or_none(row, "visual_input")
    if shown == "0":
        image = None
    return Item(
        text(row, "question"),
        image,
        {
            **keys,
            "answer": text(row, "gt_answer", "answer"),
            "reference": reference,
            "visual_input": shown,
        },
        id="_".join(keys.values()),
        category=keys["category"],
    )


def _original(row: Row) -> Item:
    # The file as its README shows it names the folder too.
    name = (text_or_none(row, "filename") or "").removeprefix("./")
    return _item({**row, "filename": name.removeprefix(f"{_FIGURES}/") or None})


def _tsv(row: Row) -> Item:
    index = text(row, "index")
    kind = _KIND.search(f"{row.get('l2-category')} {index}")
    numbers = _NUMBERS.search(index)
    if kind is None or numbers is None:
        raise Unusable("its index names no figure", index)
    keys = dict(zip(_KEYS, (*kind.groups(), *numbers.groups()), strict=True))
    return _item({**row, **keys, "gt_answer": row["answer"]})


_COLUMNS = (*_KEYS, "question", "gt_answer")
LAYOUT = Layout(
    title="HallusionBench",
    forms=(
        Form(HUB, (*_COLUMNS, "image"), _item),
        Form(TSV, ("index", "question", "answer", "image"), _tsv),
        Form(
            ORIGINAL,
            (*_COLUMNS, "filename"),
            _original,
            files=("HallusionBench.json",),
            images=(_FIGURES,),
        ),
    ),
    prompt=PLAIN,
    split="image",
    hub="lmms-lab/HallusionBench",
    tsv=("HallusionBench.tsv",),
    original="https://github.com/tianyi-lab/HallusionBench",
)
