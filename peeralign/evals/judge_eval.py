"""How good a judge is: every figure of `agreement` and `elo` for what it said, as one object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from peeralign.evals import agreement, black_image, intervals
from peeralign.evals.agreement import Figure, over_sets
from peeralign.evals.elo import RESAMPLES, Ratings, elo, tau_of_ratings
from peeralign.evals.intervals import Interval

_Computed = dict[str, Callable[[pl.DataFrame], Figure]]


def _of(measure: Callable[..., Figure], **settings: Any) -> Callable[[pl.DataFrame], Figure]:
    return lambda table: measure(table, **settings)


def _over_sets(measure: Callable[[pl.DataFrame], Figure]) -> Callable[[pl.DataFrame], Figure]:
    return lambda table: over_sets(table, measure)[0]


def _length(column: str) -> Callable[[pl.DataFrame], Figure]:
    return _over_sets(_of(agreement.length_correlation, column=column))


SCORE_FIGURES: _Computed = {
    "pearson": _over_sets(agreement.pearson),
    "pearson_pooled": agreement.pearson,
    "kendall_tau": _over_sets(agreement.kendall_of_means),
    "kendall_tau_pooled": agreement.kendall_of_means,
    "coverage_scores": lambda table: agreement.coverage(table["score"]),
    "length_correlation": _length("score"),
    "length_correlation_reference": _length("reference"),
    "self_preference_gap": agreement.self_preference_gap,
    "family_preference_gap": agreement.family_preference_gap,
    "score_entropy": agreement.score_entropy,
    "score_entropy_reference": _of(agreement.score_entropy, column="reference"),
    "pearson_without_image": _over_sets(black_image.without_image(agreement.pearson, "score")),
    "black_image_pearson": _over_sets(black_image.black_image_pearson),
    "black_image_change": _over_sets(black_image.black_image_change),
    "coverage_scores_without_image": _of(black_image.coverage_without_image, judged="score"),
}
PAIR_FIGURES: _Computed = {
    "accuracy_with_ties": agreement.accuracy_with_ties,
    "accuracy_without_ties": agreement.accuracy_without_ties,
    "accuracy_with_ties_unscored_wrong": _of(agreement.accuracy_with_ties, unscored_wrong=True),
    "accuracy_without_ties_unscored_wrong": _of(
        agreement.accuracy_without_ties, unscored_wrong=True
    ),
    "accuracy_with_ties_set_mean": _over_sets(agreement.accuracy_with_ties),
    "accuracy_without_ties_set_mean": _over_sets(agreement.accuracy_without_ties),
    "accuracy_both_decided": agreement.accuracy_both_decided,
    "coverage_pairs": lambda table: agreement.coverage(table["verdict"]),
    "first_position_share": agreement.first_position_share,
    "first_position_share_reference": _of(agreement.first_position_share, column="reference"),
    "order_consistency": agreement.order_consistency,
    "longer_wins": agreement.longer_wins,
    "longer_wins_reference": _of(agreement.longer_wins, column="reference"),
    "self_preference_gap_pairs": agreement.self_preference_gap_pairs,
    "family_preference_gap_pairs": agreement.family_preference_gap_pairs,
    "accuracy_without_ties_without_image": black_image.without_image(
        agreement.accuracy_without_ties, "verdict"
    ),
    "black_image_verdict_change": black_image.black_image_verdict_change,
    "coverage_pairs_without_image": _of(black_image.coverage_without_image, judged="verdict"),
}
RANKING_FIGURES: _Computed = {
    "ranking_distance": agreement.ranking_distance,
    "ranking_distance_set_mean": _over_sets(agreement.ranking_distance),
    "coverage_rankings": lambda table: agreement.coverage(table["ranking"]),
    "ranking_distance_without_image": black_image.without_image(
        agreement.ranking_distance, "ranking"
    ),
    "coverage_rankings_without_image": _of(black_image.coverage_without_image, judged="ranking"),
}
INTERVALS = {
    "scores": (intervals.score_intervals, ("pearson", "kendall_tau")),
    "pairs": (intervals.pair_intervals, ("accuracy_with_ties", "accuracy_without_ties")),
    "rankings": (intervals.ranking_intervals, ("ranking_distance",)),
}
# What each set is asked for by itself.
_BY_SET = {
    "scores": ("pearson", "kendall_tau"),
    "pairs": ("accuracy_with_ties", "accuracy_without_ties"),
    "rankings": ("ranking_distance",),
}
FIGURES = {"scores": SCORE_FIGURES, "pairs": PAIR_FIGURES, "rankings": RANKING_FIGURES}
JUDGED_COLUMN = {"scores": "score", "pairs": "verdict", "rankings": "ranking"}
DIGITS = 6


def judge_eval(
    scores: pl.DataFrame | None = None,
    pairs: pl.DataFrame | None = None,
    rankings: pl.DataFrame | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """All figures by name, as `docs/judge_eval.md` explains them, ready to be written as JSON.

    The tables are those of `store/verdicts.py`. Every figure is a number or null, and each that is
    null has an entry in "reasons". "intervals" is {figure: {"low", "high"}} of the main figures;
    "elo" and "elo_reference" are {model: {"rating", "low", "high"}}; "sets" has the main figures
    and the counts of each set.
    """
    tables = {"scores": scores, "pairs": pairs, "rankings": rankings}
    figures: dict[str, Figure] = {}
    for kind, table in tables.items():
        for name, measure in FIGURES[kind].items():
            figures[name] = (
                Figure(None, f"no {kind} were given") if table is None else measure(table)
            )
    given = {kind: table for kind, table in tables.items() if table is not None}
    figures["coverage"] = agreement.coverage(
        *(table[JUDGED_COLUMN[kind]] for kind, table in given.items())
    )
    result = _as_json(figures)
    _add_intervals(result, tables, seed, resamples)
    result.update({f"num_{kind}": len(table) for kind, table in given.items()})
    result["num_pairs_in_both_orders"] = 0 if pairs is None else len(agreement.both_orders(pairs))
    _add_elo(result, pairs, seed, resamples)
    result["sets"] = _sets(given)
    # Last, since they are long.
    result["reasons"] = result.pop("reasons")
    return result


def _add_intervals(
    result: dict[str, Any], tables: dict[str, pl.DataFrame | None], seed: int, resamples: int
) -> None:
    result["intervals"] = {}
    for kind, (measure, names) in INTERVALS.items():
        table = tables[kind]
        absent = Interval(None, None, f"no {kind} were given")
        found = {} if table is None else measure(table, seed, resamples)
        for name in names:
            interval = found.get(name, absent)
            if interval.low is None or interval.high is None:
                result["intervals"][name] = None
                result["reasons"][f"intervals.{name}"] = interval.reason
                continue
            result["intervals"][name] = {
                "low": round(interval.low, DIGITS) + 0.0,
                "high": round(interval.high, DIGITS) + 0.0,
            }


def _add_elo(result: dict[str, Any], pairs: pl.DataFrame | None, seed: int, resamples: int) -> None:
    names = {"elo": "verdict", "elo_reference": "reference"}
    if pairs is None:
        rated = dict.fromkeys(names, Ratings({}, "no pairs were given"))
        models = []
    else:
        rated = {name: elo(pairs, column, seed, resamples) for name, column in names.items()}
        models = sorted({*pairs["model_a"], *pairs["model_b"]})
    for name, ratings in rated.items():
        result[name] = None if ratings.reason else _rated(ratings, models)
        if ratings.reason:
            result["reasons"][name] = ratings.reason
            continue
        if ratings.interval_reason:
            result["reasons"][f"{name}.low"] = ratings.interval_reason
        for model in models:
            if model not in ratings.models:
                result["reasons"][f"{name}.{model}"] = "no scored pair with another model"
    tau = _as_json({"elo_tau": tau_of_ratings(rated["elo"], rated["elo_reference"])})
    result["elo_tau"] = tau["elo_tau"]
    result["reasons"].update(tau["reasons"])


def _rated(ratings: Ratings, models: list[str]) -> dict[str, Any]:
    rows = {}
    for model in models:
        rating = ratings.models.get(model)
        numbers = (None, None, None) if rating is None else rating
        rounded = (None if number is None else round(number, 2) for number in numbers)
        rows[model] = dict(zip(("rating", "low", "high"), rounded, strict=True))
    return rows


def _sets(given: dict[str, pl.DataFrame]) -> dict[str, Any]:
    names = dict.fromkeys(name for table in given.values() for name in table["set"])
    sets = {}
    for name in names:
        rows = {kind: table.filter(pl.col("set") == name) for kind, table in given.items()}
        rows = {kind: table for kind, table in rows.items() if len(table)}
        figures = {
            figure: FIGURES[kind][figure](table)
            for kind, table in rows.items()
            for figure in _BY_SET[kind]
        }
        figures["coverage"] = agreement.coverage(
            *(table[JUDGED_COLUMN[kind]] for kind, table in rows.items())
        )
        counts = {f"num_{kind}": len(table) for kind, table in rows.items()}
        sets[name] = {**counts, **_as_json(figures)}
    return sets


def _as_json(figures: dict[str, Figure]) -> dict[str, Any]:
    """The numbers by name, and the reasons of those that are null under "reasons"."""
    # Adding 0.0 turns a rounded "-0.0" into "0.0".
    numbers = {
        name: None if figure.value is None else round(figure.value, DIGITS) + 0.0
        for name, figure in figures.items()
    }
    reasons = {name: figure.reason for name, figure in figures.items() if figure.value is None}
    return {**numbers, "reasons": reasons}
