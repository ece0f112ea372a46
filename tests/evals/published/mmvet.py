"""MM-Vet as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv

FIRST, SECOND = "What is x in the equation?", "What is funny here?"


def hub(folder: Path) -> Path:
    rows = [
        {"question_id": "v1_0", "question": FIRST, "answer": "-1<AND>-5", "image": cell("red")}
        | {"capability": "ocr,math", "image_source": "web"},
        {"question_id": "v1_1", "question": SECOND, "answer": "the hat", "image": cell("blue")}
        | {"capability": "rec", "image_source": "web"},
    ]
    write_shard(folder / "data/test-00000-of-00001.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": FIRST, "answer": "-1<AND>-5", "category": "ocr,math"}
        | {"image": base64_of("red")},
        {"index": 1, "question": SECOND, "answer": "the hat", "category": "rec"}
        | {"image": base64_of("blue")},
    ]
    return write_tsv(folder / "MMVet.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "images", {"v1_0.png": "red", "v1_1.jpg": "blue"})
    whole = {
        "v1_0": {"imagename": "v1_0.png", "question": FIRST, "answer": "-1<AND>-5"}
        | {"imagesource": "web", "capability": ["ocr", "math"]},
        "v1_1": {"imagename": "v1_1.jpg", "question": SECOND, "answer": "the hat"}
        | {"imagesource": "web", "capability": ["rec"]},
    }
    return write_json(folder / "mm-vet.json", whole).parent
