"""GQA (Hudson and Manning, 2019): the balanced questions of testdev.

Authors' files: testdev_balanced_questions.json, objects by id with imageId, question, answer and
types, and images/IMAGE_ID.jpg. The hub has the images in a configuration of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from peeralign.evals.layouts.cells import text, text_or_none
from peeralign.evals.layouts.layout import (
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
from peeralign.evals.layouts.prompts import SHORT
from peeralign.evals.layouts.tables import open_table

_QUESTIONS, _IMAGES = "testdev_balanced_instructions", "testdev_balanced_images"


def _item(row: Row, image: Any, name: object, image_name: str | None) -> Item:
    types = row.get("types") or {}
    kind = types.get("structural") if isinstance(types, dict) else None
    keys = {"answer": text(row, "answer"), "question_type": kind, "image": image_name}
    return Item(text(row, "question"), image, keys, id=name)


def _with_images(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    parts = source.files[0].parts
    named = next((part for part in reversed(parts) if part.endswith("_instructions")), _QUESTIONS)
    folder = source.beside(named.replace("_instructions", "_images"))
    images: dict[str, Any] = {}
    for shard in sorted(folder.rglob("*.parquet")):
        _, found = open_table(shard)
        images |= {str(row.get("id")): row.get("image") for row in found}
    for row in of_split(rows, source):
        yield {**row, "image": images.get(str(row["imageId"]))}


def _hub(row: Row) -> Item:
    return _item(row, row["image"], row["id"], text_or_none(row, "imageId"))


def _tsv(row: Row) -> Item:
    return _item(row, row.get("image"), row["index"], None)


def _original(row: Row) -> Item:
    return _item(row, f"{text(row, 'imageId', 'image')}.jpg", row.get("id"), None)


LAYOUT = Layout(
    title="GQA",
    forms=(
        Form(HUB, ("id", "imageId", "question", "answer"), _hub, rows=_with_images),
        Form(TSV, ("index", "question", "answer"), _tsv),
        Form(
            ORIGINAL,
            ("imageId", "question", "answer"),
            _original,
            files=("testdev_balanced_questions.json", "*/testdev_balanced_questions.json"),
            images=("images", "../images"),
        ),
    ),
    prompt=SHORT,
    split="testdev",
    hub="lmms-lab/GQA",
    configs=(_QUESTIONS,),
    more_configs=(_IMAGES,),
    tsv=("GQA_TestDev_Balanced.tsv",),
    original="https://cs.stanford.edu/people/dorarad/gqa/download.html",
)
