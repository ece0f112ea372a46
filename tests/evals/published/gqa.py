"""GQA as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv

SUNNY, WHO = "Is it overcast?", "Who is wearing the dress?"


def hub(folder: Path) -> Path:
    rows = [
        {"id": "201307251", "imageId": "n161313", "question": SUNNY, "answer": "no"}
        | {"types": {"structural": "verify", "semantic": "global", "detailed": "weatherVerify"}},
        {"id": "201640614", "imageId": "n235859", "question": WHO, "answer": "woman"}
        | {"types": {"structural": "query", "semantic": "rel", "detailed": "relS"}},
    ]
    write_shard(folder / "testdev_balanced_instructions/testdev-00000-of-00001.parquet", rows)
    images = [
        {"id": "n235859", "image": cell("blue")},
        {"id": "n161313", "image": cell("red")},
    ]
    write_shard(folder / "testdev_balanced_images/testdev-00000-of-00001.parquet", images)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": SUNNY, "answer": "no", "image": base64_of("red")},
        {"index": 1, "question": WHO, "answer": "woman", "image": base64_of("blue")},
    ]
    return write_tsv(folder / "GQA_TestDev_Balanced.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "images", {"n161313.jpg": "red", "n235859.jpg": "blue"})
    whole = {
        "201307251": {"imageId": "n161313", "question": SUNNY, "answer": "no"}
        | {"types": {"structural": "verify"}, "isBalanced": True},
        "201640614": {"imageId": "n235859", "question": WHO, "answer": "woman"}
        | {"types": {"structural": "query"}, "isBalanced": True},
    }
    return write_json(folder / "questions/testdev_balanced_questions.json", whole).parents[1]
