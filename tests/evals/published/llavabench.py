"""LLaVA-Bench in the wild as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_lines, write_shard, write_tsv

FIRST, SECOND = "What is the name of this famous sight?", "Describe this photo in detail."


def hub(folder: Path) -> Path:
    rows = [
        {"question_id": 0, "question": FIRST, "image": cell("red"), "category": "conv"}
        | {"image_id": "001.jpg", "gpt_answer": "Diamond Head.", "caption": "An aerial view."},
        {"question_id": 1, "question": SECOND, "image": cell("red"), "category": "detail"}
        | {"image_id": "001.jpg", "gpt_answer": "A crater.", "caption": "An aerial view."},
    ]
    write_shard(folder / "data/train-00000-of-00001.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": FIRST, "gpt4_ans": "Diamond Head.", "category": "conv"}
        | {"caption": "An aerial view.", "image": base64_of("red")},
        {"index": 1, "question": SECOND, "gpt4_ans": "A crater.", "category": "detail"}
        | {"caption": "An aerial view.", "image": "0"},
    ]
    return write_tsv(folder / "LLaVABench.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "images", {"001.jpg": "red"})
    questions = [
        {"question_id": 0, "image": "001.jpg", "category": "conv", "text": FIRST},
        {"question_id": 1, "image": "001.jpg", "category": "detail", "text": SECOND},
    ]
    write_lines(folder / "questions.jsonl", questions)
    answers = [
        {"question_id": 0, "prompt": FIRST, "answer_id": "a", "text": "Diamond Head."},
        {"question_id": 1, "prompt": SECOND, "answer_id": "b", "text": "A crater."},
    ]
    write_lines(folder / "answers_gpt4.jsonl", answers)
    contexts = [{"id": "001", "image": "001.jpg", "caption": "An aerial view."}]
    return write_lines(folder / "context.jsonl", contexts).parent
