"""RealWorldQA (xAI, 2024): questions that hold their options and how to answer.

They are asked as they stand. Those without options want a word or a number; VLMEvalKit's table has
options for all.
"""

from __future__ import annotations

import re

from peeralign.evals.layouts.cells import letter, options, text, text_or_none
from peeralign.evals.layouts.inline import parted
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout, Row
from peeralign.evals.layouts.prompts import OPTIONS, SHORT

_INSTRUCTION = re.compile(r"\s*Please answer directly with[^.\n]*\.?\s*$")


def _asked(row: Row) -> Item:
    whole = text(row, "question").strip()
    answer = text(row, "answer")
    stem, found = parted(_INSTRUCTION.sub("", whole), answer)
    return Item(stem, row.get("image"), {"answer": answer}, options=found, asked=whole)


def _tsv(row: Row) -> Item:
    found = options(row)
    answer = letter(row, len(found)) if found else text(row, "answer")
    category = text_or_none(row, "category")
    return Item(
        _INSTRUCTION.sub("", text(row, "question")),
        row.get("image"),
        {"answer": answer},
        id=row["index"],
        options=found,
        category=category,
    )


LAYOUT = Layout(
    title="RealWorldQA",
    forms=(
        Form(HUB, ("question", "answer", "image"), _asked),
        Form(TSV, ("index", "question", "answer", "image"), _tsv),
        Form(
            ORIGINAL,
            ("question", "answer", "image"),
            _asked,
            files=("annotations.json", "annotations.jsonl"),
        ),
    ),
    prompt=OPTIONS,
    prompt_without_options=SHORT,
    hub="lmms-lab/RealWorldQA",
    tsv=("RealWorldQA.tsv",),
    original="https://x.ai/news/grok-1.5v",
)
