"""Write RUN/report.html: one file, readable from disk, that loads nothing from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from peeralign.errors import PeeralignError
from peeralign.report import figures
from peeralign.report.collect import BINS_PER_UNIT, RunData, collect
from peeralign.report.gallery import PAIRS_PER_ROUND, Card, collect_gallery
from peeralign.report.page import render_page
from peeralign.report.scores import Change, Exam
from peeralign.store.run import Run, write_whole

MIN_MATRIX_SPAN = 0.3
MINUS = "\N{MINUS SIGN}"
# Rewards of the paper start at 0.2; the axis starts there unless a rubric goes lower.
FIRST_BIN, LAST_BIN = BINS_PER_UNIT // 5, BINS_PER_UNIT - 1
# Commands that keep their work in the folder of a run, without the rounds of one.
WITHOUT_ROUNDS = ("judge", "judge-eval", "critic-data", "sft", "prefer", "eval", "lmms-eval")


def write_report(run_folder: Path) -> Path:
    """Write `run_folder`/report.html from what the run holds so far, and return its path.

    Raises PeeralignError if there is no run at `run_folder` or a table of it cannot be read.
    """
    run = Run.existing(run_folder)
    recipe = run.manifest()["recipe"]
    if recipe in WITHOUT_ROUNDS:
        raise PeeralignError(
            f"{run_folder} holds no rounds to report on, it was made by '{recipe}'; give the "
            "folder of a `peeralign run`"
        )
    try:
        data = collect(run)
        cards = [card for entry in data.rounds for card in collect_gallery(run, entry.number)]
    except (pl.exceptions.PolarsError, json.JSONDecodeError, FileNotFoundError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise PeeralignError(
            f"{run_folder} cannot be read as a run of peeralign ({first_line}); "
            "remove the damaged file and run its command again"
        ) from error
    path = run.folder / "report.html"
    write_whole(path, render(data, cards).encode())
    return path


def render(data: RunData, cards: list[Card]) -> str:
    """The page as text. The same run gives the same text."""
    return render_page(
        "page.html",
        {"points": _points, "seconds": _seconds, "percent": _percent, "reward": _reward},
        data=data,
        exam=data.exam,
        cards=cards,
        pairs_per_round=PAIRS_PER_ROUND,
        sentence=result_sentence(data),
        legend=_entries(data.exam.members if data.exam else []),
        evaluated=_entries(data.benchmarks.curves.members if data.benchmarks else []),
        viewed=any(entry.views for entry in data.rounds),
        figures=_figures(data),
        stages=list(dict.fromkeys(name for spent in data.seconds.values() for name in spent)),
        settings=json.dumps(data.manifest.get("settings", {}), indent=2, ensure_ascii=False),
    )


def result_sentence(data: RunData) -> str:
    """What the run achieved, in a sentence or two."""
    exam = data.exam
    if exam is None:
        pairs = sum(entry.pairs or 0 for entry in data.rounds)
        return (
            f"No exam has been scored in this run, so there is no result; it made {pairs:,} pairs."
        )
    what = data.mean_name if len(exam.members) > 1 else f"score of {exam.members[0]}"
    change = exam.change
    if change is None:
        if not exam.panel:
            return "Not every member has been scored in a round yet."
        number, mean = next(iter(exam.panel.items()))
        when = "before training" if number == 0 else f"after round {number}"
        return f"The {what} {when} is {_percent(mean)}%; no other round has been scored yet."
    sentence = f"The {what} {_moved(change)}."
    if data.described and data.described.change:
        sentence += f" With describing first, it {_moved(data.described.change)}."
    return sentence


def _moved(change: Change) -> str:
    verb = "rose" if change.gain > 0 else "fell" if change.gain < 0 else "stayed the same"
    interval = ""
    if change.interval:
        interval = ", 95% interval {} to {}".format(*map(_points, change.interval))
    return (
        f"{verb} from {_percent(change.first)}% in round {change.first_round} to "
        f"{_percent(change.last)}% in round {change.last_round} "
        f"({_points(change.gain)} points{interval})"
    )


def _percent(value: float | None) -> str:
    return figures.NOTHING if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", MINUS)


def _reward(value: float) -> str:
    # Adding 0.0 turns a rounded "-0.00" into "0.00".
    return f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)


def _seconds(value: float | None) -> str:
    if value is None:
        return figures.NOTHING
    if value < 100:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _entries(names: list[str]) -> list[dict[str, Any]]:
    """A legend's entries, in the order in which colours and shapes are given out."""
    return [
        {"name": name, "colour": i % figures.NUM_SERIES, "glyph": figures.marker_glyph(i)}
        for i, name in enumerate(names)
    ]


def _figures(data: RunData) -> dict[str, Any]:
    drawn: dict[str, Any] = {"scores": None, "skills": []}
    if data.exam and data.exam.scores:
        shown = (data.exam, data.described)
        drawn["scores"] = figures.score_chart(*shown, "scores", 880, 380)
        drawn["scores_narrow"] = figures.score_chart(*shown, "scores-narrow", 350, 300)
        drawn["skills"] = _skill_groups(data.exam, "skill")
    if data.benchmarks:
        drawn["benchmarks"] = _skill_groups(data.benchmarks.curves, "benchmark")
    drawn["histograms"] = _histograms(data)
    matrices = [(entry.number, entry.matrix) for entry in data.rounds if entry.matrix]
    means = [m for _, matrix in matrices for row in matrix.means for m in row if m is not None]
    # One scale for all rounds, and wide enough that noise does not look like a difference.
    middle = (min(means) + max(means)) / 2 if means else 0.0
    reach = max(MIN_MATRIX_SPAN, max(means) - min(means)) / 2 if means else 0.0
    scale = (middle - reach, middle + reach)
    drawn["matrices"] = {
        number: figures.judge_matrix(matrix, f"judges-{number}", scale)
        for number, matrix in matrices
    }
    drawn["yields"] = {
        entry.number: figures.yield_map(entry.yields, f"yield-{entry.number}")
        for entry in data.rounds
        if entry.yields
    }
    drawn["overlaps"] = [
        {
            "overlap": overlap,
            "svg": figures.overlap_map(overlap, f"overlap-{i}"),
            "legend": _entries(list(overlap.nearest)),
        }
        for i, overlap in enumerate(data.overlaps)
    ]
    return drawn


def _skill_groups(exam: Exam, what: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """(category, panels) in the exam's order; one y axis, so that skills can be compared."""
    means = [100 * mean for skill in exam.skills for mean in skill.means.values()]
    limits = (max(0.0, min(means) - 5), min(100.0, max(means) + 5)) if means else (0.0, 100.0)
    groups: dict[str, list[dict[str, Any]]] = {}
    for i, skill in enumerate(exam.skills):
        svg = figures.skill_panel(skill, exam, f"{what}-{i}", limits)
        groups.setdefault(skill.category, []).append({"skill": skill, "svg": svg})
    return list(groups.items())


def _histograms(data: RunData) -> list[Markup]:
    shown = [(entry.number, entry.histogram) for entry in data.rounds if entry.histogram]
    if not shown:
        return []
    used = [bin for _, histogram in shown for bin in histogram.answers]
    if data.compared:
        # As far to either side: what one answer wins, another loses.
        reach = max(map(abs, used))
        bins = (-reach, reach)
    else:
        bins = (min(FIRST_BIN, *used), max(LAST_BIN, *used))
    top = max(max(histogram.answers.values()) for _, histogram in shown)
    return [
        figures.reward_histogram(histogram, f"Round {number}", f"rewards-{number}", bins, top)
        for number, histogram in shown
    ]
