"""What critics that compare answers did: how the order sways them, what came of it, what they said.

In a run of critic-guided DPO every learner is chosen from, and learns from, its own answers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from peeralign.report.tables import facts_of, is_owned, scan
from peeralign.stages.compare import order_gap
from peeralign.store.run import Run

# What sorts names as the panel lists them.
Place = Callable[[str], tuple[int, str]]


@dataclass(frozen=True, slots=True)
class OrderBias:
    """How much the order matters to one critic in one round.

    `changed` and `shown_first` are those of `order_gap`, over the `both` pairs that have a verdict
    in both orders. `ties` is a share of verdicts, `unscored` one of all comparisons.
    """

    critic: str
    pairs: int
    both: int
    changed: float | None
    shown_first: float | None
    ties: float | None
    unscored: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one learner's answers in one round; None where that is not done.

    `verdicts` are critics' comparisons (or scores) that count for its rewards, `unscored` those of
    them that could not be read. `equal` and `without` are questions that gave no pair.
    """

    member: str
    questions: int | None
    answers: int
    verdicts: int | None
    unscored: int | None
    pairs: int | None
    equal: int | None
    without: int | None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one critic said of a pair's two answers in one order.

    `first` is "chosen" or "rejected", whichever was shown first; `better` one of these, "tie", or
    None with a `reason`.
    """

    critic: str
    first: str
    better: str | None
    explanation: str | None
    reason: str | None


def is_compared(manifest: dict[str, Any]) -> bool:
    """Whether the settings ask for rewards from comparisons."""
    rewards = manifest.get("settings", {}).get("rewards", "pairwise")
    return manifest["recipe"] == "llava_critic" and rewards == "pairwise"


def is_chosen_alone(run: Run) -> bool:
    """Whether rewards are a learner's own, so that no threshold decides what is a pair."""
    owned = any(is_owned(run, number, "rewards") for number in run.rounds())
    return run.manifest()["recipe"] == "llava_critic" or owned


def order_biases(comparisons: pl.LazyFrame | None, place: Place) -> list[OrderBias]:
    """One entry a critic that compared anything, sorted by `place`."""
    if comparisons is None:
        return []
    rows = comparisons.select("judge", "pair_id", "order", "verdict").collect(engine="streaming")
    verdict = pl.col("verdict")
    shares = rows.group_by("judge").agg(
        pl.col("pair_id").n_unique().alias("pairs"),
        (verdict.drop_nulls() == "tie").mean().alias("ties"),
        verdict.is_null().mean().alias("unscored"),
    )
    found = order_gap(rows).join(shares, on="judge").iter_rows(named=True)
    biases = [
        OrderBias(
            critic=row["judge"],
            pairs=row["pairs"],
            both=row["num_pairs"],
            **{name: row[name] for name in ("changed", "shown_first", "ties", "unscored")},
        )
        for row in found
    ]
    return sorted(biases, key=lambda bias: place(bias.critic))


def who_counts(run: Run) -> Callable[[str, str], bool]:
    """Tells of (judge, learner) whether the judge counts for a learner that is chosen from alone.

    As `judge.judges` says.
    """
    who = (run.manifest().get("settings", {}).get("judge") or {}).get("judges", "all")
    return lambda judge, learner: who == "all" or (judge == learner) == (who == "self")


def outcomes(run: Run, number: int, place: Place) -> list[Outcome]:
    """One entry a learner that has answered, sorted by `place`."""
    candidates = scan(run, number, "candidates")
    if candidates is None:
        return []
    has_text = pl.col("text").is_not_null()
    counted = candidates.group_by("author").agg(pl.col("answer_id").filter(has_text).n_unique())
    answers = dict(counted.collect(engine="streaming").iter_rows())
    distinct = candidates.filter(has_text).select("author", "answer_id").unique()
    questions = scan(run, number, "questions")
    asked = None if questions is None else questions.select(pl.len()).collect().item()
    verdicts = _verdicts(run, number, distinct)
    facts = facts_of(run, number, "pairs")
    found = []
    for member in sorted(answers, key=place):
        total, unscored = (None, None) if verdicts is None else verdicts.get(member, (0, 0))
        kept = facts.get(member, {})
        made = [kept.get(name) for name in ("rows", "equal", "unscored")]
        found.append(Outcome(member, asked, answers[member], total, unscored, *made))
    return found


def with_author(comparisons: pl.LazyFrame, wrote: pl.LazyFrame) -> pl.LazyFrame:
    """Comparisons between two answers of one author: one row for each that wrote both.

    `wrote` has (author, answer_id) once each.
    """
    named = comparisons.join(wrote, left_on="first_id", right_on="answer_id")
    second = wrote.rename({"answer_id": "second_id"})
    return named.join(second, on=["second_id", "author"], how="semi")


def _verdicts(run: Run, number: int, distinct: pl.LazyFrame) -> dict[str, tuple[int, int]] | None:
    """{learner: (verdicts on its answers, how many of them have no result)}."""
    comparisons, judgments = scan(run, number, "comparisons"), scan(run, number, "judgments")
    if comparisons is not None:
        result = "preference"
        told = with_author(comparisons, distinct)
    elif judgments is not None:
        result = "score"
        told = judgments.select("judge", "answer_id", result).join(distinct, on="answer_id")
    else:
        return None
    groups = told.group_by("author", "judge").agg(pl.len(), pl.col(result).null_count().alias("no"))
    counts, sums = who_counts(run), dict[str, tuple[int, int]]()
    for author, judge, total, unscored in groups.collect(engine="streaming").iter_rows():
        if counts(judge, author):
            before = sums.get(author, (0, 0))
            sums[author] = (before[0] + total, before[1] + unscored)
    return sums


def opinions(run: Run, number: int, pairs: pl.DataFrame) -> dict[tuple[str, str], list[Opinion]]:
    """{(pair's id, owner or ""): what critics said of its two answers}, by critic and order."""
    comparisons = scan(run, number, "comparisons")
    if comparisons is None:
        return {}
    ids = pl.concat([pairs["chosen_answer_id"], pairs["rejected_answer_id"]]).unique().implode()
    rows = (
        comparisons.filter(pl.col("first_id").is_in(ids) & pl.col("second_id").is_in(ids))
        .select("first_id", "second_id", "order", "judge", "verdict", "explanation", "reason")
        .collect(engine="streaming")
    )
    sides = pairs.select(
        pair=pl.col("id"),
        owner=pl.col("owner").fill_null(""),
        chosen=pl.col("chosen_answer_id"),
        rejected=pl.col("rejected_answer_id"),
    )
    counts = who_counts(run)
    told: dict[tuple[str, str], list[Opinion]] = {}
    # A pair's answers may have been compared with either of them as the first.
    for names in (("chosen", "rejected"), ("rejected", "chosen")):
        met = rows.join(sides, left_on=["first_id", "second_id"], right_on=list(names))
        for row in met.sort("judge", "order").iter_rows(named=True):
            if not row["owner"] or counts(row["judge"], row["owner"]):
                told.setdefault((row["pair"], row["owner"]), []).append(_opinion(row, names))
    return told


def _opinion(row: dict[str, Any], names: tuple[str, str]) -> Opinion:
    words = {"first": names[0], "second": names[1], "tie": "tie"}
    return Opinion(
        critic=row["judge"],
        first=names[row["order"]],
        better=words.get(row["verdict"]),
        explanation=row["explanation"],
        reason=row["reason"],
    )
