"""Exam scores of a run: means, 95% intervals, skills, and the change of the panel mean.

A member's mean is the mean over skills, as in summary.json. Where it is a plain share of right
answers (scores of 0 and 1, as many items in every skill) its interval is Wilson's. Otherwise it is
a bootstrap that draws whole items within each skill, so several rows of one item count as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binomtest

from peeralign.records import seed_of
from peeralign.store.run import Run

BOOTSTRAP_DRAWS = 1000
# The exam taken by members that describe each image first, beside the direct "exam".
DESCRIBED = "exam-described"
Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Score:
    """A member's mean over skills in one round, with its 95% interval."""

    mean: float
    low: float
    high: float
    items: int


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill: its mean for each (round, member), and the number of items behind a mean."""

    name: str
    category: str
    means: dict[Key, float]
    items: int


@dataclass(frozen=True, slots=True)
class Change:
    """The panel mean of the first and the last scored round, and the interval of the change.

    The interval is None unless all members answered the same items in both rounds.
    """

    first_round: int
    last_round: int
    first: float
    last: float
    interval: tuple[float, float] | None

    @property
    def gain(self) -> float:
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Exam:
    """All finished exams of a run. `panel` has a round once every member has a score in it."""

    rounds: list[int]
    members: list[str]
    scores: dict[Key, Score]
    panel: dict[int, float]
    skills: list[Skill]
    interval_name: str
    change: Change | None


def read_exam(
    run: Run, members: list[str], finished_rounds: set[int], stage: str = "exam"
) -> Exam | None:
    """Score every finished exam of `run`, or return None if there is none.

    `finished_rounds` are rounds known to be whole; in the others an exam may be half written.
    """
    table = _exam_rows(run, members, finished_rounds, stage)
    if table is None:
        return None
    skills = _skills(table)
    means: dict[Key, list[float]] = {}
    for skill in skills:
        for key, mean in skill.means.items():
            means.setdefault(key, []).append(mean)
    facts = _facts(table)
    wilson = all(fact["plain"] for fact in facts.values())
    scores = {}
    for key in sorted(means):
        fact = facts[key]
        if wilson:
            low, high = _wilson(int(fact["total"]), fact["items"])
        else:
            low, high = _bootstrap(_by_item(table, key), seed_of("report", *key))
        scores[key] = Score(sum(means[key]) / len(means[key]), low, high, fact["items"])
    rounds = sorted({number for number, _ in scores})
    panel = {}
    for number in rounds:
        if all((number, member) in scores for member in members):
            panel[number] = sum(scores[number, m].mean for m in members) / len(members)
    name = "Wilson" if wilson else "bootstrap over items"
    return Exam(rounds, members, scores, panel, skills, name, _change(table, panel, members))


def _exam_rows(
    run: Run, members: list[str], finished_rounds: set[int], stage: str
) -> pl.LazyFrame | None:
    """Rows of all finished exams: (item_id, skill, category, score, round, member)."""
    frames: dict[Key, pl.LazyFrame] = {}
    rows: dict[Key, int] = {}
    for number in run.rounds():
        for member in members:
            paths = sorted(run.stage(number, stage, member).folder.glob("part-*.parquet"))
            if paths:
                frame = pl.scan_parquet(paths, hive_partitioning=False)
                rows[number, member] = int(frame.select(pl.len()).collect().item())
                frames[number, member] = frame.select(
                    "item_id",
                    "skill",
                    "category",
                    "score",
                    round=pl.lit(number),
                    member=pl.lit(member),
                )
    # All exams of a run ask the same items, so one as long as the longest of several is whole.
    longest = max(rows.values(), default=0)
    several = list(rows.values()).count(longest) > 1
    whole = [
        frames[number, member]
        for number, member in frames
        if number in finished_rounds
        or run.stage(number, stage, member).is_done
        or (several and rows[number, member] == longest)
    ]
    return pl.concat(whole) if whole else None


def _skills(table: pl.LazyFrame) -> list[Skill]:
    groups = table.group_by("category", "skill", "round", "member", maintain_order=True).agg(
        pl.col("score").mean().alias("mean"), pl.col("score").count().alias("items")
    )
    rows = groups.filter(pl.col("items") > 0).collect()
    skills = []
    # Categories and skills keep the exam's own order, which its author chose.
    for category in rows["category"].unique(maintain_order=True):
        of_category = rows.filter(pl.col("category").eq_missing(category))
        for name in of_category["skill"].unique(maintain_order=True):
            part = of_category.filter(pl.col("skill").eq_missing(name))
            means = {
                (row["round"], row["member"]): row["mean"] for row in part.iter_rows(named=True)
            }
            skills.append(Skill(name or "", category or "", means, max(part["items"].to_list())))
    return skills


def _facts(table: pl.LazyFrame) -> dict[Key, dict[str, Any]]:
    """Per exam: items, total score, and whether its mean is a plain share of right answers."""
    score = pl.col("score")
    per_skill = table.group_by("round", "member", "category", "skill").agg(
        score.count().alias("items"),
        score.sum().alias("total"),
        score.drop_nulls().is_in([0.0, 1.0]).all().alias("binary"),
        (pl.col("item_id").n_unique() == pl.len()).alias("apart"),
    )
    facts = per_skill.group_by("round", "member").agg(
        pl.col("items", "total").sum(),
        (
            pl.col("binary").all()
            & pl.col("apart").all()
            & (pl.col("items").min() == pl.col("items").max())
        ).alias("plain"),
    )
    rows = facts.collect(engine="streaming").iter_rows(named=True)
    return {(row["round"], row["member"]): row for row in rows}


def _wilson(right: int, items: int) -> tuple[float, float]:
    interval = binomtest(right, items).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _by_item(table: pl.LazyFrame, key: Key) -> pl.DataFrame:
    rows = table.filter((pl.col("round") == key[0]) & (pl.col("member") == key[1]))
    sums = rows.group_by("category", "skill", "item_id").agg(
        pl.col("score").sum().alias("total"), pl.col("score").count().alias("count")
    )
    return sums.filter(pl.col("count") > 0).collect(engine="streaming")


def _bootstrap(items: pl.DataFrame, seed: int) -> tuple[float, float]:
    """95% percentile interval of the mean over skills, drawing whole items within each skill."""
    rng = np.random.default_rng(seed)
    ordered = items.sort("category", "skill", "item_id")
    skills = ordered.partition_by("category", "skill", maintain_order=True)
    means = np.zeros(BOOTSTRAP_DRAWS)
    for skill in skills:
        total, count = skill["total"].to_numpy(), skill["count"].to_numpy()
        for draw in range(BOOTSTRAP_DRAWS):
            picked = rng.integers(len(total), size=len(total))
            means[draw] += total[picked].sum() / count[picked].sum() / len(skills)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _change(table: pl.LazyFrame, panel: dict[int, float], members: list[str]) -> Change | None:
    if len(panel) < 2:
        return None
    first, last = min(panel), max(panel)
    at_last = pl.col("round") == last
    per_item = (
        table.filter(pl.col("round").is_in([first, last]))
        .group_by("category", "skill", "item_id")
        .agg(
            (
                pl.col("score").filter(at_last).mean() - pl.col("score").filter(~at_last).mean()
            ).alias("total"),
            pl.lit(1).alias("count"),
            pl.col("score").count().alias("answers"),
        )
        # An item whose image cannot be opened has a score of nobody.
        .filter(pl.col("answers") > 0)
        .collect(engine="streaming")
    )
    interval = None
    if (per_item["answers"] == 2 * len(members)).all():
        interval = _bootstrap(per_item, seed_of("report", "change", first, last))
    return Change(first, last, panel[first], panel[last], interval)
