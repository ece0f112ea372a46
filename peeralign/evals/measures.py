"""Figures of graded rows that can be computed anew for every resample of the rows.

A measure is a function of how often each row counts (`weights_N`; all ones is the figure itself).
It is NaN where the resample leaves it undefined, as precision is where nothing was answered yes.

N rows
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Measure = Callable[[np.ndarray], float]


def ratio(above: npt.ArrayLike, below: npt.ArrayLike, scale: float = 1.0) -> Measure:
    """`scale` x the sum of `above` over the sum of `below`, both of shape N."""
    above_N, below_N = np.asarray(above, float), np.asarray(below, float)

    def measure(weights_N: np.ndarray) -> float:
        total = float(weights_N @ below_N)
        return scale * float(weights_N @ above_N) / total if total else math.nan

    return measure


def mean(values: npt.ArrayLike, where: npt.ArrayLike | None = None, scale: float = 1.0) -> Measure:
    """`scale` x the mean of `values`, over the rows of `where` (all rows)."""
    values_N = np.asarray(values, float)
    where_N = np.ones(len(values_N)) if where is None else np.asarray(where, float)
    return ratio(values_N * where_N, where_N, scale)


def count(values: npt.ArrayLike) -> Measure:
    """The sum of `values`; of a resample, what it would be over as many rows as there are."""
    values_N = np.asarray(values, float)
    return mean(values_N, scale=len(values_N))


def average(measures: Sequence[Measure]) -> Measure:
    """The plain mean of measures, of those that are defined."""

    def measure(weights_N: np.ndarray) -> float:
        found = [value for each in measures if not math.isnan(value := each(weights_N))]
        return math.fsum(found) / len(found) if found else math.nan

    return measure


def total(measures: Sequence[Measure]) -> Measure:
    """The sum of measures, undefined if one of them is, or if there is none."""

    def measure(weights_N: np.ndarray) -> float:
        return math.fsum(each(weights_N) for each in measures) if measures else math.nan

    return measure


def deviation(measures: Sequence[Measure]) -> Measure:
    """The standard deviation of measures, over their number; undefined if one of them is."""

    def measure(weights_N: np.ndarray) -> float:
        return float(np.std([each(weights_N) for each in measures]))

    return measure


def harmonic(first: Measure, second: Measure) -> Measure:
    """The harmonic mean of two measures (F1 of precision and recall); 0 where both are 0."""

    def measure(weights_N: np.ndarray) -> float:
        one, other = first(weights_N), second(weights_N)
        # Without a single yes, precision is undefined and F1 is 0.
        if one == 0 or other == 0:
            return 0.0
        return 2 * one * other / (one + other)

    return measure


def by_value(
    values: npt.ArrayLike, keys: Sequence[str | None], scale: float = 1.0
) -> dict[str, Measure]:
    """Key -> `scale` x the mean of its rows' values; rows without a key are in none."""
    return {
        key: mean(values, [each == key for each in keys], scale)
        for key in dict.fromkeys(key for key in keys if key is not None)
    }


def all_right(right: Sequence[float], units: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Score a unit of rows as one: (1.0 if all its rows are right, which row stands for it), N."""
    firsts: dict[Hashable, int] = {}
    values_N, where_N = np.zeros(len(right)), np.zeros(len(right))
    for index, unit in enumerate(units):
        first = firsts.setdefault(unit, index)
        if first == index:
            where_N[first], values_N[first] = 1.0, 1.0
        if right[index] != 1:
            values_N[first] = 0.0
    return values_N, where_N


def or_zero(measure: Measure) -> Measure:
    """The measure, or 0 where it is undefined."""

    def defined(weights_N: np.ndarray) -> float:
        value = measure(weights_N)
        return 0.0 if math.isnan(value) else value

    return defined


def clusters(labels: Iterable[Iterable[Hashable]]) -> np.ndarray:
    """Number of each row's cluster, of shape N: rows that share a label are in one cluster."""
    parents: dict[Hashable, Hashable] = {}

    def root(label: Hashable) -> Hashable:
        parents.setdefault(label, label)
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label

    firsts = []
    for row in labels:
        first, *others = row
        firsts.append(first)
        root(first)
        for other in others:
            parents[root(other)] = root(first)
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(root(first), len(numbers)) for first in firsts], int)


RESAMPLES = 1000


def resampled(
    cluster_N: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Iterator[np.ndarray]:
    """How often each row counts in each resample of whole clusters, of shape N."""
    num_clusters = int(cluster_N.max()) + 1
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = generator.integers(num_clusters, size=num_clusters)
        yield np.bincount(drawn, minlength=num_clusters)[cluster_N].astype(float)


def interval(
    measure: Measure, cluster_N: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float] | str:
    """The 2.5 and 97.5 percentiles over resamples of whole clusters, or why there are none.

    Resamples that leave the measure undefined are passed over; if most do, there is no interval.
    """
    if int(cluster_N.max()) == 0:
        return "all rows are one cluster"
    values = (measure(weights_N) for weights_N in resampled(cluster_N, seed, resamples))
    found = [value for value in values if not math.isnan(value)]
    if len(found) * 2 < resamples:
        return "it is undefined on most resamples of the clusters"
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
