"""MMStar (Chen et al., 2024): 1,500 questions that need their image.

The hub's questions hold their options; they are asked as they stand. Some options are parts of the
image and have its number for a text ("<image 2>").
"""

from __future__ import annotations

from peeralign.evals.layouts.cells import letter, options, text, text_or_none, without_nan
from peeralign.evals.layouts.inline import parted, without_hint, without_images
from peeralign.evals.layouts.layout import HUB, TSV, Form, Item, Layout, Row
from peeralign.evals.layouts.prompts import OPTIONS

_LETTERS = 4


def _hub(row: Row) -> Item:
    whole = text(row, "question").strip()
    stem, found = parted(whole, text(row, "answer"))
    instruction = OPTIONS.rsplit("\n", 1)[1]
    question = without_hint(without_images(stem))
    return _item(row, question, without_nan(found), f"{whole}\n{instruction}")


def _tsv(row: Row) -> Item:
    return _item(row, without_images(text(row, "question")), options(row), None)


def _item(row: Row, question: str, found: list[str], asked: str | None) -> Item:
    part = text_or_none(row, "l2_category") or text_or_none(row, "l2-category")
    keys = {"answer": letter(row, len(found) or _LETTERS), "l2_category": part}
    category = text_or_none(row, "category")
    return Item(
        question, row.get("image"), keys, row["index"], found, category=category, asked=asked
    )


LAYOUT = Layout(
    title="MMStar",
    forms=(
        Form(HUB, ("index", "question", "answer", "l2_category", "image"), _hub),
        Form(TSV, ("index", "question", "answer", "A", "image"), _tsv),
    ),
    prompt=OPTIONS,
    # The hub has one file, mmstar.parquet.
    split="mmstar",
    hub="Lin-Chen/MMStar",
    tsv=("MMStar.tsv",),
)
