"""How far a judge agrees with a reference: scores, pairs and rankings, as plain numbers.

LLaVA-Critic, section 5.1: Pearson's r on instances and Kendall's tau on models (Table 2), accuracy
on pairs with and without ties (Table 3); MLLM-as-a-Judge (Chen et al., 2024), section 3: distance
of rankings. The others are the traps known of judges: position, length, themselves, one score.

All functions are pure. Their tables have one row for each thing that was judged:

* scores: set, item, model, score (null: unscored), reference; further columns where named.
* pairs: set, item, model_a, model_b, verdict ("A", "B", "tie", or null: unscored), reference.
* rankings: set, item, ranking (names, best first, or null: unscored), reference (the same).

What is unscored lowers the coverage and is left out of everything else. What is undefined has no
value but a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import stats

# Relative: below it, what differs between numbers is the rounding of their sums.
_ROUNDING = 1e-12
_POINTS = {"A": 1.0, "tie": 0.5, "B": 0.0}


class Figure(NamedTuple):
    """A number, or the reason that there is none."""

    value: float | None
    reason: str | None = None


Measure = Callable[[pl.DataFrame], Figure]


def over_sets(table: pl.DataFrame, measure: Measure) -> tuple[Figure, dict[str, Figure]]:
    """The unweighted mean of a figure over the sets where it is defined, and each set's own."""
    groups = table.group_by("set", maintain_order=True)
    by_set = {str(name): measure(rows) for (name,), rows in groups}
    values = [figure.value for figure in by_set.values() if figure.value is not None]
    if values:
        return Figure(float(np.mean(values))), by_set
    reasons = dict.fromkeys(figure.reason for figure in by_set.values() if figure.reason)
    return Figure(None, "; ".join(reasons) or "no rows"), by_set


def pearson(scores: pl.DataFrame) -> Figure:
    """Pearson's r between score and reference over the scored rows: LLaVA-Critic, Table 2, top."""
    scored = scores.drop_nulls("score")
    given, reference = _numbers(scored, "score"), _numbers(scored, "reference")
    if reason := _undefined(given, reference, "scored rows", "scores"):
        return Figure(None, reason)
    return _statistic(stats.pearsonr(_scaled(given), _scaled(reference)))


def kendall_of_means(scores: pl.DataFrame) -> Figure:
    """Kendall's tau-b between the models' mean scores and mean references (Table 2, bottom).

    Both means of a model are over its scored rows. Tau-b, SciPy's default, corrects for models of
    equal means; without any it is the paper's tau.
    """
    scored = scores.drop_nulls("score")
    names = ("score", "reference")
    scaled = scored.with_columns(pl.Series(name, _scaled(_numbers(scored, name))) for name in names)
    means = scaled.group_by("model", maintain_order=True).agg(pl.col(names).mean())
    return kendall(means["score"].to_list(), means["reference"].to_list())


def kendall(given: Sequence[float], reference: Sequence[float]) -> Figure:
    """Kendall's tau-b of two lists with a number for each model."""
    given_M, reference_M = np.asarray(given, float), np.asarray(reference, float)
    if reason := _undefined(given_M, reference_M, "models", "models' means"):
        return Figure(None, reason)
    # Equal means of different sums differ in their last digits; that is no order.
    ranks = [np.round(_scaled(numbers), 12) for numbers in (given_M, reference_M)]
    return _statistic(stats.kendalltau(*ranks, variant="b"))


def coverage(*columns: pl.Series) -> Figure:
    """The share of rows that are scored, over all the tables' columns of scores or verdicts."""
    rows = sum(map(len, columns))
    if not rows:
        return Figure(None, "no rows")
    return Figure(sum(column.count() for column in columns) / rows)


def accuracy_with_ties(pairs: pl.DataFrame, unscored_wrong: bool = False) -> Figure:
    """The share of pairs whose verdict is the reference, of the three classes A, B and tie.

    Of the scored pairs; with `unscored_wrong` of all pairs, the unscored ones being wrong.
    """
    return _accuracy(pairs, unscored_wrong, "pairs")


def accuracy_without_ties(pairs: pl.DataFrame, unscored_wrong: bool = False) -> Figure:
    """The same over the pairs whose reference is no tie. A judge's tie is wrong there.

    The paper (Table 3, "Accuracy w.o. Tie") does not say whose ties are left out. Leaving out the
    judge's as well would let it choose the pairs it is measured on: see `accuracy_both_decided`.
    """
    decided = pairs.filter(pl.col("reference") != "tie")
    return _accuracy(decided, unscored_wrong, "pairs whose reference is no tie")


def accuracy_both_decided(pairs: pl.DataFrame) -> Figure:
    """The share of equal verdicts where neither the judge nor the reference says tie."""
    both = pairs.filter(pl.col("reference") != "tie", pl.col("verdict") != "tie")
    return _accuracy(both, False, "pairs that both decide")


def _accuracy(pairs: pl.DataFrame, unscored_wrong: bool, what: str) -> Figure:
    if not unscored_wrong:
        pairs, what = pairs.drop_nulls("verdict"), f"scored {what}"
    if pairs.is_empty():
        return Figure(None, f"no {what}")
    right = (pairs["verdict"] == pairs["reference"]).fill_null(False)
    return _mean(right)


def first_position_share(pairs: pl.DataFrame, column: str = "verdict") -> Figure:
    """How often the answer shown first wins, of the scored pairs that `column` decides.

    The judge's share is held against the reference's (`column="reference"`), not against a half.
    """
    decided = pairs.drop_nulls("verdict").filter(pl.col(column) != "tie")
    if decided.is_empty():
        return Figure(None, "no scored pairs that are decided")
    return _mean(decided[column] == "A")


def both_orders(pairs: pl.DataFrame) -> pl.DataFrame:
    """Verdicts on (a, b), and `swapped` on (b, a), of one item, where both orders are scored.

    One row for each pair of answers. Two answers of one model are told apart by the columns
    answer_a and answer_b; without them they are not in.
    """
    # A model's name is enough to tell answers of different models apart.
    by_text = pl.col("model_a") == pl.col("model_b")
    sides = [
        pl.when(by_text).then(
            f"answer_{side}" if f"answer_{side}" in pairs.columns else pl.lit(None, pl.String)
        )
        for side in "ab"
    ]
    scored = pairs.drop_nulls("verdict").select(
        "set", "item", "verdict", "model_a", "model_b", a=sides[0], b=sides[1]
    )
    names = {"model_a": "model_b", "model_b": "model_a", "a": "b", "b": "a", "verdict": "swapped"}
    is_first = pl.when(by_text).then(pl.col("a") < pl.col("b"))
    first = scored.filter(is_first.otherwise(pl.col("model_a") < pl.col("model_b")))
    keys = ["set", "item", "model_a", "model_b", "a", "b"]
    both = first.join(scored.rename(names), on=keys, nulls_equal=True, maintain_order="left")
    return both.drop("a", "b")


def order_consistency(pairs: pl.DataFrame) -> Figure:
    """The share of pairs, judged in both orders, whose two verdicts name one winner (or both tie).

    Judging at random, without ties, gives a half.
    """
    both = both_orders(pairs)
    if both.is_empty():
        return Figure(None, "no pair is scored in both orders")
    mirrored = both["swapped"].replace({"A": "B", "B": "A"})
    return _mean(both["verdict"] == mirrored)


def length_correlation(scores: pl.DataFrame, column: str = "score") -> Figure:
    """Spearman's correlation of the answers' lengths in characters with `column`, scored rows only.

    A judge is not biased for liking long answers if the reference (`column="reference"`) does too.
    """
    known = scores.drop_nulls(["score", "answer"])
    lengths = known["answer"].str.len_chars().to_numpy().astype(float)
    if reason := _undefined(_numbers(known, column), lengths, "scored rows with answers", "scores"):
        return Figure(None, reason.replace("references", "lengths"))
    return _statistic(stats.spearmanr(_numbers(known, column), lengths))


def longer_wins(pairs: pl.DataFrame, column: str = "verdict") -> Figure:
    """How often the longer answer wins, of the scored pairs of unequal lengths that are decided."""
    known = pairs.drop_nulls(["verdict", "answer_a", "answer_b"]).with_columns(
        longer=pl.col("answer_a").str.len_chars().cast(pl.Int64)
        - pl.col("answer_b").str.len_chars().cast(pl.Int64)
    )
    decided = known.filter(pl.col("longer") != 0, pl.col(column) != "tie")
    if decided.is_empty():
        return Figure(None, "no scored pairs of answers of unequal lengths that are decided")
    return _mean((decided["longer"] > 0) == (decided[column] == "A"))


def self_preference_gap(scores: pl.DataFrame) -> Figure:
    """How much higher a judge scores its own answers than others' of the same reference.

    Needs the columns judge and author. In standard deviations of the judge's scores: both columns
    are standardised within each set, a line of score on reference is fitted to the others' answers,
    and the gap is the mean distance of the judge's own answers above that line.
    """
    return _gap(scores, pl.col("author") == pl.col("judge"), "answers of the judge's own")


def family_preference_gap(scores: pl.DataFrame) -> Figure:
    """The same for answers of the judge's family, the judge's own being left out altogether.

    Needs the columns family and judge_family too.
    """
    others = scores.filter((pl.col("author") != pl.col("judge")).fill_null(False))
    kin = pl.col("family") == pl.col("judge_family")
    return _gap(others, kin, "answers of the judge's family")


def _gap(scores: pl.DataFrame, own: pl.Expr, what: str) -> Figure:
    # Rows of which it is not known whose they are stay out.
    known = scores.drop_nulls("score").with_columns(own=own).drop_nulls("own")
    by_set = [_standardised(rows) for _, rows in known.group_by("set", maintain_order=True)]
    standardised = [rows for rows in by_set if rows is not None]
    if known.filter("own").is_empty():
        return Figure(None, f"no scored {what}")
    table = pl.concat(standardised) if standardised else known.clear()
    mine, others = table.filter("own"), table.filter(~pl.col("own"))
    x, y = _numbers(others, "reference"), _numbers(others, "score")
    if mine.is_empty() or len(others) < 2 or _constant(x):
        return Figure(None, f"too little beside the {what} to compare with")
    slope = float(np.cov(x, y)[0, 1] / np.var(x, ddof=1))
    expected = y.mean() + slope * (_numbers(mine, "reference") - x.mean())
    return Figure(float(np.mean(_numbers(mine, "score") - expected)))


def _standardised(rows: pl.DataFrame) -> pl.DataFrame | None:
    """One set's rows with both columns of mean 0 and deviation 1, unless one is constant."""
    columns = {}
    for name in ("score", "reference"):
        numbers = _scaled(_numbers(rows, name))
        if len(numbers) < 2 or _constant(numbers):
            return None
        columns[name] = (numbers - numbers.mean()) / numbers.std()
    return pl.DataFrame({"own": rows["own"], **columns})


def self_preference_gap_pairs(pairs: pl.DataFrame) -> Figure:
    """Share of pairs a judge gives to its own answer, less the share the reference gives it.

    Over the scored pairs of exactly one answer of the judge's (column judge); a tie is half a pair.
    """
    own_a, own_b = (pl.col(f"model_{side}") == pl.col("judge") for side in "ab")
    return _gap_pairs(pairs, own_a, own_b, "pair of the judge's own answer and another's")


def family_preference_gap_pairs(pairs: pl.DataFrame) -> Figure:
    """The same for its family's answers against strangers', the judge's own being left out.

    Needs the columns judge, family_a, family_b and judge_family.
    """
    judge = pl.col("judge")
    foreign = pairs.filter(pl.col("model_a") != judge, pl.col("model_b") != judge)
    kin_a, kin_b = (pl.col(f"family_{side}") == pl.col("judge_family") for side in "ab")
    return _gap_pairs(foreign, kin_a, kin_b, "pair of the judge's family and another")


def _gap_pairs(pairs: pl.DataFrame, own_a: pl.Expr, own_b: pl.Expr, what: str) -> Figure:
    mixed = pairs.drop_nulls("verdict").with_columns(own_a=own_a, own_b=own_b)
    mixed = mixed.filter(pl.col("own_a") != pl.col("own_b"))
    if mixed.is_empty():
        return Figure(None, f"no scored {what}")
    points = [
        pl.col(name).replace_strict(_POINTS, return_dtype=pl.Float64)
        for name in ("verdict", "reference")
    ]
    for_a = points[0] - points[1]
    return _mean(mixed.select(pl.when("own_a").then(for_a).otherwise(-for_a)).to_series())


def score_entropy(scores: pl.DataFrame, column: str = "score") -> Figure:
    """Shannon entropy, in bits, of the different values of `column` over the scored rows.

    0 is a judge that always gives one score; LLaVA-Critic, Figure 2, shows such judges.
    """
    values = scores.drop_nulls("score")[column]
    if values.is_empty():
        return Figure(None, "no scored rows")
    return Figure(float(stats.entropy(values.value_counts()["count"].to_numpy(), base=2)) + 0.0)


def ranking_distance(rankings: pl.DataFrame) -> Figure:
    """The mean distance between the judge's ranking and the reference, 0 (equal) to 1.

    MLLM-as-a-Judge's batch ranking: Levenshtein distance divided by the longer one's length.
    """
    scored = rankings.drop_nulls("ranking")
    if scored.is_empty():
        return Figure(None, "no scored rankings")
    rows = scored.select("ranking", "reference").iter_rows()
    distances = [levenshtein(*row) / max(1, *map(len, row)) for row in rows]
    return Figure(float(np.mean(distances)))


def levenshtein(first: Sequence[str], second: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements that turn one sequence into the other."""
    above = list(range(len(second) + 1))
    for row, one in enumerate(first, start=1):
        line = [row]
        for column, other in enumerate(second, start=1):
            replaced = above[column - 1] + (one != other)
            line.append(min(above[column] + 1, line[-1] + 1, replaced))
        above = line
    return above[-1]


def _statistic(result: Any) -> Figure:
    # SciPy's results are tuples whose first entry is the statistic.
    return Figure(float(result[0]))


def _undefined(given: np.ndarray, reference: np.ndarray, rows: str, scores: str) -> str | None:
    if len(given) < 2:
        return f"fewer than two {rows}"
    if _constant(given):
        return f"the {scores} are all equal"
    if _constant(reference):
        return "the references are all equal"
    return None


def _constant(numbers: np.ndarray) -> bool:
    # Halved, since the difference of two large numbers may be no number.
    spread = numbers.max() / 2 - numbers.min() / 2
    return bool(spread <= _ROUNDING * np.abs(numbers).max())


def _scaled(numbers: np.ndarray) -> np.ndarray:
    """The numbers divided by the largest, so that no sum of squares overflows or vanishes."""
    largest = np.abs(numbers).max(initial=0.0)
    return numbers / largest if largest > 0 else numbers


def _numbers(table: pl.DataFrame, column: str) -> np.ndarray:
    return table[column].to_numpy().astype(float)


def _mean(values: pl.Series) -> Figure:
    return Figure(float(np.mean(values.to_numpy())))
