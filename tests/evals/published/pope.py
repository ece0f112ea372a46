"""POPE as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_lines, write_shard, write_tsv

SNOW, CAR = "Is there a snowboard in the image?", "Is there a car in the image?"


def hub(folder: Path) -> Path:
    rows = [
        {"id": "0", "question_id": "1", "question": SNOW, "answer": "yes"}
        | {"image_source": "COCO_val2014_01", "image": cell("red"), "category": "adversarial"},
        {"id": "1", "question_id": "1", "question": SNOW, "answer": "yes"}
        | {"image_source": "COCO_val2014_01", "image": cell("red"), "category": "popular"},
        {"id": "2", "question_id": "2", "question": CAR, "answer": "no"}
        | {"image_source": "COCO_val2014_02", "image": cell("blue"), "category": "random"},
    ]
    write_shard(folder / "data/test-00000-of-00001.parquet", rows)
    write_shard(folder / "Full/popular-00000-of-00001.parquet", rows[1:2])
    return folder


def tsv(folder: Path) -> Path:
    asked = "Please answer yes or no."
    rows = [
        {"index": 0, "question": f"{SNOW} {asked}", "answer": "Yes"}
        | {"category": "adversarial,popular", "image": base64_of("red")},
        {"index": 1, "question": f"{CAR} {asked}", "answer": "No"}
        | {"category": "random", "image": base64_of("blue")},
    ]
    return write_tsv(folder / "POPE.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "val2014", {"COCO_01.jpg": "red", "COCO_02.jpg": "blue"})
    snow = {"question_id": 1, "image": "COCO_01.jpg", "text": SNOW, "label": "yes"}
    car = {"question_id": 1, "image": "COCO_02.jpg", "text": CAR, "label": "no"}
    write_lines(folder / "coco_pope_adversarial.json", [snow])
    write_lines(folder / "coco_pope_popular.json", [snow])
    write_lines(folder / "coco_pope_random.json", [car])
    return folder
