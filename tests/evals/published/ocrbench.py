"""OCRBench as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv

FORMULAS = "Handwritten Mathematical Expression Recognition"


def hub(folder: Path) -> Path:
    rows = [
        {"dataset": "IIIT5K", "question": "what is written in the image?", "answer": ["CENTRE"]}
        | {"question_type": "Regular Text Recognition", "image": cell("red")},
        {"dataset": "HME100k", "question": "Please write out the expression.", "answer": ["x ^ 2"]}
        | {"question_type": FORMULAS, "image": cell("blue")},
    ]
    write_shard(folder / "data/test-00000-of-00001.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": "what is written in the image?", "answer": "['CENTRE']"}
        | {"category": "Regular Text Recognition", "image": base64_of("red")},
        {"index": 1, "question": "Please write out the expression.", "answer": "['x ^ 2']"}
        | {"category": FORMULAS, "image": base64_of("blue")},
    ]
    return write_tsv(folder / "OCRBench.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "OCRBench_Images", {"IIIT5K/1.png": "red", "HME100k/1.jpg": "blue"})
    rows = [
        {"dataset_name": "IIIT5K", "id": 0, "type": "Regular Text Recognition"}
        | {"question": "what is written in the image?", "answers": "CENTRE"}
        | {"image_path": "IIIT5K/1.png"},
        {"dataset_name": "HME100k", "id": 1, "type": FORMULAS}
        | {"question": "Please write out the expression.", "answers": ["x ^ 2"]}
        | {"image_path": "HME100k/1.jpg"},
    ]
    return write_json(folder / "OCRBench/OCRBench.json", rows).parents[1]
