"""Tables of a run without judges, small enough to count its pairs by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.records import CANDIDATE_SCHEMA, EXAM_SCHEMA, OVERLAP_SCHEMA, make_id
from peeralign.report.scores import DESCRIBED
from peeralign.stages.contrast import contrast
from peeralign.store.run import Run

MEMBERS = ("ada", "ben")
CATEGORIES = {"<i>General</i>": 0.8, "Chart": 0.25}
# member -> question, view, text; ben gives ada's first pair too.
GIVEN = {
    "ada": [
        ("q1", "clean", "red"),
        ("q1", "blur", "blue"),
        ("q1", "dark", "Blue"),
        ("q2", "clean", "2"),
        ("q2", "blur", "2"),
        ("q2", "dark", None),
        ("q3", "clean", "cross"),
        ("q3", "blur", "<b>bar</b>"),
        ("q3", "dark", "cross"),
    ],
    "ben": [("q1", "clean", "red"), ("q1", "blur", "blue")],
}
SETTINGS: dict[str, Any] = {
    "rounds": 1,
    "members": [{"name": name} for name in MEMBERS],
    "exam": {"path": "exam.parquet", "describe": {}},
}


def candidates(author: str, given: list[tuple[str, str, str | None]]) -> pl.DataFrame:
    rows = []
    for question, view, text in given:
        answer = make_id(question, (text or "").casefold())
        reason = "empty answer" if text is None else None
        name = make_id(author, question, view)
        rows.append((name, question, answer, author, 0, view, text, 1, reason))
    return pl.DataFrame(rows, schema=CANDIDATE_SCHEMA, orient="row")


def write_contrast(run: Run, member: str, given: list[tuple[str, str, str | None]]) -> None:
    table = candidates(member, given)
    stage = run.stage(1, "candidates", member)
    stage.write_shard(0, table)
    stage.finish()
    pairs, views = contrast(table, "clean")
    stage = run.stage(1, "pairs", member)
    stage.write_shard(0, pairs)
    stage.finish(rows=len(pairs), views=views)


def write_exams(run: Run, number: int, member: str, right: int, after_describing: int) -> None:
    for kind, good in (("exam", right), (DESCRIBED, after_describing)):
        rows = [(str(i), "count", "General", "?", "!", float(i < good), None) for i in range(10)]
        stage = run.stage(number, kind, member)
        stage.write_shard(0, pl.DataFrame(rows, schema=EXAM_SCHEMA, orient="row"))
        stage.finish()


def write_overlap(run: Run, member: str) -> None:
    rows: list[tuple[str, str | None, float, float]] = [("training", None, 0.0, 1.0)] * 3
    rows += [("exam", category, 1.0, 0.5) for category in CATEGORIES]
    stage = run.stage(1, "overlap", member)
    stage.write_shard(0, pl.DataFrame(rows, schema=OVERLAP_SCHEMA, orient="row"))
    stage.finish(training=3, exam=2, nearest=CATEGORIES, among_training=0.7)


def write_seva(folder: Path, write_questions: Callable[[Run], None]) -> Run:
    """A whole run of SeVa by two members, examined with and without describing."""
    run = Run.open(folder, "seva", SETTINGS, 7)
    write_questions(run)
    for member in MEMBERS:
        write_contrast(run, member, GIVEN[member])
        write_exams(run, 0, member, 5, 2)
        write_exams(run, 1, member, 6, 4)
        run.checkpoint(1, member).mkdir(parents=True)
    return run
