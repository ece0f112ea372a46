"""SEED-Bench (Li et al., 2023): its questions about images; those about videos are set aside.

Authors' files (AILab-CVC/SEED-Bench): SEED-Bench.json and SEED-Bench-image, where the image of a
question has the name `data_id`.
"""

from __future__ import annotations

from peeralign.evals.layouts.cells import letter, options, text, text_or_none
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout, Row
from peeralign.evals.layouts.prompts import OPTIONS
from peeralign.store.conversations import Unusable

# question_type_id, from 1, as the authors' DATASET.md numbers them; it once had the third and the
# fourth the other way round.
DIMENSIONS = (
    *("Scene Understanding", "Instance Identity", "Instance Attributes", "Instance Location"),
    *("Instances Counting", "Spatial Relation", "Instance Interaction", "Visual Reasoning"),
    *("Text Understanding", "Action Recognition", "Action Prediction", "Procedure Understanding"),
)


def _item(row: Row) -> Item:
    kind = text(row, "data_type")
    if kind != "image":
        raise Unusable(f"a {kind}")
    found = [text(row, f"choice_{name}") for name in "abcd"]
    number = text_or_none(row, "question_type_id") or ""
    known = number.isdecimal() and 1 <= int(number) <= len(DIMENSIONS)
    return Item(
        text(row, "question"),
        row.get("data_id") if row.get("image") is None else row["image"],
        {"answer": letter(row, len(found)), "data_type": kind},
        id=row.get("question_id"),
        options=found,
        category=DIMENSIONS[int(number) - 1] if known else None,
    )


def _tsv(row: Row) -> Item:
    found = options(row)
    keys = {"answer": letter(row, len(found)), "data_type": "image"}
    question, category = text(row, "question"), text_or_none(row, "category")
    return Item(question, row.get("image"), keys, row["index"], found, category=category)


_COLUMNS = ("question_id", "question", "answer", "choice_a", "data_type")
LAYOUT = Layout(
    title="SEED-Bench",
    forms=(
        Form(HUB, (*_COLUMNS, "image"), _item),
        Form(TSV, ("index", "question", "answer", "A", "image"), _tsv),
        Form(
            ORIGINAL,
            (*_COLUMNS, "data_id"),
            _item,
            files=("SEED-Bench.json",),
            images=("SEED-Bench-image",),
        ),
    ),
    prompt=OPTIONS,
    hub="lmms-lab/SEED-Bench",
    tsv=("SEEDBench_IMG.tsv",),
    tsv_folder="benchmarks/SEEDBench",
    original="https://huggingface.co/datasets/AILab-CVC/SEED-Bench",
)
