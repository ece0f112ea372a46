"""Differences whose truth is known, and tests worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peeralign.evals.measures import mean, ratio
from peeralign.evals.paired import Difference, differences, holm, mcnemar


def of_means(
    a_N: np.ndarray, b_N: np.ndarray, cluster_N: np.ndarray | None = None, **how: int
) -> Difference:
    clusters = np.arange(len(a_N)) if cluster_N is None else cluster_N
    return differences({"mean": (mean(a_N), mean(b_N))}, clusters, **how)["mean"]


def drawn(generator: np.random.Generator, num_items: int, gain: float) -> list[np.ndarray]:
    """Right and wrong of two, on items that are hard or easy for both."""
    ease_N = generator.uniform(0.1, 0.7, num_items)
    return [
        (generator.uniform(size=num_items) < ease_N + extra).astype(float) for extra in (0.0, gain)
    ]


@pytest.mark.parametrize("gain", [0.0, 0.15])
def test_intervals_hold_the_truth_as_often_as_they_say(gain: float) -> None:
    generator = np.random.default_rng(11)
    held, below = 0, 0
    trials = 300
    for _ in range(trials):
        found = of_means(*drawn(generator, 120, gain), resamples=300)
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        held += found.low <= gain <= found.high
        below += found.p < 0.05
        if abs(found.low) > 1e-9 and abs(found.high) > 1e-9 and abs(found.p - 0.05) > 0.02:
            # The two say the same, but for ends that are 0 or p at the threshold.
            assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert 0.91 <= held / trials <= 0.98
    if gain:
        assert below / trials > 0.6
    else:
        assert below / trials < 0.09


def test_pairing_narrows_the_interval() -> None:
    generator = np.random.default_rng(2)
    ease_N = generator.uniform(size=400)
    a_N = (ease_N > 0.5).astype(float)
    b_N = np.where(generator.uniform(size=400) < 0.05, 1.0, a_N)
    paired = of_means(a_N, b_N)
    apart = of_means(a_N, generator.permutation(b_N))
    assert paired.difference == pytest.approx(apart.difference)
    assert width(paired) < 0.5 * width(apart)
    assert paired.p is not None
    assert paired.p < 0.01


def width(found: Difference) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_clusters_whose_items_agree_widen_the_interval() -> None:
    generator = np.random.default_rng(3)
    a_C, b_C = drawn(generator, 60, 0.1)
    a_N, b_N, cluster_N = (np.repeat(each, 5) for each in (a_C, b_C, np.arange(60)))
    alone, together = of_means(a_N, b_N), of_means(a_N, b_N, cluster_N)
    assert alone.difference == pytest.approx(together.difference)
    # Five copies of an item say no more than one: the root of 5 is 2.2.
    assert 1.9 < width(together) / width(alone) < 2.6
    assert width(together) == pytest.approx(width(of_means(a_C, b_C)), rel=0.1)


def test_the_same_answers_do_not_differ() -> None:
    a_N, _ = drawn(np.random.default_rng(4), 50, 0.1)
    assert of_means(a_N, a_N) == Difference(a_N.mean(), a_N.mean(), 0.0, 0.0, 1.0)


def test_sums_in_another_order_do_not_differ() -> None:
    # Thirds add up to sums that differ in their last digits.
    values_N = np.tile([1 / 3, 2 / 3, 1.0, 0.1], 20)
    figures = {"x": (mean(values_N), lambda w: math.fsum(w * values_N) / w.sum())}
    assert differences(figures, np.arange(80))["x"][2:5] == (0.0, 0.0, 1.0)


def test_swapping_the_two_turns_the_sign() -> None:
    a_N, b_N = drawn(np.random.default_rng(5), 80, 0.1)
    one, other = of_means(a_N, b_N), of_means(b_N, a_N)
    assert one.difference == -other.difference
    assert one.p == other.p
    assert one.low is not None
    assert one.high is not None
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


def test_p_is_never_zero() -> None:
    found = of_means(np.zeros(20), np.ones(20), resamples=199)
    assert (found.low, found.high) == (1.0, 1.0)
    assert found.p == 2 / 200


def test_all_figures_see_the_same_resamples() -> None:
    a_N, b_N = drawn(np.random.default_rng(6), 80, 0.1)
    figures = {name: (mean(a_N), mean(b_N)) for name in ("one", "other")}
    found = differences(figures, np.arange(80), seed=3)
    assert found["one"] == found["other"] == of_means(a_N, b_N, seed=3)
    assert found["one"] != of_means(a_N, b_N, seed=4)


def test_a_part_of_the_rows() -> None:
    a_N, b_N = drawn(np.random.default_rng(7), 80, 0.2)
    half_N = np.arange(80) < 40
    figures = {"half": (mean(a_N), mean(b_N)), "few": (mean(a_N), mean(b_N))}
    within = {"half": half_N.astype(float), "few": (np.arange(80) < 9).astype(float)}
    found = differences(figures, np.arange(80), within=within)
    assert found["half"].difference == pytest.approx(b_N[:40].mean() - a_N[:40].mean())
    assert width(found["half"]) == pytest.approx(width(of_means(a_N[:40], b_N[:40])), rel=0.2)
    assert found["few"].difference == pytest.approx(b_N[:9].mean() - a_N[:9].mean())
    assert found["few"][2:] == (None, None, None, "fewer than 10 clusters")


def test_what_is_undefined() -> None:
    once_N = np.zeros(20)
    once_N[3] = 1.0
    one = (ratio(once_N, once_N), mean(np.ones(20)))
    never = (ratio(once_N, 0 * once_N), mean(once_N))
    rare = (ratio(once_N * 0, np.eye(200)[0]), mean(np.ones(200)))
    found = differences({"one": one, "never": never}, np.arange(20))
    # One row in 20 is in 64 % of the resamples.
    assert found["one"].reason is None
    assert found["never"].reason == "it is undefined"
    assert math.isnan(found["never"].difference)
    of_pair = np.repeat(np.arange(20), 10)
    both = (lambda w: math.nan if w[0] < 2 else 1.0, rare[1])
    assert differences({"x": both}, of_pair)["x"].reason == "it is undefined"
    sparse = (lambda w: 1.0 if w[0] in (1.0, 4.0) and w[11] == 1.0 else math.nan, rare[1])
    assert differences({"x": sparse}, of_pair)["x"].reason == "it is undefined on most resamples"


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        # 2 (C(10, 0) + C(10, 1)) / 2^10
        (1, 9, 22 / 1024),
        (9, 1, 22 / 1024),
        # 2 / 2^6
        (0, 6, 1 / 32),
        (5, 5, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar(only_a: int, only_b: int, p: float) -> None:
    right_a = [1] * only_a + [0] * only_b + [1] * 7 + [0] * 3
    right_b = [0] * only_a + [1] * only_b + [1] * 7 + [0] * 3
    found = mcnemar(right_a, right_b)
    assert found is not None
    assert found == (only_a, only_b, pytest.approx(p, rel=1e-12))


def test_mcnemar_is_of_right_and_wrong_alone() -> None:
    assert mcnemar([0, 0.5], [1, 1]) is None
    assert mcnemar([0, 1], [1, 3]) is None


def test_holm() -> None:
    # Smallest first: 3 x 0.01, 2 x 0.03, and 0.04, which may not be below the one before.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.2, None, 0.01]) == pytest.approx([0.2, None, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.5]) == [0.5]
    assert holm([]) == []
