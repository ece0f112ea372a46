"""SEED-Bench as it is published, with a question about a video beside those about images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv


def _row(question_id: str, kind: int, answer: str, **more: Any) -> dict[str, Any]:
    choices = {"choice_a": "1", "choice_b": "2", "choice_c": "3", "choice_d": "4"}
    row = {"question": "How many towels are there?", "answer": answer, **choices}
    about = {"question_id": question_id, "question_type_id": kind, "data_type": "image"}
    return {**row, **about, **more}


def hub(folder: Path) -> Path:
    rows = [
        _row("101669", 5, "A", data_id="1_2", image=[cell("red")]),
        _row("75500", 4, "D", data_id="3_4", image=[cell("blue")]),
        _row("v1", 10, "B", data_id="5.webm", data_type="video", image=[cell("red"), cell("blue")]),
    ]
    write_shard(folder / "data/test-00000-of-00001.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    choices = dict(zip("ABCD", "1234", strict=True))
    shared = {"question": "How many towels are there?", **choices}
    rows = [
        {"index": 101669, **shared, "answer": "A", "category": "Instances Counting"}
        | {"image": base64_of("red")},
        {"index": 75500, **shared, "answer": "D", "category": "Instance Location"}
        | {"image": base64_of("blue")},
    ]
    return write_tsv(folder / "SEEDBench_IMG.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "SEED-Bench-image", {"1_2": "red", "3_4": "blue"})
    rows = [
        _row("101669", 5, "A", data_id="1_2"),
        _row("75500", 4, "D", data_id="3_4"),
        _row("v1", 10, "B", data_id="5.webm", data_type="video", segment=[1, 9]),
    ]
    kinds = {"Instance Location": 4, "Instances Counting": 5, "Action Recognition": 10}
    write_json(folder / "SEED-Bench.json", {"questions": rows, "question_type": kinds})
    return folder
