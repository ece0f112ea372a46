"""Elo ratings: the model's own equations, mirrors, and where there are none."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from peeralign.evals.elo import PRIOR_SD, SCALE, Ratings, elo, tau_of_ratings
from peeralign.store.verdicts import PAIRS_SCHEMA

SWAP = {"A": "B", "B": "A"}


def battles(*rows: tuple[str, str | None], times: int = 1) -> pl.DataFrame:
    """Each (two models' letters, verdict) so many times, every one of its own item."""
    filled = [
        {"set": "s", "item": str(number), "model_a": models[0], "model_b": models[1]}
        | {"verdict": verdict, "reference": "tie"}
        for number, (models, verdict) in enumerate(rows * times)
    ]
    return pl.DataFrame(filled, schema=PAIRS_SCHEMA)


def drawn(seed: int, num: int = 300, models: str = "abcd") -> pl.DataFrame:
    """Battles of models whose strengths rise by 150 points, with a tie in six."""
    generator = np.random.default_rng(seed)
    rows: list[tuple[str, str | None]] = []
    for _ in range(num):
        first, second = generator.choice(len(models), 2, replace=False)
        wins = 1 / (1 + 10 ** (150 * (second - first) / 400))
        verdict = "A" if generator.random() < wins else "B"
        tie = generator.random() < 1 / 6
        rows.append((models[first] + models[second], "tie" if tie else verdict))
    return battles(*rows)


def points(ratings: Ratings) -> dict[str, float]:
    return {name: rating.rating for name, rating in ratings.models.items()}


def test_two_models_have_the_odds_of_their_games() -> None:
    found = points(elo(battles(("ab", "A"), ("ab", "A"), ("ba", "A"), ("ab", "A"), times=200)))
    # Three wins of four; the prior's share of 800 games is small.
    assert found["a"] - found["b"] == pytest.approx(400 * math.log10(3), abs=0.5)
    assert found["a"] + found["b"] == pytest.approx(2000)


def test_a_tie_is_half_a_win_for_each() -> None:
    ties = points(elo(battles(("ab", "tie"), ("ab", "A"), times=100)))
    wins = points(elo(battles(("ab", "A"), ("ab", "B"), ("ab", "A"), ("ab", "A"), times=50)))
    assert ties == pytest.approx(wins)
    assert points(elo(battles(("ab", "tie"), times=5))) == pytest.approx({"a": 1000, "b": 1000})


def test_ratings_solve_the_equation_of_the_most_probable() -> None:
    table = drawn(0)
    theta = {name: (rating - 1000) / SCALE for name, rating in points(elo(table)).items()}
    for name, strength in theta.items():
        surplus = 0.0
        for row in table.iter_rows(named=True):
            for mine, other, verdict in (("a", "b", "A"), ("b", "a", "B")):
                if row[f"model_{mine}"] == name:
                    expected = 1 / (1 + math.exp(theta[row[f"model_{other}"]] - strength))
                    won = 0.5 if row["verdict"] == "tie" else float(row["verdict"] == verdict)
                    surplus += won - expected
        assert surplus == pytest.approx(strength * (SCALE / PRIOR_SD) ** 2, abs=1e-8)


def test_known_strengths_are_found_and_lie_in_their_intervals() -> None:
    ratings = elo(drawn(1, 3000))
    ordered = [ratings.models[name] for name in "abcd"]
    for lower, higher in pairwise(ordered):
        # Ties, drawn whoever is stronger, pull the ratings together.
        assert 80 < higher.rating - lower.rating < 150
    for rating in ordered:
        assert rating.low is not None
        assert rating.high is not None
        assert rating.low < rating.rating < rating.high
        assert rating.high - rating.low < 80
    assert np.mean([rating.rating for rating in ordered]) == pytest.approx(1000)


def test_swapping_sides_changes_nothing_and_reversing_verdicts_mirrors() -> None:
    table = drawn(2)
    ratings = elo(table, resamples=50)
    verdict = pl.col("verdict").replace(SWAP)
    sides = {"model_a": pl.col("model_b"), "model_b": pl.col("model_a")}
    swapped = elo(table.with_columns(verdict=verdict, **sides), resamples=50)
    assert points(swapped) == pytest.approx(points(ratings), abs=1e-6)
    reversed_ = elo(table.with_columns(verdict=verdict), resamples=50)
    for name, rating in ratings.models.items():
        mirror = reversed_.models[name]
        assert mirror.rating == pytest.approx(2000 - rating.rating, abs=1e-6)
        assert mirror.low == pytest.approx(2000 - rating.high, abs=1e-6)  # type: ignore[operator]
    assert tau_of_ratings(ratings, ratings).value == pytest.approx(1.0)
    assert tau_of_ratings(ratings, reversed_).value == pytest.approx(-1.0)


def test_the_order_of_rows_and_the_names_do_not_matter() -> None:
    table = drawn(3)
    ratings = elo(table, resamples=20)
    shuffled = elo(table.sample(fraction=1.0, shuffle=True, seed=0), resamples=20)
    assert points(shuffled) == pytest.approx(points(ratings), abs=1e-6)
    # Items are drawn by their names, so the intervals are the same too.
    assert shuffled.models["a"].low == pytest.approx(ratings.models["a"].low, abs=1e-6)
    names = {"a": "z", "d": "b", "b": "y"}
    sides = {side: pl.col(side).replace(names) for side in ("model_a", "model_b")}
    renamed = points(elo(table.with_columns(**sides), resamples=0))
    assert {names.get(n, n): r for n, r in points(ratings).items()} == pytest.approx(renamed)


def test_a_model_that_never_loses_stays_finite() -> None:
    few = points(elo(battles(("ab", "A"), ("ba", "B"))))
    many = points(elo(battles(("ab", "A"), times=1000)))
    assert 1000 < few["a"] < many["a"] < 3000


def test_intervals_come_from_items_and_from_the_seed() -> None:
    table = drawn(4)
    again = [elo(table, seed=seed) for seed in (0, 0, 1)]
    assert again[0] == again[1]
    assert again[0].models["a"].low != again[2].models["a"].low
    # Each item four times over says no more about the models, if it is drawn as one.
    same = pl.concat([table] * 4)
    apart = pl.concat([table.with_columns(item=pl.col("item") + f"/{n}") for n in range(4)])

    def width(table: pl.DataFrame) -> float:
        rating = elo(table).models["a"]
        return rating.high - rating.low  # type: ignore[operator]

    assert width(same) == pytest.approx(width(table), rel=0.2)
    assert width(apart) < 0.7 * width(table)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (battles(("ab", None), ("ab", None)), "no scored pair of two models"),
        (battles(("aa", "A"), ("aa", "B")), "no scored pair of two models"),
        (battles(("ab", "A")), "fewer than two items"),
        (battles(("ab", "A"), ("cd", "B")), "2 groups that never met: a's and c's"),
        (battles(("ab", "A"), ("bc", None), ("cd", "B")), "2 groups that never met"),
        (battles(), "no scored pair of two models"),
    ],
)
def test_no_ratings(table: pl.DataFrame, reason: str) -> None:
    ratings = elo(table)
    assert ratings.models == {}
    assert reason in (ratings.reason or "")
    undefined = tau_of_ratings(ratings, elo(battles(("ab", "A"), ("ab", "B"))))
    assert undefined.value is None
    assert undefined.reason == ratings.reason


def test_no_intervals_where_resamples_fall_apart() -> None:
    ring = battles(*((f"{a}{b}", "A") for a, b in pairwise("abcdefgh")))
    ratings = elo(ring)
    assert ratings.models["a"].rating > ratings.models["h"].rating
    assert ratings.models["a"].low is None
    assert "never met" in (ratings.interval_reason or "")


def test_the_reference_is_rated_on_the_scored_pairs_alone() -> None:
    table = battles(("ab", "A"), ("ab", "B"), ("ab", None)).with_columns(
        reference=pl.Series(["A", "A", "B"])
    )
    scored = table.filter(pl.col("verdict").is_not_null())
    assert elo(table, "reference") == elo(scored, "reference")


def test_tau_of_equal_ratings_is_undefined() -> None:
    equal = elo(battles(("ab", "tie"), ("ab", "tie")))
    other = elo(battles(("ab", "A"), ("ab", "A")))
    found = tau_of_ratings(equal, other)
    assert found.value is None
    assert found.reason == "the ratings are all equal"
