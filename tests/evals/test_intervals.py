"""Intervals: against resampling row by row, how often they hold the truth, and their ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from evals.test_agreement import pairs

from peeralign.evals import agreement, intervals
from peeralign.evals.agreement import Measure, over_sets
from peeralign.evals.elo import RESAMPLES
from peeralign.evals.intervals import (
    Interval,
    pair_intervals,
    ranking_intervals,
    score_intervals,
)
from peeralign.store.verdicts import RANKINGS_SCHEMA, SCORES_SCHEMA


def scores(num_items: int, seed: int = 0, num_models: int = 4, num_sets: int = 2) -> pl.DataFrame:
    """Answers of several models to every item; some are unscored, and scores have ties."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for item in range(num_items):
        ease = generator.normal()
        for model in range(num_models):
            reference = round(3 + ease + 0.4 * model + generator.normal())
            score = round(reference + generator.normal(0, 2))
            rows.append(
                {
                    "set": f"set {item % num_sets}",
                    # Items of two sets may have one name.
                    "item": str(item // num_sets),
                    "model": f"m{model}",
                    "score": None if generator.random() < 0.1 else score,
                    "reference": reference,
                }
            )
    return pl.DataFrame(rows, schema=SCORES_SCHEMA)


def row_by_row(table: pl.DataFrame, judged: str, measure: Measure, seed: int) -> Interval:
    """The slow way: every resample as a table of its own."""
    scored = table.drop_nulls(judged)
    numbered = scored.with_columns(number=pl.struct("set", "item").rank("dense") - 1)
    num_items = numbered["number"].n_unique()
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        times = generator.multinomial(num_items, np.full(num_items, 1 / num_items))
        repeated = numbered.with_columns(
            times=pl.Series(times[numbered["number"].to_numpy().astype(int)])
        )
        drawn = repeated.select(pl.exclude("times").repeat_by("times")).explode(pl.all())
        value = measure(drawn.filter(pl.col("set").is_not_null())).value
        if value is not None:
            values.append(value)
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))


def close(found: Interval, expected: Interval) -> None:
    assert found.reason is None
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


@pytest.mark.parametrize(("num_items", "num_models"), [(12, 4), (5, 3)])
def test_scores_are_resampled_as_row_by_row(num_items: int, num_models: int) -> None:
    table = scores(num_items, seed=num_items, num_models=num_models)
    found = score_intervals(table, seed=3)
    for name, measure in (
        ("pearson", agreement.pearson),
        ("kendall_tau", agreement.kendall_of_means),
    ):
        close(found[name], row_by_row(table, "score", lambda t, m=measure: over_sets(t, m)[0], 3))


def test_pairs_are_resampled_as_row_by_row() -> None:
    generator = np.random.default_rng(5)
    drawn = generator.choice(["A", "B", "tie"], (40, 2)).tolist()
    table = pairs(*(("ab", *row) for row in drawn)).with_columns(
        item=pl.int_range(0, 40).floordiv(4).cast(pl.String)
    )
    found = pair_intervals(table, seed=1)
    for name in ("accuracy_with_ties", "accuracy_without_ties"):
        close(found[name], row_by_row(table, "verdict", getattr(agreement, name), 1))


def test_rankings_are_resampled_as_row_by_row() -> None:
    given = [list("ABC"), list("CAB"), list("BAC"), None, list("AB")]
    rows = [
        {"set": "all", "item": str(n), "ranking": ranking, "reference": list("ABC")}
        for n, ranking in enumerate(given)
    ]
    table = pl.DataFrame(rows, schema=RANKINGS_SCHEMA)
    found = ranking_intervals(table, seed=2)["ranking_distance"]
    close(found, row_by_row(table, "ranking", agreement.ranking_distance, 2))


def test_rows_of_one_item_stay_together() -> None:
    # 400 verdicts, of which each item's are all right or all wrong: as sure as 4 are.
    verdicts = [("ab", "A" if n % 4 < 2 else "B", "A") for n in range(400)]
    apart = pairs(*verdicts)
    together = apart.with_columns(item=(pl.int_range(0, 400) % 4).cast(pl.String))
    narrow, wide = (pair_intervals(table)["accuracy_with_ties"] for table in (apart, together))
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert narrow.low is not None
    assert narrow.high is not None
    assert narrow.high - narrow.low < 0.12


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(11)
    held = 0
    for seed in range(200):
        right = generator.random(60) < 0.7
        table = pairs(*(("ab", "A" if hit else "B", "A") for hit in right))
        found = pair_intervals(table, seed)["accuracy_with_ties"]
        held += found.low <= 0.7 <= found.high  # type: ignore[operator]
    # 95 % of 200, give or take two deviations and what percentiles lack at 60 items.
    assert 180 <= held <= 197


@pytest.mark.parametrize(
    ("measure", "table"),
    [
        (score_intervals, scores(1)),
        (score_intervals, scores(4).with_columns(score=pl.lit(None, pl.Float64))),
        (pair_intervals, pairs(("ab", "A", "A"), ("ab", None, "A"))),
        (ranking_intervals, pl.DataFrame(schema=RANKINGS_SCHEMA)),
    ],
)
def test_too_few_items(measure: Callable[..., dict[str, Interval]], table: pl.DataFrame) -> None:
    for interval in measure(table).values():
        assert interval == Interval(None, None, "fewer than two scored items")


def test_what_most_resamples_leave_undefined() -> None:
    table = scores(6).with_columns(score=pl.lit(3.0))
    for interval in score_intervals(table).values():
        assert interval == Interval(None, None, "it is undefined in most resamples of the items")
    tied = pairs(("ab", "A", "tie"), ("ab", "A", "tie"))
    assert pair_intervals(tied)["accuracy_with_ties"] == Interval(0.0, 0.0)
    assert pair_intervals(tied)["accuracy_without_ties"].reason


def test_scale_and_shift_of_the_scores_do_not_matter() -> None:
    table = scores(20)
    for scale, shift in ((1e300, 0.0), (1e-300, 0.0), (0.01, 1000.0)):
        other = score_intervals(table.with_columns(score=pl.col("score") * scale + shift))
        for name, interval in score_intervals(table).items():
            assert other[name].low == pytest.approx(interval.low, abs=1e-6)
            assert other[name].high == pytest.approx(interval.high, abs=1e-6)


def test_many_models_are_compared_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    table = scores(9, seed=4)
    found = score_intervals(table)["kendall_tau"]
    monkeypatch.setattr(intervals, "_MANY_MODELS", 1)
    close(score_intervals(table)["kendall_tau"], found)


@pytest.mark.parametrize("num_models", [4, 2000])
def test_ten_thousand_rows_take_seconds(num_models: int) -> None:
    table = scores(10_000 // num_models, num_models=num_models, num_sets=5)
    started = time.monotonic()
    found = score_intervals(table)
    assert time.monotonic() - started < 20
    assert found["pearson"].low is not None
