"""MMMU as it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.standins import base64_of, cell, write_shard, write_tsv

CHOICE = "<image 1> Which account is shown in <image 1>?"
OPEN = "What is the ratio?\n<image 1>"
TWO = "Which of <image 1> and <image 2> is older?"


def _row(name: str, question: str, options: str, answer: str, *images: str) -> dict[str, Any]:
    cells = {f"image_{at}": cell(colour) for at, colour in enumerate(images, start=1)}
    kind = "multiple-choice" if options != "[]" else "open"
    row = {"id": name, "question": question, "options": options, "answer": answer}
    return {**row, "question_type": kind, "image_1": None, "image_2": None, **cells}


def hub(folder: Path) -> Path:
    accounting = [
        _row("validation_Accounting_1", CHOICE, "['Cash', 'Stock']", "B", "red"),
    ]
    art = [
        _row("validation_Art_Theory_2", OPEN, "[]", "['1:2', '0.5']", "blue"),
        _row("validation_Art_Theory_3", TWO, "['First', 'Second']", "A", "red", "blue"),
        # The second image is not named, so it is not part of the question.
        _row("validation_Art_Theory_4", CHOICE, "['Oil', 'Ink']", "A", "red", "blue"),
    ]
    write_shard(folder / "Accounting/validation-00000-of-00001.parquet", accounting)
    write_shard(folder / "Art_Theory/validation-00000-of-00001.parquet", art)
    write_shard(folder / "Accounting/dev-00000-of-00001.parquet", accounting)
    return folder


def tsv(folder: Path) -> Path:
    red, blue, both = base64_of("red"), base64_of("blue"), [base64_of("red"), base64_of("blue")]
    theory = {"split": "validation", "category": "Art_Theory", "l2-category": "Art & Design"}
    rows = [
        {"index": 1, "id": "validation_Accounting_1", "question": CHOICE, "A": "Cash", "B": "Stock"}
        | {"answer": "B", "split": "validation", "category": "Accounting", "image": red},
        {"index": 2, "id": "validation_Art_Theory_2", "question": OPEN}
        | {"A": None, "B": None, "answer": "['1:2', '0.5']", "image": blue, **theory},
        {"index": 3, "id": "validation_Art_Theory_3", "question": TWO, "A": "First", "B": "Second"}
        | {"answer": "A", "image": str(both), **theory},
        {"index": 4, "id": "validation_Art_Theory_4", "question": CHOICE, "A": "Oil", "B": "Ink"}
        | {"answer": "A", "image": str(both), **theory},
        {"index": 5, "id": "dev_Accounting_1", "question": CHOICE, "A": "Cash", "B": "Stock"}
        | {"answer": "B", "split": "dev", "category": "Accounting", "image": red},
    ]
    return write_tsv(folder / "MMMU_DEV_VAL.tsv", rows)
