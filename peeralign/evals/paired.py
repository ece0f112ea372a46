"""Is one of two better, by the same items: paired bootstrap, McNemar's test, Holm's correction.

Everything is B minus A. Whatever makes an item hard is in both, so the interval of a difference is
mostly narrower than the two intervals of the figures suggest.

N rows
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from peeralign.evals.measures import Measure, resampled

RESAMPLES = 2000
# With fewer, resamples of clusters say little of what other items would have given.
FEWEST_CLUSTERS = 10
# Sums of equal parts in another order differ by less; that is no difference.
_ROUNDING = 9
Name = TypeVar("Name")


class Difference(NamedTuple):
    """A figure of A and of B (NaN if undefined), and how sure it is that they differ.

    `low` and `high` are the ends of the 95 % interval of B - A, and `p` is two-sided; without them
    `reason` says why there are none.
    """

    a: float
    b: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str | None = None

    @property
    def difference(self) -> float:
        return self.b - self.a


class McNemar(NamedTuple):
    """Items that only one of the two has right, and the two-sided p of so uneven a split."""

    only_a: int
    only_b: int
    p: float


def differences(
    figures: Mapping[Name, tuple[Measure, Measure]],
    cluster_N: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
    within: Mapping[Name, np.ndarray] | None = None,
) -> dict[Name, Difference]:
    """Compare figures of A and B over the same rows; all on the same resamples of whole clusters.

    `cluster_N` numbers each row's cluster, and `within` holds for a figure which rows (N) it is
    over, unless it is over all. The interval has the 2.5 and 97.5 percentiles of B - A; p is twice
    the smaller share of resamples on one side of 0, each share with one added as in Monte Carlo
    tests (Davison and Hinkley, 1997, section 4.2), so it is never 0, and 1 if nothing differs. A
    figure with fewer than FEWEST_CLUSTERS clusters has neither.
    """
    once_N, within = np.ones(len(cluster_N)), within or {}
    enough = [
        name
        for name in figures
        if len(np.unique(cluster_N[within.get(name, once_N) > 0])) >= FEWEST_CLUSTERS
    ]
    drawn: dict[Name, list[float]] = {name: [] for name in enough}
    for weights_N in resampled(cluster_N, seed, resamples if enough else 0):
        for name in enough:
            counted_N = weights_N * within[name] if name in within else weights_N
            a, b = (measure(counted_N) for measure in figures[name])
            if not math.isnan(b - a):
                drawn[name].append(b - a)
    found: dict[Name, Difference] = {}
    for name, measures in figures.items():
        a, b = (measure(within.get(name, once_N)) for measure in measures)
        if math.isnan(b - a):
            found[name] = Difference(a, b, reason="it is undefined")
        elif name not in drawn:
            found[name] = Difference(a, b, reason=f"fewer than {FEWEST_CLUSTERS} clusters")
        elif len(drawn[name]) * 2 < resamples:
            found[name] = Difference(a, b, reason="it is undefined on most resamples")
        else:
            found[name] = Difference(a, b, *_spread(drawn[name]))
    return found


def _spread(drawn: Sequence[float]) -> tuple[float, float, float]:
    values = np.round(drawn, _ROUNDING)
    low, high = np.percentile(values, [2.5, 97.5])
    fewest = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return float(low), float(high), min(1.0, 2 * (fewest + 1) / (len(values) + 1))


def mcnemar(right_a: npt.ArrayLike, right_b: npt.ArrayLike) -> McNemar | None:
    """McNemar's exact test of scores of 0 and 1, both of shape N; None if there are others.

    Under the hypothesis that neither is better, an item that only one has right is as likely
    either's: the binomial test of a half. It takes items as independent (McNemar, 1947).
    """
    a_N, b_N = np.asarray(right_a, float), np.asarray(right_b, float)
    if not np.isin(np.concatenate([a_N, b_N]), (0.0, 1.0)).all():
        return None
    only_a, only_b = int((a_N > b_N).sum()), int((b_N > a_N).sum())
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(only_a, only_b, float(stats.binomtest(only_b, only_a + only_b).pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Each p after Holm's correction for how many there are (Holm, 1979); None stays None.

    Calling those at most 0.05 a difference is wrong at all with a chance of at most 5 %.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted
