"""MMStar as it is published; the hub's questions hold their options."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_shard, write_tsv

HINT = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D."


def hub(folder: Path) -> Path:
    math = {"category": "math", "l2_category": "geometry"}
    rows = [
        {"index": 0, "question": "Where is it?\nOptions: A: On it., B: Under a, b., C: In it."}
        | {"answer": "B", "category": "coarse perception", "l2_category": "image emotion"}
        | {"image": cell("red")},
        {"index": 1, "question": f"{HINT}\nQuestion: Find x <image 1>\nChoices:\n(A) 4\n(B) 6"}
        | {"answer": "A", "image": cell("blue"), **math},
        {"index": 2, "question": "Which of A and B is it?", "answer": "B", "image": cell("blue")}
        | math,
        {"index": 3, "question": "Which one?\nOptions: A: <image 1>, B: <image 2>, C: nan"}
        | {"answer": "B", "image": cell("red"), **math},
    ]
    write_shard(folder / "mmstar.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": "Where is it?", "A": "On it.", "B": "Under a, b.", "C": "In it."}
        | {"answer": "B", "category": "coarse perception", "l2_category": "image emotion"}
        | {"image": base64_of("red")},
        {"index": 1, "question": "Find x <image 1>", "A": "4", "B": "6", "answer": "A"}
        | {"category": "math", "l2_category": "geometry", "image": base64_of("blue")},
    ]
    return write_tsv(folder / "MMStar.tsv", rows)
