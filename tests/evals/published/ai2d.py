"""AI2D as it is published; the authors' files hold a training diagram too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv

FOOD, LETTER = "What eats grass?", "What is the letter of the sun?"


def hub(folder: Path) -> Path:
    rows = [
        {"question": FOOD, "options": ["fox", "rabbit", "hawk", ""], "answer": "1"}
        | {"image": cell("red")},
        {"question": LETTER, "options": ["T", "U", "V", "W"], "answer": "3"}
        | {"image": cell("blue")},
    ]
    write_shard(folder / "data/test-00000-of-00001.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": 0, "question": FOOD, **dict(zip("ABC", ("fox", "rabbit", "hawk"), strict=True))}
        | {"answer": "B", "category": "foodChainsWebs", "image": base64_of("red")},
        {"index": 1, "question": LETTER, **dict(zip("ABCD", "TUVW", strict=True))}
        | {"answer": "D", "category": "earthMoonPhases", "image": base64_of("blue")},
    ]
    return write_tsv(folder / "AI2D_TEST.tsv", rows)


def original(folder: Path) -> Path:
    def diagram(name: str, question: str, **about: Any) -> None:
        value = {"imageName": name, "questions": {question: {**about, "questionId": f"{name}-0"}}}
        write_json(folder / f"ai2d/questions/{name}.json", value)

    diagram("0.png", FOOD, abcLabel=False, answerTexts=["fox", "rabbit", "hawk"], correctAnswer=1)
    diagram("7.png", LETTER, abcLabel=True, answerTexts=["T", "U", "V", "W"], correctAnswer=3)
    diagram("9.png", "Which moon?", abcLabel=False, answerTexts=["a", "b"], correctAnswer=0)
    images = {"images/0.png": "red", "images/7.png": "green", "images/9.png": "green"}
    write_images(folder / "ai2d", {**images, "abc_images/7.png": "blue"})
    (folder / "ai2d_test_ids.csv").write_text("0\n7\n")
    return folder
