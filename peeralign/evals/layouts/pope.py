"""POPE (Li et al., 2023): 3,000 questions about objects in each of three categories.

Authors' files (AoiDragon/POPE, output/coco): coco_pope_random.json, coco_pope_popular.json and
coco_pope_adversarial.json, JSON lines with question_id, image, text and label; images are COCO's
val2014. VLMEvalKit's table has questions of several categories once; each is an item here, since
its figures count it in each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from peeralign.evals.layouts.cells import text, text_or_none
from peeralign.evals.layouts.layout import (
    FILE,
    HUB,
    ORIGINAL,
    TSV,
    Form,
    Item,
    Layout,
    Row,
    Source,
    of_split,
)
from peeralign.evals.layouts.prompts import SHORT, without_instruction


def _item(row: Row, question: str, answer: str, name: object, category: str | None) -> Item:
    keys = {"answer": answer.strip().lower()}
    return Item(without_instruction(question), row.get("image"), keys, id=name, category=category)


def _hub(row: Row) -> Item:
    category = text_or_none(row, "category")
    # Of the two, question_id begins anew in each category.
    name = row["question_id"] if row.get("id") is None else row["id"]
    return _item(row, text(row, "question"), text(row, "answer"), name, category)


def _by_category(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    for row in of_split(rows, source):
        categories = (text_or_none(row, "category") or "").split(",")
        for category in categories:
            name = f"{row['index']}/{category}" if len(categories) > 1 else row["index"]
            yield {**row, "index": name, "category": category}


def _tsv(row: Row) -> Item:
    category = text_or_none(row, "category")
    return _item(row, text(row, "question"), text(row, "answer"), row["index"], category)


def _original(row: Row) -> Item:
    match = re.search(r"pope_(\w+)\.json", row[FILE])
    category = match[1] if match else None
    name = f"{category}/{row['question_id']}" if category else row["question_id"]
    return _item(row, text(row, "text", "question"), text(row, "label", "answer"), name, category)


LAYOUT = Layout(
    title="POPE",
    forms=(
        Form(HUB, ("question_id", "question", "answer", "image"), _hub),
        Form(TSV, ("index", "question", "answer"), _tsv, rows=_by_category),
        Form(
            ORIGINAL,
            ("question_id", "image", "text", "label"),
            _original,
            files=("coco_pope_*.json*", "output/coco/coco_pope_*.json"),
            images=("val2014", "../val2014", "images"),
        ),
    ),
    prompt=SHORT,
    hub="lmms-lab/POPE",
    tsv=("POPE.tsv",),
    original="https://github.com/AoiDragon/POPE",
)
