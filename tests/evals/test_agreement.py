"""Agreement of a judge with a reference: against SciPy, by hand, and where it is undefined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from peeralign.evals import agreement
from peeralign.evals.agreement import Figure
from peeralign.store.verdicts import PAIRS_SCHEMA, RANKINGS_SCHEMA, SCORES_SCHEMA


def scores(rows: list[dict[str, Any]]) -> pl.DataFrame:
    filled = [{"set": "all", "item": str(n), "model": "m", **row} for n, row in enumerate(rows)]
    table = pl.DataFrame(filled, schema=SCORES_SCHEMA)
    return table.with_columns(author=pl.coalesce("author", "model"))


def lists(given: list[float | None], reference: list[float], **columns: list[Any]) -> pl.DataFrame:
    rows = [{"score": s, "reference": r} for s, r in zip(given, reference, strict=True)]
    for name, values in columns.items():
        rows = [{**row, name: value} for row, value in zip(rows, values, strict=True)]
    return scores(rows)


def pairs(*rows: tuple[str, str | None, str], **columns: Any) -> pl.DataFrame:
    """Pairs of (two models' letters, verdict, reference), each of its own item."""
    filled = [
        {
            "set": "all",
            "item": str(number),
            "model_a": models[0],
            "model_b": models[1],
            "verdict": verdict,
            "reference": reference,
            **{name: values[number] for name, values in columns.items()},
        }
        for number, (models, verdict, reference) in enumerate(rows)
    ]
    return pl.DataFrame(filled, schema=PAIRS_SCHEMA)


def undefined(figure: Figure, reason: str) -> None:
    assert figure.value is None
    assert figure.reason is not None
    assert reason in figure.reason


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """60 coarse scores, so with ties, and a reference that they are correlated with."""
    generator = np.random.default_rng(0)
    reference = generator.integers(1, 6, 60).astype(float)
    return np.round(reference + generator.normal(0, 1.5, 60)), reference


def test_pearson_is_scipy_s(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    given, reference = drawn
    found = agreement.pearson(lists(given.tolist(), reference.tolist()))
    assert found.value == pytest.approx(stats.pearsonr(given, reference).statistic, abs=1e-12)


def test_pearson_of_numbers_near_the_largest_and_the_smallest() -> None:
    for scale in (1e308, 1e-300):
        table = lists([1.0 * scale, 0.5 * scale, -1.0 * scale], [3, 2, 1])
        plain = agreement.pearson(lists([1.0, 0.5, -1.0], [3, 2, 1]))
        assert agreement.pearson(table).value == pytest.approx(plain.value)
    large = lists([1.7e308, 1.7e308, 1.6e308, 1e307], [1, 2, 3, 4], model=list("aabc"))
    assert agreement.kendall_of_means(large).value == pytest.approx(-1.0)


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_perfect_and_reversed_judges(sign: int, expected: float) -> None:
    reference = [1.0, 2.0, 3.0, 5.0]
    table = lists([7 + 2 * sign * r for r in reference], reference, model=list("abcd"))
    assert agreement.pearson(table).value == pytest.approx(expected)
    assert agreement.kendall_of_means(table).value == pytest.approx(expected)


def test_unscored_rows_count_for_coverage_alone() -> None:
    with_gaps = lists([1, None, 2, None, 4], [1, 9, 3, -9, 2])
    without = lists([1, 2, 4], [1, 3, 2])
    assert agreement.pearson(with_gaps) == agreement.pearson(without)
    assert agreement.kendall_of_means(with_gaps) == agreement.kendall_of_means(without)
    assert agreement.score_entropy(with_gaps) == agreement.score_entropy(without)
    assert agreement.coverage(with_gaps["score"]).value == pytest.approx(3 / 5)


def test_kendall_of_means_by_hand() -> None:
    # Means 1.5, 3, 2 against 1, 3, 4: of three pairs of models, two agree and one does not.
    table = lists([1, 2, 3, 3, 2], [1, 1, 3, 3, 4], model=["a", "a", "b", "b", "c"])
    assert agreement.kendall_of_means(table).value == pytest.approx(1 / 3)


def test_kendall_is_tau_b_where_models_are_equal(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    given, reference = drawn
    expected = stats.kendalltau(given, reference).statistic
    assert agreement.kendall(given.tolist(), reference.tolist()).value == pytest.approx(expected)


def test_means_that_differ_by_rounding_are_equal() -> None:
    # One pair of models tied of three: tau-b is 2 / sqrt(2 * 3).
    found = agreement.kendall([0.1 + 0.2, 0.3, 0.9], [2, 1, 3])
    assert found.value == pytest.approx(2 / math.sqrt(6))


@pytest.mark.parametrize(
    ("given", "reference", "reason"),
    [
        ([3, 3, 3], [1, 2, 3], "scores are all equal"),
        ([0.1 + 0.2, 0.3, 0.3], [1, 2, 3], "scores are all equal"),
        ([0, 0], [1, 2], "scores are all equal"),
        ([1, 2, 3], [2, 2, 2], "references are all equal"),
        ([1, None, None], [1, 2, 3], "fewer than two scored rows"),
        ([None, None], [1, 2], "fewer than two scored rows"),
        ([], [], "fewer than two scored rows"),
    ],
)
def test_pearson_is_undefined(
    given: list[float | None], reference: list[float], reason: str
) -> None:
    undefined(agreement.pearson(lists(given, reference)), reason)


def test_kendall_is_undefined_of_one_model_and_of_equal_ones() -> None:
    undefined(agreement.kendall_of_means(lists([1, 2], [1, 2])), "fewer than two models")
    equal = lists([1, 1], [1, 2], model=["a", "b"])
    undefined(agreement.kendall_of_means(equal), "models' means are all equal")


def test_the_mean_over_sets_is_over_those_that_are_defined() -> None:
    table = lists([1, 2, 3, 2, 1, 5, 5], [1, 2, 3, 1, 2, 1, 2], set=list("xxxyyzz"))
    mean, by_set = agreement.over_sets(table, agreement.pearson)
    assert {name: figure.value for name, figure in by_set.items()} == pytest.approx(
        {"x": 1.0, "y": -1.0, "z": None}
    )
    assert mean.value == pytest.approx(0.0)
    undefined(agreement.over_sets(table[5:], agreement.pearson)[0], "scores are all equal")
    undefined(agreement.over_sets(table[:0], agreement.pearson)[0], "no rows")


def test_accuracies_by_hand() -> None:
    table = pairs(
        ("ab", "A", "A"),
        ("ab", "B", "A"),
        ("ab", "tie", "A"),
        ("ab", "tie", "tie"),
        ("ab", "B", "tie"),
        ("ab", None, "A"),
        ("ab", None, "tie"),
    )
    assert agreement.accuracy_with_ties(table).value == pytest.approx(2 / 5)
    # Three scored pairs whose reference decides; the judge's tie among them is wrong.
    assert agreement.accuracy_without_ties(table).value == pytest.approx(1 / 3)
    assert agreement.accuracy_both_decided(table).value == pytest.approx(1 / 2)
    strict = {"unscored_wrong": True}
    assert agreement.accuracy_with_ties(table, **strict).value == pytest.approx(2 / 7)
    assert agreement.accuracy_without_ties(table, **strict).value == pytest.approx(1 / 4)
    assert agreement.coverage(table["verdict"]).value == pytest.approx(5 / 7)


def test_accuracies_without_anything_to_be_right_about() -> None:
    silent = pairs(("ab", None, "A"), ("ab", None, "B"))
    undefined(agreement.accuracy_with_ties(silent), "no scored pairs")
    assert agreement.accuracy_with_ties(silent, unscored_wrong=True).value == 0.0
    ties = pairs(("ab", "A", "tie"))
    undefined(agreement.accuracy_without_ties(ties), "reference is no tie")
    undefined(agreement.accuracy_without_ties(ties, unscored_wrong=True), "reference is no tie")
    undefined(agreement.coverage(), "no rows")


def test_share_of_first_positions() -> None:
    table = pairs(("ab", "A", "B"), ("ab", "A", "A"), ("ab", "B", "tie"), ("ab", "tie", "A"))
    assert agreement.first_position_share(table).value == pytest.approx(2 / 3)
    assert agreement.first_position_share(table, "reference").value == pytest.approx(2 / 3)
    undefined(agreement.first_position_share(pairs(("ab", "tie", "A"))), "decided")


def test_order_consistency_by_hand() -> None:
    table = pairs(
        *(("ab", "A", "A"), ("ba", "B", "B")),  # the same winner
        *(("ab", "A", "A"), ("ba", "A", "B")),  # always the first
        *(("ab", "tie", "A"), ("ba", "tie", "B")),
        *(("ab", "tie", "A"), ("ba", "A", "B")),
        *(("ab", "A", "A"), ("ba", None, "B")),
        ("ab", "A", "A"),
    ).with_columns(item=pl.Series([str(n // 2) for n in range(11)]))
    assert len(agreement.both_orders(table)) == 4
    assert agreement.order_consistency(table).value == pytest.approx(2 / 4)
    undefined(agreement.order_consistency(table[::2]), "both orders")


def test_two_answers_of_one_model_are_told_apart_by_their_texts() -> None:
    texts = {"answer_a": ["p", "q"], "answer_b": ["q", "p"]}
    table = pairs(("aa", "A", "A"), ("aa", "B", "B"), **texts).with_columns(item=pl.lit("0"))
    assert agreement.order_consistency(table).value == 1.0
    undefined(agreement.order_consistency(table.drop("answer_a", "answer_b")), "both orders")


def test_length_correlation_is_scipy_s() -> None:
    answers = ["a", "aaaa", "aa", "aaa", None]
    table = lists([1, 5, 2, 2, 9], [3, 1, 2, 4, 0], answer=answers)
    expected = stats.spearmanr([1, 5, 2, 2], [1, 4, 2, 3]).statistic
    assert agreement.length_correlation(table).value == pytest.approx(expected)
    expected = stats.spearmanr([3, 1, 2, 4], [1, 4, 2, 3]).statistic
    assert agreement.length_correlation(table, "reference").value == pytest.approx(expected)
    undefined(agreement.length_correlation(lists([1, 2], [1, 2])), "fewer than two")
    equal = lists([1, 2], [1, 2], answer=["aa", "bb"])
    undefined(agreement.length_correlation(equal), "lengths are all equal")


def test_longer_answers_that_win() -> None:
    texts = {"answer_a": ["aa", "a", "aa", "aa", "aa"], "answer_b": ["b", "bb", "bb", "b", None]}
    rows = [("ab", "A", "B"), ("ab", "A", "B"), ("ab", "A", "A"), ("ab", "tie", "A")]
    table = pairs(*rows, ("ab", "A", "A"), **texts)
    assert agreement.longer_wins(table).value == pytest.approx(1 / 2)
    assert agreement.longer_wins(table, "reference").value == pytest.approx(2 / 3)
    undefined(agreement.longer_wins(table[2:3]), "unequal lengths")


def biased(extra: float) -> pl.DataFrame:
    """A judge, a, that adds `extra` to its own scores; its own answers are better in truth too."""
    reference = [1.0, 2, 3, 4, 3, 4, 5]
    authors = ["b", "b", "c", "c", "a", "a", "a"]
    given = [2 * r + (extra if a == "a" else 0) for r, a in zip(reference, authors, strict=True)]
    return lists(given, reference, author=authors, judge=["a"] * 7)


def test_self_preference_is_what_the_reference_does_not_explain() -> None:
    assert agreement.self_preference_gap(biased(0)).value == pytest.approx(0.0, abs=1e-12)
    given = biased(3)["score"].to_numpy()
    # The line goes through the others' answers, so the gap is 3 points.
    found = agreement.self_preference_gap(biased(3)).value
    assert found == pytest.approx(3 / given.std())
    assert agreement.self_preference_gap(biased(-3)).value < 0  # type: ignore[operator]


def test_self_preference_is_undefined() -> None:
    nobody = lists([1, 2], [1, 2], author=["b", "c"])
    undefined(agreement.self_preference_gap(nobody), "no scored answers")
    undefined(agreement.self_preference_gap(lists([1, 2], [1, 2])), "no scored answers")
    alone = lists([1, 2], [1, 2], author=["a", "a"], judge=["a", "a"])
    undefined(agreement.self_preference_gap(alone), "too little")
    constant = lists([1, 1, 1], [1, 2, 3], author=list("abc"), judge=["a"] * 3)
    undefined(agreement.self_preference_gap(constant), "too little")


def test_family_preference_leaves_the_judge_s_own_answers_out() -> None:
    families = {"b": "kin", "c": "strange", "a": "kin"}
    reference = [1.0, 2, 3, 1, 2, 3, 2]
    authors = ["c", "c", "c", "b", "b", "b", "a"]
    given = [r + {"b": 2, "c": 0, "a": 50}[a] for r, a in zip(reference, authors, strict=True)]
    table = lists(given, reference, author=authors, judge=["a"] * 7)
    table = table.with_columns(
        family=pl.col("author").replace_strict(families), judge_family=pl.lit("kin")
    )
    others = np.array(given[:6])
    found = agreement.family_preference_gap(table).value
    assert found == pytest.approx(2 / others.std())


def test_preference_gaps_of_pairs_by_hand() -> None:
    rows = [("ab", "A", "B"), ("ba", "tie", "B"), ("bc", "A", "B"), ("aa", "A", "B")]
    table = pairs(*rows, ("ca", "B", "B"), ("ac", None, "B"), judge=["a"] * 6)
    # Own points 1, 1/2 and 1 against the reference's 0, 1 and 1.
    assert agreement.self_preference_gap_pairs(table).value == pytest.approx(0.5 / 3)
    undefined(agreement.self_preference_gap_pairs(table.with_columns(judge=None)), "no scored pair")
    kin = table.with_columns(
        pl.lit("kin").alias("judge_family"),
        *(
            pl.col(f"model_{side}")
            .replace({"b": "kin", "a": "kin", "c": "far"})
            .alias(f"family_{side}")
            for side in "ab"
        ),
    )
    # b against c alone: the judge gives it the pair, the reference does not.
    assert agreement.family_preference_gap_pairs(kin).value == pytest.approx(1.0)


def test_entropy_of_scores() -> None:
    assert agreement.score_entropy(lists([1, 2, 3, 4], [1, 1, 1, 1])).value == pytest.approx(2.0)
    assert agreement.score_entropy(lists([5, 5, 5], [1, 2, 3])).value == 0.0
    table = lists([5, 5, 5], [1, 2, 2])
    expected = stats.entropy([1, 2], base=2)
    assert agreement.score_entropy(table, "reference").value == pytest.approx(expected)
    undefined(agreement.score_entropy(lists([None], [1])), "no scored rows")


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("ABCD", "ABCD", 0), ("ABCD", "DCBA", 4), ("ABCD", "BACD", 2), ("ABC", "", 3), ("", "", 0)],
)
def test_levenshtein(first: str, second: str, distance: int) -> None:
    assert agreement.levenshtein(list(first), list(second)) == distance
    assert agreement.levenshtein(second, first) == distance


def test_distance_of_rankings_by_hand() -> None:
    rows = [("CDAB", "CDAB"), ("DCBA", "ABCD"), ("ABC", "ABCD"), ("", "AB"), (None, "AB")]
    table = pl.DataFrame(
        [
            {"set": "all", "item": str(n), "ranking": r and list(r), "reference": list(reference)}
            for n, (r, reference) in enumerate(rows)
        ],
        schema=RANKINGS_SCHEMA,
    ).with_columns(ranking=pl.when(pl.col("item") == "3").then([]).otherwise("ranking"))
    found = agreement.ranking_distance(table).value
    assert found == pytest.approx(np.mean([0, 1, 1 / 4, 1]))
    undefined(agreement.ranking_distance(table[4:]), "no scored rankings")
