"""Elo ratings from pairwise verdicts, with intervals (LLaVA-Critic, section 5.1, Table 3).

The paper names Elo ratings and no more. Ours are the Bradley-Terry model's, fitted to all pairs at
once, since ratings updated game by game depend on the order of the games:

    P(i beats j) = 1 / (1 + 10^((R_j - R_i) / 400))

A tie is half a win for each side, as in Elo's own expected score. (Davidson's model has a parameter
for ties, and puts two models of the same points further apart.) A normal prior of mean 0 and
standard deviation PRIOR_SD on every rating keeps one that never loses finite; it weighs about a
third of one even game. Intervals come from resampling items, so the pairs of one question stay
together.

Shapes: M models, G games (scored pairs of two different models).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from peeralign.evals.agreement import Figure, kendall

SCALE = 400 / math.log(10)
MEAN = 1000.0
# In Elo points.
PRIOR_SD = 600.0
RESAMPLES = 500
INTERVAL = 0.95
_POINTS = {"A": 1.0, "tie": 0.5, "B": 0.0}


class Rating(NamedTuple):
    """A model's rating in Elo points, and the ends of its 95 % interval."""

    rating: float
    low: float | None
    high: float | None


class Ratings(NamedTuple):
    """The ratings by model, or why there are none; and why they have no intervals."""

    models: dict[str, Rating]
    reason: str | None = None
    interval_reason: str | None = None


class _Games(NamedTuple):
    models: list[str]
    item_G: np.ndarray
    first_G: np.ndarray
    second_G: np.ndarray
    points_G: np.ndarray

    def wins(self, weight_G: np.ndarray) -> np.ndarray:
        """(M, M): by how much weight the model of the row beat that of the column."""
        num = len(self.models)
        forward = np.bincount(
            self.first_G * num + self.second_G, weight_G * self.points_G, num * num
        )
        backward = np.bincount(
            self.second_G * num + self.first_G, weight_G * (1 - self.points_G), num * num
        )
        return (forward + backward).reshape(num, num)


def elo(
    pairs: pl.DataFrame, column: str = "verdict", seed: int = 0, resamples: int = RESAMPLES
) -> Ratings:
    """Ratings from the verdicts of `column`, of mean 1000 over the models.

    `pairs` has the columns set, item, model_a, model_b, verdict ("A", "B", "tie" or null) and
    reference. Only pairs with a verdict count, for the reference's ratings too, so that both come
    from the same games. Resamples in which the models fall apart into groups that never met are
    passed over. The same seed gives the same intervals.
    """
    games = _games_of(pairs, column)
    everything_G = np.ones(len(games.item_G))
    if reason := _undefined(games, everything_G):
        return Ratings({}, reason)
    wins_MM = games.wins(everything_G)
    theta_M = _fit(wins_MM, np.zeros(len(games.models)))
    drawn = _resampled(games, theta_M, np.random.default_rng(seed), resamples)
    ratings = _on_elo_scale(theta_M)
    if 2 * len(drawn) < max(1, resamples):
        why = "in most resamples of the items the models fall apart into groups that never met"
        bare = zip(games.models, ratings, strict=True)
        return Ratings({name: Rating(float(r), None, None) for name, r in bare}, None, why)
    tail = (1 - INTERVAL) / 2
    ends = np.quantile(_on_elo_scale(np.array(drawn)), [tail, 1 - tail], axis=0)
    rows = zip(games.models, ratings, *ends, strict=True)
    return Ratings({name: Rating(*map(float, numbers)) for name, *numbers in rows})


def tau_of_ratings(judge: Ratings, reference: Ratings) -> Figure:
    """Kendall's tau-b between two sets of ratings, over the models that both rate (Table 3)."""
    for ratings in (judge, reference):
        if ratings.reason:
            return Figure(None, ratings.reason)
    shared = [name for name in judge.models if name in reference.models]
    # Models of equal results differ by what the optimiser leaves over.
    both = [[round(r.models[name].rating, 3) for name in shared] for r in (judge, reference)]
    tau = kendall(both[0], both[1])
    return tau._replace(reason=tau.reason and tau.reason.replace("models' means", "ratings"))


def _games_of(pairs: pl.DataFrame, column: str) -> _Games:
    games = pairs.drop_nulls("verdict").filter(pl.col("model_a") != pl.col("model_b"))
    models = sorted({*games["model_a"], *games["model_b"]})
    numbers = {name: number for number, name in enumerate(models)}
    item = pl.struct("set", "item").rank("dense").cast(pl.Int64) - 1
    points = pl.col(column).replace_strict(_POINTS, return_dtype=pl.Float64)

    def place(side: str) -> pl.Expr:
        return pl.col(side).replace_strict(numbers, return_dtype=pl.Int64)

    table = games.select(item=item, a=place("model_a"), b=place("model_b"), points=points)
    columns = [table[name].to_numpy() for name in ("item", "a", "b", "points")]
    return _Games(models, *columns)


def _undefined(games: _Games, weight_G: np.ndarray) -> str | None:
    if not len(games.item_G):
        return "no scored pair of two models"
    if games.item_G.max() < 1:
        return "fewer than two items"
    count, group_M = _groups(games.wins(weight_G))
    if count > 1:
        apart = [games.models[int(np.flatnonzero(group_M == group)[0])] for group in (0, 1)]
        return f"the models form {count} groups that never met: {apart[0]}'s and {apart[1]}'s"
    return None


def _groups(wins_MM: np.ndarray) -> tuple[int, np.ndarray]:
    count, group_M = connected_components(wins_MM + wins_MM.T > 0, directed=False)
    return int(count), group_M


def _resampled(
    games: _Games, start_M: np.ndarray, generator: np.random.Generator, resamples: int
) -> list[np.ndarray]:
    """Strengths (M,) for each usable resample: as many items as there are, drawn with return."""
    num_items = int(games.item_G.max()) + 1
    shares = np.full(num_items, 1 / num_items)
    drawn = []
    for _ in range(resamples):
        times_drawn = generator.multinomial(num_items, shares)
        wins_MM = games.wins(times_drawn[games.item_G].astype(float))
        if _groups(wins_MM)[0] == 1:
            drawn.append(_fit(wins_MM, start_M))
    return drawn


def _fit(wins_MM: np.ndarray, start_M: np.ndarray) -> np.ndarray:
    """(M,): the most probable strengths, in units of SCALE. Their sum is 0, as the prior's is."""
    precision = (SCALE / PRIOR_SD) ** 2
    met_MM = wins_MM + wins_MM.T

    def loss(theta_M: np.ndarray) -> float:
        surprise_MM = np.logaddexp(0.0, theta_M[None, :] - theta_M[:, None])
        return float((wins_MM * surprise_MM).sum() + precision * (theta_M**2).sum() / 2)

    def gradient(theta_M: np.ndarray) -> np.ndarray:
        expected_MM = met_MM * expit(theta_M[:, None] - theta_M[None, :])
        return (expected_MM - wins_MM).sum(axis=1) + precision * theta_M

    def hessian(theta_M: np.ndarray) -> np.ndarray:
        wins = expit(theta_M[:, None] - theta_M[None, :])
        spread_MM = met_MM * wins * (1 - wins)
        return np.diag(spread_MM.sum(axis=1) + precision) - spread_MM

    options = {"gtol": 1e-6 * max(1.0, float(wins_MM.sum()))}
    found = minimize(
        loss, start_M, jac=gradient, hess=hessian, method="trust-exact", options=options
    )
    theta_M = found.x
    # The loss is too flat at its least to be told by its value; its slope still tells.
    for _ in range(2):
        theta_M = theta_M - np.linalg.solve(hessian(theta_M), gradient(theta_M))
    return theta_M


def _on_elo_scale(theta: np.ndarray) -> np.ndarray:
    """Strengths (..., M) as ratings of mean MEAN."""
    return MEAN + SCALE * (theta - theta.mean(axis=-1, keepdims=True))
