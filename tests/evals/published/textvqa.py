"""TextVQA as it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv

ANSWERS = ["dakota"] * 6 + ["dakota digital"] * 3 + ["clos culombu"]


def hub(folder: Path) -> Path:
    rows = [
        {"image_id": "a1", "question_id": 34602, "question": "what is the brand?"}
        | {"image": cell("red"), "answers": ANSWERS, "set_name": "val"},
        {"image_id": "a2", "question_id": 34603, "question": "what does it say?"}
        | {"image": cell("blue"), "answers": ["stop"] * 10, "set_name": "val"},
    ]
    write_shard(folder / "data/validation-00000-of-00001.parquet", rows)
    write_shard(folder / "data/test-00000-of-00001.parquet", rows[:1])
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 34602, "question": "what is the brand?", "answer": str(ANSWERS)}
        | {"image": base64_of("red")},
        {"index": 34603, "question": "what does it say?", "answer": str(["stop"] * 10)}
        | {"image": base64_of("blue")},
    ]
    return write_tsv(folder / "TextVQA_VAL.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "train_images", {"a1.jpg": "red", "a2.jpg": "blue"})
    data: list[dict[str, Any]] = [
        {"question_id": 34602, "image_id": "a1", "question": "what is the brand?"}
        | {"answers": ANSWERS},
        {"question_id": 34603, "image_id": "a2", "question": "what does it say?"}
        | {"answers": ["stop"] * 10},
    ]
    # The OCR tokens that the authors publish beside it.
    write_json(folder / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": [{"image_id": "a1"}]})
    whole = {"dataset_type": "val", "dataset_version": "0.5.1", "data": data}
    return write_json(folder / "TextVQA_0.5.1_val.json", whole).parent
