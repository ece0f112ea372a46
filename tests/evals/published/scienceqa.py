"""ScienceQA as it is published, with a question that has no image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv


def _rows() -> list[dict[str, Any]]:
    natural = {"subject": "natural science", "grade": "grade4", "category": "Materials"}
    social = {"subject": "social science", "grade": "grade8", "category": "Geography"}
    return [
        {"question": "What is soft?", "choices": ["rock", "wool", "glass"], "answer": 1}
        | {"hint": "Look at the objects.", **natural},
        {"question": "Which state?", "choices": ["Ohio", "Iowa"], "answer": 0, "hint": ""} | social,
        {"question": "Which word?", "choices": ["up", "on"], "answer": 0, "hint": ""} | social,
    ]


def hub(folder: Path) -> Path:
    images = (cell("red"), cell("blue"), None)
    rows = [{**row, "image": image} for row, image in zip(_rows(), images, strict=True)]
    write_shard(folder / "ScienceQA-IMG/test-00000-of-00001.parquet", rows[:2])
    write_shard(folder / "ScienceQA-FULL/test-00000-of-00001.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    table = []
    for index, (row, colour) in enumerate(zip(_rows(), ("red", "blue"), strict=False)):
        choices = dict(zip("ABC", row.pop("choices"), strict=False))
        answer = "ABC"[row.pop("answer")]
        shared = {"index": index, **row, "A": None, "B": None, "C": None, **choices}
        table.append({**shared, "answer": answer, "image": base64_of(colour)})
    return write_tsv(folder / "ScienceQA_TEST.tsv", table)


def original(folder: Path) -> Path:
    images = {"11": "image.png", "12": "image.png", "13": None}
    problems = {
        pid: {**row, "image": image, "split": "test"}
        for row, (pid, image) in zip(_rows(), images.items(), strict=True)
    }
    problems["20"] = {**_rows()[0], "image": "image.png", "split": "val"}
    write_json(folder / "problems.json", problems)
    splits = {"test": ["11", "12", "13"], "val": ["20"], "minival": ["20"]}
    write_json(folder / "pid_splits.json", splits)
    names = {"test/11/image.png": "red", "test/12/image.png": "blue", "val/20/image.png": "green"}
    write_images(folder / "images", names)
    return folder
