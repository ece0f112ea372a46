"""ChartQA as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv


def hub(folder: Path) -> Path:
    rows = [
        {"type": "human_test", "question": "How many bars?", "answer": "4", "image": cell("red")},
        {"type": "human_test", "question": "Which year?", "answer": "2014", "image": cell("red")},
        {"type": "augmented_test", "question": "Which share?", "answer": "57%"}
        | {"image": cell("blue")},
    ]
    write_shard(folder / "data/test-00000-of-00002.parquet", rows[:2])
    write_shard(folder / "data/test-00001-of-00002.parquet", rows[2:])
    write_shard(folder / "data/val-00000-of-00001.parquet", rows[:1])
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": "How many bars?", "answer": "4", "split": "test_human"}
        | {"image": base64_of("red")},
        {"index": 1, "question": "Which year?", "answer": "2014", "split": "test_human"}
        | {"image": "0"},
        {"index": 2, "question": "Which share?", "answer": "57%", "split": "test_augmented"}
        | {"image": base64_of("blue")},
    ]
    return write_tsv(folder / "ChartQA_TEST.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "test/png", {"a.png": "red", "b.png": "blue"})
    people = [
        {"imgname": "a.png", "query": "How many bars?", "label": "4"},
        {"imgname": "a.png", "query": "Which year?", "label": "2014"},
    ]
    write_json(folder / "test/test_human.json", people)
    machine = [{"imgname": "b.png", "query": "Which share?", "label": "57%"}]
    write_json(folder / "test/test_augmented.json", machine)
    return folder
