"""Folders of evaluations and of examined runs, written by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from peeralign.evals.exam import EXAM_FILE_SCHEMA
from peeralign.records import EXAM_SCHEMA
from peeralign.store.run import Run, Stage

Rows = Sequence[Mapping[str, Any]]


def write_eval(
    folder: Path,
    benchmarks: Mapping[str, Mapping[str, Rows]],
    judges: Sequence[str] = (),
    **asked: Any,
) -> Path:
    """An evaluation's folder of benchmark -> member -> rows; `asked` is in all its settings."""
    how = {"data": "data", "split": None, "image_root": None, "limit": None, "prompt": None}
    settings = [{"name": name, "protocol": "official", **how, **asked} for name in benchmarks]
    grading = {"judges": [{"name": model, "model": model} for model in judges], "readout": "text"}
    Run.open(folder, "eval", {"benchmarks": settings, **grading}, 0)
    for name, members in benchmarks.items():
        for member, rows in members.items():
            path = folder / "rows" / name / f"{member}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def gqa(right: str, **keys: Any) -> list[dict[str, Any]]:
    """A row of GQA for each letter: "1" is right, "0" wrong and "-" has no reply."""
    said = {"1": "yes", "0": f"no {keys.pop('wrong', '')}".strip(), "-": None}
    return [
        {
            **{"id": f"{place:03}", "question": f"is it {place}?", "answer": "yes"},
            "prediction": said[letter],
            **keys,
        }
        for place, letter in enumerate(right)
    ]


def png(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), (number, 2 * number % 256, 200)).save(data, "PNG")
    return data.getvalue()


def write_exam_file(path: Path, skills: Mapping[str, int]) -> Path:
    """An exam with so many questions a skill; each skill asks one thing of many images."""
    rows = [
        {
            "id": f"{skill}-{place:02}",
            "image": {"bytes": png(place), "path": None},
            **{"text": f"{skill}?", "answer": "yes", "skill": skill, "category": "all"},
        }
        for skill, number in skills.items()
        for place in range(number)
    ]
    pl.DataFrame(rows, schema=EXAM_FILE_SCHEMA).write_parquet(path)
    return path


def write_run(
    folder: Path, exam: Path | None, rounds: Mapping[int, Mapping[str, Mapping[str, str]]]
) -> Path:
    """A run's folder of round -> member -> skill -> a letter an item, as `gqa` has them."""
    members = list(dict.fromkeys(name for members in rounds.values() for name in members))
    settings = {
        "members": [{"name": name} for name in members],
        "exam": {"path": str(exam) if exam else None},
    }
    run = Run.open(folder, "pop", settings, 0)
    for number, examined in rounds.items():
        for member, skills in examined.items():
            write_exam(run.stage(number, "exam", member), skills)
    return folder


def write_exam(stage: Stage, skills: Mapping[str, str]) -> None:
    """What one member answered."""
    said = {"1": "yes", "0": "no", "-": None}
    rows = [
        (f"{skill}-{place:02}", skill, "all", f"{skill}?", said[letter], float(letter == "1"), None)
        for skill, letters in skills.items()
        for place, letter in enumerate(letters)
    ]
    stage.write_shard(0, pl.DataFrame(rows, schema=EXAM_SCHEMA, orient="row"))
    stage.finish(rows=len(rows))
