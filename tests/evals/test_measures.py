"""Figures as functions of weights, clusters, and intervals over them."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import pytest

from peeralign.evals.measures import (
    all_right,
    average,
    by_value,
    clusters,
    count,
    harmonic,
    interval,
    mean,
    or_zero,
    ratio,
    total,
)

ONCE = np.ones(4)


def test_means_and_ratios() -> None:
    assert mean([1, 0, 1, 1])(ONCE) == 0.75
    assert mean([1, 0, 1, 1], scale=100)(ONCE) == 75
    assert mean([1, 0, 1, 1], [1, 1, 0, 0])(ONCE) == 0.5
    assert ratio([1, 2, 0, 0], [2, 2, 1, 1])(ONCE) == 0.5
    assert math.isnan(mean([1, 0, 1, 1], [0, 0, 0, 0])(ONCE))


def test_weights_count_rows_as_often_as_they_say() -> None:
    weights = np.array([0.0, 3.0, 1.0, 0.0])
    assert mean([1, 0, 1, 1])(weights) == 0.25
    assert count([1, 0, 1, 1])(weights) == 1.0
    assert count([1, 0, 1, 1])(ONCE) == 3


def test_averages_leave_out_what_is_undefined_and_sums_do_not() -> None:
    defined, undefined = mean([1, 0, 0, 0]), mean([1, 1, 1, 1], [0, 0, 0, 0])
    assert average([defined, undefined, mean([1, 1, 1, 0])])(ONCE) == 0.5
    assert math.isnan(average([undefined])(ONCE))
    assert math.isnan(total([defined, undefined])(ONCE))
    assert math.isnan(total([])(ONCE))
    assert total([defined, defined])(ONCE) == 0.5
    assert or_zero(undefined)(ONCE) == 0
    assert or_zero(defined)(ONCE) == 0.25


def test_harmonic_mean() -> None:
    half, all_of_them = mean([1, 1, 0, 0]), mean([1, 1, 1, 1])
    none, undefined = mean([0, 0, 0, 0]), mean([1, 1, 1, 1], [0, 0, 0, 0])
    assert harmonic(half, all_of_them)(ONCE) == pytest.approx(2 / 3)
    assert harmonic(undefined, none)(ONCE) == 0
    assert math.isnan(harmonic(undefined, half)(ONCE))


def test_by_value() -> None:
    found = by_value([1, 0, 1, 1], ["a", "a", "b", None])
    assert {name: measure(ONCE) for name, measure in found.items()} == {"a": 0.5, "b": 1}


def test_all_right() -> None:
    values, where = all_right([1, 1, 1, 0], ["a", "b", "a", "b"])
    assert (values.tolist(), where.tolist()) == ([1, 0, 0, 0], [1, 1, 0, 0])
    # Nearly right is not right.
    values, _ = all_right([1, 0.5], ["a", "a"])
    assert values.tolist() == [0, 0]


def test_clusters_join_what_shares_a_label() -> None:
    labels: list[list[Hashable]] = [["a", 1], ["b", 2], ["c", 1], ["d", 3], ["a", 2]]
    assert clusters(labels).tolist() == [0, 0, 0, 1, 0]
    assert clusters([["a"], ["b"], ["a"]]).tolist() == [0, 1, 0]


def test_an_interval_is_about_as_wide_as_the_normal_one() -> None:
    values = np.array([1.0, 0.0] * 200)
    found = interval(mean(values), np.arange(400))
    assert not isinstance(found, str)
    assert found[0] == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01)
    assert found[1] == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.01)


def test_clusters_widen_it() -> None:
    values = np.repeat([1.0, 0.0] * 25, 8)
    alone = interval(mean(values), np.arange(400))
    together = interval(mean(values), np.repeat(np.arange(50), 8))
    assert not isinstance(alone, str)
    assert not isinstance(together, str)
    widths = [high - low for low, high in (alone, together)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(8), rel=0.1)


def test_the_seed_decides() -> None:
    values, each = np.sqrt(np.arange(50)), np.arange(50)
    assert interval(mean(values), each) == interval(mean(values), each, seed=0)
    assert interval(mean(values), each) != interval(mean(values), each, seed=1)


def test_without_an_interval_there_is_a_reason() -> None:
    assert interval(mean([1, 0]), np.array([0, 0])) == "all rows are one cluster"
    # One row of twenty is drawn in 64 % of the resamples.
    rare = mean(np.ones(20), [1] + [0] * 19)
    found = interval(rare, np.arange(20))
    assert found == (1.0, 1.0)
    never = mean(np.ones(20), np.zeros(20))
    assert interval(never, np.arange(20)) == ("it is undefined on most resamples of the clusters")
