"""RealWorldQA as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_lines, write_shard, write_tsv

WHEEL = (
    "Where does the wheel point?\n\nA. Left\nB. Straight\nC. Right\n"
    "Please answer directly with only the letter of the correct option and nothing else."
)
COUNT = "How many cars are there? Please answer directly with a single word or number."


def hub(folder: Path) -> Path:
    rows = [
        {"image_path": "0.webp", "question": WHEEL, "answer": "C", "image": cell("red")},
        {"image_path": "1.webp", "question": COUNT, "answer": "2", "image": cell("blue")},
    ]
    write_shard(folder / "data/test-00000-of-00001.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": "Where does the wheel point?", "A": "Left", "B": "Straight"}
        | {"C": "Right", "answer": "C", "image": base64_of("red")},
        {"index": 1, "question": "How many cars are there?", "A": "2", "B": "3"}
        | {"answer": "A", "image": base64_of("blue")},
    ]
    return write_tsv(folder / "RealWorldQA.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder, {"0.webp": "red", "1.webp": "blue"})
    rows = [
        {"image": "0.webp", "question": WHEEL, "answer": "C"},
        {"image": "1.webp", "question": COUNT, "answer": "2"},
    ]
    write_lines(folder / "annotations.jsonl", rows)
    return folder
