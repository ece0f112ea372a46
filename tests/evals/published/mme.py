"""MME as it is published."""

from __future__ import annotations

from pathlib import Path

from evals.standins import base64_of, cell, write_images, write_shard, write_tsv

ASKED = " Please answer yes or no."
SUM, ART = "Is the answer 15?", "Is this a sculpture?"


def _rows() -> list[tuple[str, str, str, str, str]]:
    return [
        ("numerical_calculation/0001.png", "numerical_calculation", SUM, "Yes", "red"),
        ("numerical_calculation/0001.png", "numerical_calculation", "Is it 16?", "No", "red"),
        ("artwork/10256.jpg", "artwork", ART, "Yes", "blue"),
        ("artwork/10256.jpg", "artwork", "Is this a painting?", "No", "blue"),
    ]


def hub(folder: Path) -> Path:
    rows = [
        {"question_id": name, "image": cell(colour), "question": question + ASKED}
        | {"answer": answer, "category": task}
        for name, task, question, answer, colour in _rows()
    ]
    write_shard(folder / "data/test-00000-of-00001.parquet", rows)
    return folder


def tsv(folder: Path) -> Path:
    rows = [
        {"index": number, "image": base64_of(colour), "question": question + ASKED}
        | {"answer": answer, "category": task, "image_path": name}
        for number, (name, task, question, answer, colour) in enumerate(_rows())
    ]
    return write_tsv(folder / "MME.tsv", rows)


def original(folder: Path) -> Path:
    write_images(
        folder, {"numerical_calculation/0001.png": "red", "artwork/images/10256.jpg": "blue"}
    )
    lines: dict[str, list[str]] = {}
    for name, task, question, answer, _ in _rows():
        texts = "questions_answers_YN/" if task == "artwork" else ""
        file = f"{task}/{texts}{Path(name).stem}.txt"
        lines.setdefault(file, []).append(f"{question}{ASKED}\t{answer}\n")
    for file, pair in lines.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("".join(pair))
    return folder
