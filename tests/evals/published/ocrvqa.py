"""OCR-VQA as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv

QUESTIONS = ["Who wrote this book?", "Is this a comedy book?"]
ANSWERS = ["Jane Roe", "No"]


def hub(folder: Path) -> Path:
    rows = [
        {"image": cell("red"), "image_id": "1589", "questions": QUESTIONS, "answers": ANSWERS},
        {"image": cell("blue"), "image_id": "0761", "questions": ["What is the title?"]}
        | {"answers": ["Maps"]},
    ]
    write_shard(folder / "data/test-00000-of-00001-45d65f5057dd1a9e.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": QUESTIONS[0], "answer": "Jane Roe", "image": base64_of("red")},
        {"index": 1, "question": QUESTIONS[1], "answer": "No", "image": "0"},
        {"index": 2, "question": "What is the title?", "answer": "Maps"}
        | {"image": base64_of("blue")},
    ]
    return write_tsv(folder / "OCRVQA_TEST.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "images", {"1589.jpg": "red", "0761.gif": "blue"})
    address = "http://ecx.example.com/images/I/51"
    books = {
        "1589": {"imageURL": f"{address}a.jpg", "questions": QUESTIONS, "answers": ANSWERS}
        | {"title": "Poems", "split": 3},
        "0002": {"imageURL": f"{address}b.jpg", "questions": QUESTIONS, "answers": ANSWERS}
        | {"title": "Of the training set", "split": 1},
        "0761": {"imageURL": f"{address}c.gif", "questions": ["What is the title?"]}
        | {"answers": ["Maps"], "title": "Maps", "split": 3},
    }
    return write_json(folder / "dataset.json", books).parent
