"""A run small enough to work out every number of its report by hand."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from PIL import Image

from peeralign.records import (
    CANDIDATE_SCHEMA,
    EXAM_SCHEMA,
    JUDGMENT_SCHEMA,
    PAIR_SCHEMA,
    QUESTION_SCHEMA,
    REWARD_SCHEMA,
)
from peeralign.report import write_report
from peeralign.store.run import Run

SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
SETTINGS: dict[str, Any] = {
    "rounds": 1,
    "members": [{"name": "ada"}, {"name": "ben"}],
    "judge": {},
    "curate": {"min_chosen_reward": 0.7, "min_margin": 0.15},
    "exam": {"path": "exam.parquet"},
}
# member -> right answers of four per skill, in round 0 and in round 1
EXAMS = {
    "ada": ({"count": 1, "colour": 3}, {"count": 2, "colour": 4}),
    "ben": ({"count": 3, "colour": 1}, {"count": 4, "colour": 2}),
}
CATEGORIES = {"count": "Vision-centric", "colour": "General"}


def png(width: int, height: int, colour: str) -> dict[str, Any]:
    data = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


QUESTIONS = [
    ("q1", "what colour is the circle?", "General", png(48, 48, "red")),
    ("q2", "how many circles?", "Vision-centric", {"bytes": b"no image", "path": None}),
    ("q3", "what shape is red?", "General", png(600, 300, "blue")),
]
# id, question, answer, author, draw, text, reason
CANDIDATES = [
    ("c1", "q1", "a1", "ada", 0, "red", None),
    ("c2", "q1", "a1", "ada", 1, "Red", None),
    ("c3", "q1", "a1", "ben", 0, "red", None),
    ("c4", "q1", "a2", "ben", 1, SCRIPT, None),
    ("c5", "q2", "a3", "ada", 0, "2", None),
    ("c6", "q2", "a0", "ada", 1, None, "empty reply"),
    ("c7", "q2", "a4", "ben", 0, "3", None),
    ("c8", "q3", "a5", "ada", 0, "cross", None),
    ("c9", "q3", "a5", "ben", 0, "cross", None),
]
# answer -> question, score by ada, score by ben
JUDGMENTS: dict[str, tuple[str, float, float | None]] = {
    "a1": ("q1", 0.8, 1.0),
    "a2": ("q1", 0.2, None),
    "a3": ("q2", 0.6, 0.8),
    "a4": ("q2", 0.4, 0.6),
    "a5": ("q3", 1.0, 0.6),
}
REWARDS = [
    ("q1", "a1", "red", 3, 0.9, 0.01, 2),
    ("q1", "a2", SCRIPT, 1, 0.2, 0.0, 1),
    ("q2", "a3", "2", 1, 0.7, 0.01, 2),
    ("q2", "a4", "3", 1, 0.5, 0.01, 2),
    ("q3", "a5", "cross", 2, 0.8, 0.04, 2),
]
PAIRS = [
    ("p1", "q1", "red", SCRIPT, "a1", "a2", 0.9, 0.2),
    ("p2", "q2", "2", "3", "a3", "a4", 0.7, 0.5),
]


def frame(rows: list[Any], schema: pl.Schema) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")


def write_exam(run: Run, number: int, member: str, right: dict[str, int], items: int = 4) -> None:
    rows = [
        (f"{skill}-{i}", skill, CATEGORIES[skill], "?", "!", float(i < right[skill]), None)
        for skill in right
        for i in range(items)
    ]
    run.stage(number, "exam", member).write_shard(0, frame(rows, EXAM_SCHEMA))


def write_questions(run: Run) -> None:
    stage = run.stage(1, "questions")
    stage.write_shard(0, frame(QUESTIONS, QUESTION_SCHEMA))
    stage.finish(questions=3, set_aside=2, reasons={"not an image Pillow can read": 2})


def write_candidates(run: Run) -> None:
    for member in ("ada", "ben"):
        rows = [
            (c[0], c[1], c[2], c[3], c[4], "clean", c[5], 1, c[6])
            for c in CANDIDATES
            if c[3] == member
        ]
        run.stage(1, "candidates", member).write_shard(0, frame(rows, CANDIDATE_SCHEMA))


def write_judgments(run: Run) -> None:
    for place, judge in enumerate(("ada", "ben")):
        rows = []
        for answer, (question, *scores) in JUDGMENTS.items():
            reason = "no score in the reply" if scores[place] is None else None
            row = (f"{judge}-{answer}", question, answer, judge, scores[place])
            rows.append((*row, None, None, reason, "raw"))
        run.stage(1, "judgments", judge).write_shard(0, frame(rows, JUDGMENT_SCHEMA))


def write_pairs(run: Run) -> None:
    for name, rows, schema in (
        ("rewards", REWARDS, REWARD_SCHEMA),
        ("pairs", PAIRS, PAIR_SCHEMA),
    ):
        stage = run.stage(1, name)
        stage.write_shard(0, frame(rows, schema))
        stage.finish(rows=len(rows))


def open_run(folder: Path, **changes: Any) -> Run:
    """Make an empty run; settings can be replaced, or taken away with None."""
    settings = {key: value for key, value in {**SETTINGS, **changes}.items() if value is not None}
    return Run.open(folder, "pop", settings, 7)


def fill(run: Run) -> Run:
    """Give `run` all of round 0 and round 1."""
    for member, exams in EXAMS.items():
        for number, right in enumerate(exams):
            write_exam(run, number, member, right)
        run.checkpoint(1, member).mkdir(parents=True)
    for write_stage in (write_questions, write_candidates, write_judgments, write_pairs):
        write_stage(run)
    return run


@pytest.fixture(scope="session")
def write() -> SimpleNamespace:
    """The stages of the small run one by one, for runs that stop in the middle."""
    return SimpleNamespace(
        open=open_run,
        fill=fill,
        exam=write_exam,
        questions=write_questions,
        candidates=write_candidates,
        judgments=write_judgments,
        pairs=write_pairs,
        script=SCRIPT,
        broken=QUESTIONS[1][3],
    )


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    return functools.partial(open_run, tmp_path / "a-run")


@pytest.fixture
def whole_run(new_run: Callable[..., Run]) -> Run:
    return fill(new_run())


@pytest.fixture(scope="module")
def report_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole run, for tests that only look at it."""
    return write_report(fill(open_run(tmp_path_factory.mktemp("report") / "a-run")).folder)
