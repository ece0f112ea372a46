"""What a judge says of black images: by hand, where nobody asked, and where it is undefined."""

from __future__ import annotations

import polars as pl
import pytest
from evals.test_agreement import lists, pairs, undefined

from peeralign.evals import agreement
from peeralign.evals.agreement import Figure
from peeralign.evals.black_image import (
    NOT_ASKED,
    black_image_change,
    black_image_pearson,
    black_image_verdict_change,
    coverage_without_image,
    without_image,
)

REFERENCE = [1.0, 2.0, 3.0, 4.0]


def judged(given: list[float | None], black: list[float | None]) -> pl.DataFrame:
    return lists(given, REFERENCE[: len(given)], score_without_image=black)


def test_a_judge_that_does_not_look() -> None:
    table = judged([2, 4, 3, 5], [2, 4, 3, 5])
    assert black_image_pearson(table).value == pytest.approx(1.0)
    assert black_image_change(table).value == 0.0
    blind = without_image(agreement.pearson, "score")
    assert blind(table).value == pytest.approx(agreement.pearson(table).value)


def test_a_judge_that_looks() -> None:
    # Each score moves by 1; their deviation is 1 for two of 2 and two of 4.
    table = judged([2, 4, 2, 4], [3, 3, 3, 5])
    assert black_image_change(table).value == pytest.approx(1.0)
    assert black_image_pearson(table).value == pytest.approx(1 / 3**0.5)
    assert without_image(agreement.pearson, "score")(table).value == pytest.approx(0.7745967)


def test_changes_do_not_depend_on_the_scale() -> None:
    for scale in (1e308, 1e-300, 20.0):
        table = judged([0.2 * scale, 0.4 * scale], [0.3 * scale, 0.3 * scale])
        assert black_image_change(table).value == pytest.approx(1.0)


def test_only_rows_with_both_count() -> None:
    table = judged([2, None, 4, 9], [3, 1, 3, None])
    assert black_image_change(table).value == pytest.approx(1.0)
    # What was said without the image counts by itself, too.
    blind = without_image(agreement.pearson, "score")
    assert blind(table).value == pytest.approx(agreement.pearson(lists([3, 1, 3], [1, 2, 3])).value)
    assert coverage_without_image(table, "score") == Figure(3 / 4)


def test_verdicts() -> None:
    table = pairs(
        *(("ab", "A", "A"), ("ab", "B", "A"), ("ab", "tie", "A"), ("ab", None, "B")),
        *(("ab", "A", "tie"), ("ab", "A", "B")),
        verdict_without_image=["A", "A", "B", "B", "A", None],
    )
    # B to A and tie to B, of four.
    assert black_image_verdict_change(table) == Figure(0.5)
    accuracy = without_image(agreement.accuracy_without_ties, "verdict")
    assert accuracy(table) == Figure(3 / 4)
    assert coverage_without_image(table, "verdict") == Figure(5 / 6)


def test_nobody_asked() -> None:
    table, compared = lists([1, 2], [1, 2]), pairs(("ab", "A", "A"))
    for figure in (
        black_image_pearson(table),
        black_image_change(table),
        without_image(agreement.pearson, "score")(table.drop("score_without_image")),
        coverage_without_image(table, "score"),
        black_image_verdict_change(compared),
        without_image(agreement.accuracy_without_ties, "verdict")(compared),
    ):
        undefined(figure, NOT_ASKED)


def test_where_it_is_undefined() -> None:
    undefined(black_image_change(judged([3, 3], [1, 2])), "the scores are all equal")
    undefined(black_image_change(judged([3, None], [1, 2])), "fewer than two rows")
    undefined(black_image_pearson(judged([1, 2], [3, 3])), "the scores without the image are all")
    one_each = pairs(("ab", "A", "A"), ("ab", None, "A"), verdict_without_image=[None, "A"])
    undefined(black_image_verdict_change(one_each), "no pair is scored with and without")
