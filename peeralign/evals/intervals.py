"""95 % intervals of the main figures, from resampling the items.

As for the ratings (`elo`): items are drawn by set and item, as many as there are, with return, so
all rows of one question stay together. Nothing is computed row by row again: every figure is a
function of sums, and the sums of a resample are the items' sums, weighted by how often each item
was drawn.

Shapes: B resamples, I items, R rows, S sums, M models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import sparse, stats

from peeralign.evals.agreement import levenshtein
from peeralign.evals.elo import INTERVAL, RESAMPLES

# How many numbers of a block of weights lie in memory at once: 128 MiB.
_BLOCK = 2**24
_ROUNDING = 1e-12
# Beyond it, comparing all pairs of models at once takes longer than sorting them, resample by
# resample.
_MANY_MODELS = 200


class Interval(NamedTuple):
    """The ends of a 95 % interval, or why there is none."""

    low: float | None
    high: float | None
    reason: str | None = None


# From how often each item was drawn (B, I) to the figure of each resample (B,), NaN if undefined.
_Resampled = Callable[[np.ndarray], np.ndarray]


class _Table(NamedTuple):
    """Scored rows: their items, numbered, and what is summed over them."""

    item_R: np.ndarray
    num_items: int
    rows: pl.DataFrame


def score_intervals(
    scores: pl.DataFrame, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Intervals of "pearson" and "kendall_tau", both means over sets (tables as `agreement`'s)."""
    table = _table(scores, "score")
    return _intervals(
        table, {"pearson": _pearson(table), "kendall_tau": _kendall(table)}, seed, resamples
    )


def pair_intervals(
    pairs: pl.DataFrame, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Intervals of "accuracy_with_ties" and "accuracy_without_ties", of the scored pairs."""
    table = _table(pairs, "verdict")
    right_R = (table.rows["verdict"] == table.rows["reference"]).to_numpy().astype(float)
    decided_R = (table.rows["reference"] != "tie").to_numpy().astype(float)
    figures = {
        "accuracy_with_ties": _mean(table, right_R, np.ones(len(right_R))),
        "accuracy_without_ties": _mean(table, right_R, decided_R),
    }
    return _intervals(table, figures, seed, resamples)


def ranking_intervals(
    rankings: pl.DataFrame, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """The interval of "ranking_distance", of the scored rankings."""
    table = _table(rankings, "ranking")
    rows = table.rows.select("ranking", "reference").iter_rows()
    distance_R = np.array([levenshtein(*row) / max(1, *map(len, row)) for row in rows])
    figures = {"ranking_distance": _mean(table, distance_R, np.ones(len(distance_R)))}
    return _intervals(table, figures, seed, resamples)


def _table(table: pl.DataFrame, judged: str) -> _Table:
    scored = table.drop_nulls(judged)
    item_R = scored.select(pl.struct("set", "item").rank("dense").cast(pl.Int64) - 1).to_series()
    return _Table(item_R.to_numpy(), item_R.n_unique(), scored)


def _intervals(
    table: _Table, figures: dict[str, _Resampled], seed: int, resamples: int
) -> dict[str, Interval]:
    if table.num_items < 2:
        return {name: Interval(None, None, "fewer than two scored items") for name in figures}
    values: dict[str, list[np.ndarray]] = {name: [] for name in figures}
    for drawn_BI in _draws(table.num_items, seed, resamples):
        for name, figure in figures.items():
            values[name].append(figure(drawn_BI))
    return {name: _ends(np.concatenate(parts)) for name, parts in values.items()}


def _draws(num_items: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    shares = np.full(num_items, 1 / num_items)
    size = max(1, _BLOCK // num_items)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        yield generator.multinomial(num_items, shares, size=count).astype(float)


def _ends(value_B: np.ndarray) -> Interval:
    defined = value_B[~np.isnan(value_B)]
    if 2 * len(defined) < max(1, len(value_B)):
        return Interval(None, None, "it is undefined in most resamples of the items")
    tail = (1 - INTERVAL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _summed(item_R: np.ndarray, num_items: int, column_R: np.ndarray) -> np.ndarray:
    return np.bincount(item_R, column_R, num_items)


def _mean(table: _Table, value_R: np.ndarray, weight_R: np.ndarray) -> _Resampled:
    """The weighted mean of the rows' values."""
    totals = [
        _summed(table.item_R, table.num_items, column_R)
        for column_R in (weight_R * value_R, weight_R)
    ]

    def mean(drawn_BI: np.ndarray) -> np.ndarray:
        return _ratio(drawn_BI @ totals[0], drawn_BI @ totals[1])

    return mean


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _mean_over_sets(parts: list[_Resampled]) -> _Resampled:
    """The plain mean over the sets in which a resample's figure is defined."""

    def mean(drawn_BI: np.ndarray) -> np.ndarray:
        value_BS = np.stack([part(drawn_BI) for part in parts], axis=1)
        is_defined_BS = ~np.isnan(value_BS)
        return _ratio(np.where(is_defined_BS, value_BS, 0).sum(axis=1), is_defined_BS.sum(axis=1))

    return mean


def _by_set(table: _Table) -> Iterator[tuple[np.ndarray, pl.DataFrame]]:
    """Each set's items of its rows, and its rows."""
    rows = table.rows.with_columns(pl.Series("item_number", table.item_R))
    for _, part in rows.group_by("set", maintain_order=True):
        yield part["item_number"].to_numpy(), part


def _standardised(rows: pl.DataFrame, column: str) -> np.ndarray:
    """Of mean 0 and deviation 1, or all 0: no figure here depends on the scale."""
    number_R = rows[column].to_numpy().astype(float)
    # Divided by the largest first, so that no sum of squares overflows.
    number_R = number_R / (np.abs(number_R).max(initial=0.0) or 1.0)
    number_R = number_R - number_R.mean()
    deviation = number_R.std()
    return number_R / deviation if deviation > _ROUNDING else np.zeros(len(number_R))


def _pearson(table: _Table) -> _Resampled:
    parts = []
    for item_R, rows in _by_set(table):
        x_R, y_R = _standardised(rows, "score"), _standardised(rows, "reference")
        columns = (np.ones(len(x_R)), x_R, y_R, x_R * x_R, y_R * y_R, x_R * y_R)
        sum_IS = np.stack([_summed(item_R, table.num_items, c) for c in columns], axis=1)
        parts.append(_correlation_of(sparse.csr_array(sum_IS)))
    return _mean_over_sets(parts)


def _correlation_of(sum_IS: sparse.csr_array) -> _Resampled:
    def correlation(drawn_BI: np.ndarray) -> np.ndarray:
        n, x, y, xx, yy, xy = np.asarray(drawn_BI @ sum_IS).T
        mean_x, mean_y = _ratio(x, n), _ratio(y, n)
        spread = (_ratio(xx, n) - mean_x**2) * (_ratio(yy, n) - mean_y**2)
        is_defined = spread > _ROUNDING
        root = np.sqrt(np.where(is_defined, spread, 1.0))
        return np.where(is_defined, (_ratio(xy, n) - mean_x * mean_y) / root, np.nan)

    return correlation


def _kendall(table: _Table) -> _Resampled:
    parts = []
    for item_R, rows in _by_set(table):
        model_R = (rows["model"].rank("dense").cast(pl.Int64) - 1).to_numpy()
        shape = (table.num_items, int(model_R.max(initial=-1)) + 1)
        columns = (
            np.ones(len(rows)),
            _standardised(rows, "score"),
            _standardised(rows, "reference"),
        )
        # Entries of one item and model, if there are several, add up.
        parts.append(_tau_of([sparse.csr_array((c, (item_R, model_R)), shape) for c in columns]))
    return _mean_over_sets(parts)


def _tau_of(sums_IM: list[sparse.csr_array]) -> _Resampled:
    """Kendall's tau-b of the means of the models that a resample holds."""

    def tau(drawn_BI: np.ndarray) -> np.ndarray:
        count_BM, x_BM, y_BM = (np.asarray(drawn_BI @ sum_IM) for sum_IM in sums_IM)
        # Equal means of different sums differ in their last digits; that is no order.
        x_BM, y_BM = (np.round(_ratio(total, count_BM), 12) for total in (x_BM, y_BM))
        if x_BM.shape[1] > _MANY_MODELS:
            return np.array([_sorted_tau(*means) for means in zip(x_BM, y_BM, strict=True)])
        agreed, untied_x, untied_y = np.zeros((3, len(drawn_BI)))
        for model in range(1, x_BM.shape[1]):
            # Of a model that is not there the sign is no number, and counts as 0.
            sign_x = np.nan_to_num(np.sign(x_BM[:, :model] - x_BM[:, model : model + 1]))
            sign_y = np.nan_to_num(np.sign(y_BM[:, :model] - y_BM[:, model : model + 1]))
            agreed += (sign_x * sign_y).sum(axis=1)
            untied_x += np.abs(sign_x).sum(axis=1)
            untied_y += np.abs(sign_y).sum(axis=1)
        return _ratio(agreed, np.sqrt(untied_x * untied_y))

    return tau


def _sorted_tau(x_M: np.ndarray, y_M: np.ndarray) -> float:
    is_there = ~np.isnan(x_M)
    x, y = x_M[is_there], y_M[is_there]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    # SciPy's results are tuples whose first entry is the statistic.
    result: Any = stats.kendalltau(x, y, variant="b")
    return float(result[0])
