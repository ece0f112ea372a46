"""MathVista as it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals.standins import base64_of, cell, write_images, write_json, write_shard, write_tsv

LETTER = (
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, "
    "at the end.\nQuestion: How wide? \nChoices:\n(A) 6cm\n(B) 7cm"
)
FLOAT = (
    "Hint: Please answer the question requiring a floating-point number with one decimal place "
    "and provide the final value, e.g., 1.2, 1.3, 1.4, at the end.\nQuestion: How deep?"
)
INTEGER = (
    "Hint: Please answer the question requiring an integer answer and provide the final value, "
    "e.g., 1, 2, 3, at the end.\nQuestion: How much? (Unit: g)"
)


def _problems() -> list[dict[str, Any]]:
    about = {"split": "testmini", "category": "math-targeted-vqa", "grade": "high school"}
    metadata = {**about, "task": "geometry problem solving", "skills": ["geometry reasoning"]}
    free = {"choices": None, "question_type": "free_form"}
    problems = [
        {"question": "How wide? ", "choices": ["6cm", "7cm"], "question_type": "multi_choice"}
        | {"answer_type": "text", "answer": "7cm", "precision": None, "unit": None},
        {"question": "How deep?", **free}
        | {"answer_type": "float", "answer": "1.2", "precision": 1.0, "unit": None},
        {"question": "How much?", **free}
        | {"answer_type": "integer", "answer": "1000", "precision": None, "unit": "g"},
    ]
    return [
        {"pid": str(pid), **problem, "image": f"images/{pid}.jpg", "metadata": metadata}
        for pid, problem in enumerate(problems, start=1)
    ]


def hub(folder: Path) -> Path:
    pairs = zip((LETTER, FLOAT, INTEGER), ("red", "blue", "green"), strict=True)
    rows = [
        {**problem, "query": query, "decoded_image": cell(colour)}
        for problem, (query, colour) in zip(_problems(), pairs, strict=True)
    ]
    write_shard(folder / "data/testmini-00000-of-00001-725687bf7a18d64b.parquet", rows)
    hidden = [{**row, "answer": ""} for row in rows]
    write_shard(folder / "data/test-00000-of-00001.parquet", hidden)
    return folder


def tsv(folder: Path) -> Path:
    rows = []
    for problem, query, colour in zip(
        _problems(), (LETTER, FLOAT, INTEGER), ("red", "blue", "green"), strict=True
    ):
        metadata = problem.pop("metadata")
        row = {**problem, **metadata, "index": problem.pop("pid"), "question": query}
        row |= {"choices": str(problem["choices"] or []), "image": base64_of(colour)}
        rows.append(row | {"skills": str(metadata["skills"])})
    return write_tsv(folder / "MathVista_MINI.tsv", rows)


def original(folder: Path) -> Path:
    write_images(folder / "images", {"1.jpg": "red", "2.jpg": "blue", "3.jpg": "green"})
    write_json(folder / "data/testmini.json", {row["pid"]: row for row in _problems()})
    return folder
