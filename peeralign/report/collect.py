"""Read a run's folder into plain data for the report; nothing here draws or formats.

Tables are scanned lazily and only aggregates are collected, so memory does not grow with the
number of questions. An unfinished run is normal: what is absent is None, and `pending` says so.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from peeralign.records import (
    CANDIDATE_SCHEMA,
    COMPARISON_SCHEMA,
    JUDGMENT_SCHEMA,
    OVERLAP_SCHEMA,
    PAIR_SCHEMA,
    QUESTION_SCHEMA,
    REWARD_SCHEMA,
)
from peeralign.report.benchmarks import Benchmarks, read_benchmarks
from peeralign.report.critics import (
    OrderBias,
    Outcome,
    is_chosen_alone,
    is_compared,
    order_biases,
    outcomes,
)
from peeralign.report.pending import Member, find_members, missing_stages, pending_sentences
from peeralign.report.scores import DESCRIBED, Exam, read_exam
from peeralign.report.tables import facts_of, scan
from peeralign.stages.curate import best_and_worst
from peeralign.store.run import Run

BINS_PER_UNIT = 20
# Where both orders have a verdict, rewards from comparisons are whole or half numbers.
COMPARED_BINS_PER_UNIT = 2
MAX_REASONS = 8
CHOSEN_LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MARGIN_LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SCHEMAS = {
    "questions": QUESTION_SCHEMA,
    "candidates": CANDIDATE_SCHEMA,
    "judgments": JUDGMENT_SCHEMA,
    "comparisons": COMPARISON_SCHEMA,
    "rewards": REWARD_SCHEMA,
    "pairs": PAIR_SCHEMA,
}


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows with a result, and those without one by reason (most frequent first)."""

    good: int
    reasons: dict[str, int]

    @property
    def bad(self) -> int:
        return sum(self.reasons.values())


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows per bin of reward; bin b begins at `left(b)` and is 1 / `per_unit` wide.

    With `centred`, a bin is about b / `per_unit`, else it begins there.
    """

    answers: dict[int, int]
    chosen: dict[int, int]
    rejected: dict[int, int]
    per_unit: int = BINS_PER_UNIT
    centred: bool = False

    def left(self, number: int) -> float:
        """Where a bin begins."""
        return (number - 0.5 * self.centred) / self.per_unit


@dataclass(frozen=True, slots=True)
class JudgeMatrix:
    """Mean score of each judge (row) for each author (column); None where nothing was scored."""

    judges: list[str]
    authors: list[str]
    means: list[list[float | None]]


@dataclass(frozen=True, slots=True)
class Yield:
    """Questions that give a pair, for each threshold on the chosen reward and on the margin.

    `counts[m][c]` belongs to `margins[m]` and `chosen[c]`. `own` is the run's own setting.
    """

    chosen: list[float]
    margins: list[float]
    counts: list[list[int]]
    questions: int
    own: tuple[float, float] | None

    @property
    def own_count(self) -> int | None:
        if self.own is None:
            return None
        return self.counts[self.margins.index(self.own[1])][self.chosen.index(self.own[0])]


@dataclass(frozen=True, slots=True)
class ViewCount:
    """What came of one view in one member's pairs (see `stages.contrast`), in answers."""

    member: str
    view: str
    pairs: int
    equal: int
    repeated: int
    unanswered: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """One member's map of images (see `evals.overlap`); `points` has the columns kind, category,
    x and y. `nearest` says how near each category is to the training images."""

    member: str
    points: pl.DataFrame
    training: int
    nearest: dict[str, float]
    among_training: float

    def shown(self, category: str) -> int:
        """How many images of a category the map has."""
        return int((self.points["category"] == category).sum())


@dataclass(frozen=True, slots=True)
class RoundData:
    """One round after round 0. A field is None when its stage has not begun."""

    number: int
    questions: Tally | None
    candidates: Tally | None
    distinct_answers: int | None
    judgments: Tally | None
    comparisons: Tally | None
    pairs: int | None
    histogram: Histogram | None
    matrix: JudgeMatrix | None
    yields: Yield | None
    outcomes: list[Outcome]
    orders: list[OrderBias]
    views: list[ViewCount]


@dataclass(frozen=True, slots=True)
class RunData:
    """Everything the page shows except the gallery."""

    name: str
    manifest: dict[str, Any]
    members: list[Member]
    rounds: list[RoundData]
    rounds_done: list[int]
    pending: list[str]
    seconds: dict[int, dict[str, float]]
    exam: Exam | None
    described: Exam | None
    benchmarks: Benchmarks | None
    overlaps: list[Overlap]
    judged: bool
    compared: bool
    chosen_alone: bool

    @property
    def scored(self) -> bool:
        """Whether judges score answers one by one, or would if they had begun."""
        return self.judged and (not self.compared or any(e.judgments for e in self.rounds))

    @property
    def mean_name(self) -> str:
        """What the mean over members is called: without scores they are no panel."""
        return "panel mean" if self.scored else "mean over members"


def collect(run: Run) -> RunData:
    """Read what `run` holds so far."""
    manifest = run.manifest()
    settings = manifest.get("settings", {})
    path = run.folder / "summary.json"
    entries = json.loads(path.read_text())["rounds"] if path.is_file() else []
    numbers = [number for number in run.rounds() if number > 0]
    # A round is whole if the summary has it, or if a later one has begun.
    whole = {entry["round"] for entry in entries} | set(run.rounds()[:-1])
    members = find_members(run, settings)
    names = [member.name for member in members]
    exams = {
        "exam": read_exam(run, names, whole),
        DESCRIBED: read_exam(run, names, whole, DESCRIBED),
    }
    exam = exams["exam"]
    missing = {n: [] if n in whole else missing_stages(run, n, members, exams) for n in numbers}
    alone = is_chosen_alone(run)
    rounds = [_round(run, number, settings, members, alone) for number in numbers]
    return RunData(
        name=run.folder.resolve().name,
        manifest=manifest,
        members=members,
        rounds=rounds,
        rounds_done=[number for number in numbers if not missing[number]],
        pending=pending_sentences(manifest, missing, exam),
        seconds=_seconds(run, entries),
        exam=exam,
        described=exams[DESCRIBED],
        benchmarks=read_benchmarks(run),
        overlaps=_overlaps(run),
        judged="judge" in settings or any(e.judgments or e.comparisons for e in rounds),
        compared=is_compared(manifest) or any(entry.comparisons for entry in rounds),
        chosen_alone=alone,
    )


def _seconds(run: Run, entries: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Seconds per round and stage: the summary's, or the clock of a round it lacks."""
    seconds: dict[int, dict[str, float]] = {}
    for number in run.rounds():
        clock = run.round_folder(number) / "seconds.json"
        seconds[number] = json.loads(clock.read_text()) if clock.is_file() else {}
    seconds |= {entry["round"]: entry["seconds"] for entry in entries}
    return seconds


def _round(
    run: Run, number: int, settings: dict[str, Any], members: list[Member], alone: bool
) -> RoundData:
    tables = {name: scan(run, number, name) for name in SCHEMAS}
    place = partial(_place, members=members)
    asked: Counter[str] = Counter()
    for facts in facts_of(run, number, "questions").values():
        asked.update(facts.get("reasons", {}))
    questions = _count(tables["questions"])
    candidates, judgments = tables["candidates"], tables["judgments"]
    rewards, pairs, comparisons = tables["rewards"], tables["pairs"], tables["comparisons"]
    distinct = None
    if candidates is not None:
        texts = candidates.filter(pl.col("text").is_not_null())
        distinct = int(
            texts.select(pl.col("answer_id").n_unique()).collect(engine="streaming").item()
        )
    return RoundData(
        number=number,
        questions=None if questions is None else Tally(questions, dict(asked)),
        candidates=_tally(candidates, "text"),
        distinct_answers=distinct,
        judgments=_tally(judgments, "score"),
        comparisons=_tally(comparisons, "preference"),
        pairs=_count(pairs),
        histogram=_histogram(rewards, pairs, comparisons is not None),
        matrix=_matrix(candidates, judgments, members),
        yields=None if alone else _yields(rewards, settings.get("curate") or {}),
        outcomes=outcomes(run, number, place) if alone else [],
        orders=order_biases(comparisons, place),
        views=[
            ViewCount(name, view, **counts)
            for name, facts in facts_of(run, number, "pairs").items()
            for view, counts in facts.get("views", {}).items()
        ],
    )


def _overlaps(run: Run) -> list[Overlap]:
    found = []
    for member, facts in facts_of(run, 1, "overlap").items():
        points = run.stage(1, "overlap", member).read(OVERLAP_SCHEMA)
        if len(points):
            shown = {name: facts[name] for name in ("training", "nearest", "among_training")}
            found.append(Overlap(member, points, **shown))
    return found


def _count(table: pl.LazyFrame | None) -> int | None:
    return None if table is None else int(table.select(pl.len()).collect(engine="streaming").item())


def _tally(table: pl.LazyFrame | None, result: str) -> Tally | None:
    if table is None:
        return None
    reason = pl.when(pl.col(result).is_null()).then(pl.col("reason").fill_null("no reason given"))
    groups = table.group_by(reason.alias("reason")).agg(pl.len().alias("rows"))
    rows = groups.sort("rows", "reason", descending=[True, False]).collect(engine="streaming")
    good = int(rows.filter(pl.col("reason").is_null())["rows"].sum())
    bad = rows.drop_nulls("reason")
    reasons = dict(bad.head(MAX_REASONS).iter_rows())
    # Reasons may quote file names, so their number has no bound.
    if len(bad) > MAX_REASONS:
        rest = bad["rows"][MAX_REASONS:]
        reasons[f"{len(rest)} other reasons"] = int(rest.sum())
    return Tally(good, reasons)


def _bins(table: pl.LazyFrame | None, column: str, per_unit: int, centred: bool) -> dict[int, int]:
    if table is None:
        return {}
    # Rewards are means of steps like 0.04: without the nudge, 0.6 * 20 falls into bin 11.
    place = pl.col(column) * per_unit + 0.5 * centred + 1e-6
    bin_of = place.floor().cast(pl.Int32)
    groups = table.drop_nulls(column).group_by(bin_of.alias("bin")).agg(pl.len().alias("rows"))
    return dict(groups.sort("bin").collect(engine="streaming").iter_rows())


def _histogram(
    rewards: pl.LazyFrame | None, pairs: pl.LazyFrame | None, compared: bool
) -> Histogram | None:
    shape = (COMPARED_BINS_PER_UNIT if compared else BINS_PER_UNIT, compared)
    answers = _bins(rewards, "reward", *shape)
    if not answers:
        return None
    chosen, rejected = (_bins(pairs, f"{side}_reward", *shape) for side in ("chosen", "rejected"))
    return Histogram(answers, chosen, rejected, *shape)


def _place(name: str, members: list[Member]) -> tuple[int, str]:
    """Sorts names as the panel lists them, strangers last."""
    names = [member.name for member in members]
    return (names.index(name) if name in names else len(names)), name


def _matrix(
    candidates: pl.LazyFrame | None, judgments: pl.LazyFrame | None, members: list[Member]
) -> JudgeMatrix | None:
    if candidates is None or judgments is None:
        return None
    authors = candidates.select("answer_id", "author")
    joined = (
        judgments.select("answer_id", "judge", "score").drop_nulls().join(authors, on="answer_id")
    )
    groups = joined.group_by("judge", "author").agg(pl.col("score").mean())
    means = {
        (judge, author): mean
        for judge, author, mean in groups.collect(engine="streaming").iter_rows()
    }
    if not means:
        return None
    judges = sorted({judge for judge, _ in means}, key=lambda name: _place(name, members))
    names = sorted({author for _, author in means}, key=lambda name: _place(name, members))
    return JudgeMatrix(judges, names, [[means.get((j, a)) for a in names] for j in judges])


def _yields(rewards: pl.LazyFrame | None, curate: dict[str, Any]) -> Yield | None:
    if rewards is None:
        return None
    own = None
    if {"min_chosen_reward", "min_margin"} <= curate.keys():
        own = (float(curate["min_chosen_reward"]), float(curate["min_margin"]))
    chosen = sorted({*CHOSEN_LEVELS, *(own[:1] if own else ())})
    margins = sorted({*MARGIN_LEVELS, *(own[1:] if own else ())})
    picked = best_and_worst(rewards, float(curate.get("tie_tolerance", 0.0)))
    per_question = picked.select(
        pl.col("chosen_reward").alias("best"),
        (pl.col("chosen_reward") - pl.col("rejected_reward")).alias("margin"),
    )
    # As in curate: thresholds are met but for the last bits, and a tie is no pair.
    meets = [
        (pl.col("best") >= c - 1e-9) & (pl.col("margin") >= m - 1e-9) & (pl.col("margin") > 0)
        for m in margins
        for c in chosen
    ]
    sums = [condition.sum().alias(str(i)) for i, condition in enumerate(meets)]
    row = per_question.select(pl.len().alias("questions"), *sums).collect(engine="streaming").row(0)
    counts = [list(row[1 + i * len(chosen) :][: len(chosen)]) for i in range(len(margins))]
    return Yield(chosen, margins, counts, row[0], own) if row[0] else None
