"""OCR-VQA (Mishra et al., 2019): several questions about each book's cover.

Authors' files (ocr-vqa.github.io): dataset.json, objects by the book's id with imageURL, questions,
answers and split (1 train, 2 validation, 3 test), and images/ID with the ending of the address. The
hub's rows hold the questions of one cover as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from peeralign.errors import PeeralignError
from peeralign.evals.layouts.cells import listed, text, texts
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

_SPLITS = {"train": 1, "validation": 2, "test": 3}


def _questions(rows: Iterable[Row]) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        questions, answers = listed(row.get("questions")), listed(row.get("answers"))
        answers += [None] * (len(questions) - len(answers))
        for place, (question, answer) in enumerate(zip(questions, answers, strict=False), start=1):
            name = f"{row.get('image_id') or row.get('id') or number}/{place}"
            yield {**row, "id": name, "book": row.get("id"), "question": question, "answer": answer}


def _hub_rows(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    return _questions(of_split(rows, source))


def _original_rows(rows: Iterable[Row], source: Source) -> Iterator[Row]:
    split = source.split or source.layout.split
    if split not in _SPLITS:
        raise PeeralignError(f"OCR-VQA has no split '{split}', only {', '.join(_SPLITS)}")
    return _questions(row for row in rows if str(row.get("split")) == str(_SPLITS[split]))


def _hub(row: Row) -> Item:
    keys = {"answers": [text(row, "answer")]}
    return Item(text(row, "question"), row["image"], keys, id=row["id"])


def _tsv(row: Row) -> Item:
    keys = {"answers": texts(row, "answer")}
    return Item(text(row, "question"), row.get("image"), keys, id=row["index"])


def _original(row: Row) -> Item:
    image = f"{row['book']}{PurePosixPath(text(row, 'imageURL', 'image')).suffix}"
    return Item(text(row, "question"), image, {"answers": [text(row, "answer")]}, id=row["id"])


LAYOUT = Layout(
    title="OCR-VQA",
    forms=(
        Form(HUB, ("image", "questions", "answers"), _hub, rows=_hub_rows),
        Form(TSV, ("index", "question", "answer"), _tsv),
        Form(
            ORIGINAL,
            ("imageURL", "questions", "answers", "split"),
            _original,
            files=("dataset.json",),
            rows=_original_rows,
        ),
    ),
    prompt=SHORT,
    hub="howard-hou/OCR-VQA",
    tsv=("OCRVQA_TEST.tsv", "OCRVQA_TESTCORE.tsv"),
    original="https://ocr-vqa.github.io",
)
