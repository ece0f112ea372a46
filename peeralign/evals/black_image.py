"""How much of a judge's verdict comes from the image: the same, judged with a black one instead.

A judge that says the same of a black image judges by the words alone, however well it agrees with
the reference. The tables are those of `agreement`, with the columns score_without_image,
verdict_without_image and ranking_without_image (null: not asked, or unscored).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from peeralign.evals import agreement
from peeralign.evals.agreement import Figure, Measure

NOT_ASKED = "no row has a verdict without the image"


def black_image_pearson(scores: pl.DataFrame) -> Figure:
    """Pearson's r between scores with and without the image, over the rows that have both.

    1 is a judge that does not need the image.
    """
    if (both := _both(scores, "score")) is None:
        return Figure(None, NOT_ASKED)
    found = agreement.pearson(both.with_columns(reference="score_without_image"))
    return found._replace(
        reason=found.reason and found.reason.replace("references", "scores without the image")
    )


def black_image_change(scores: pl.DataFrame) -> Figure:
    """Mean distance of the scores with and without the image, over the rows that have both.

    In standard deviations of these rows' scores with the image; 0 is a judge that does not need
    it. (Two independent normal scores of one mean and deviation are 1.13 apart.)
    """
    if (both := _both(scores, "score")) is None:
        return Figure(None, NOT_ASKED)
    pairs = both.select("score", "score_without_image").to_numpy()
    # Divided by the largest, so that no sum of squares overflows.
    pairs = pairs / (np.abs(pairs).max() or 1.0)
    given = pairs[:, 0]
    if len(given) < 2:
        return Figure(None, "fewer than two rows scored with and without the image")
    if np.ptp(given) <= 1e-12 * np.abs(given).max():
        return Figure(None, "the scores are all equal")
    return Figure(float(np.abs(given - pairs[:, 1]).mean() / given.std()))


def black_image_verdict_change(pairs: pl.DataFrame) -> Figure:
    """The share of verdicts that the black image changes, of the pairs that have both."""
    if (both := _both(pairs, "verdict")) is None:
        return Figure(None, NOT_ASKED)
    if both.is_empty():
        return Figure(None, "no pair is scored with and without the image")
    return Figure(float((both["verdict"] != both["verdict_without_image"]).to_numpy().mean()))


def without_image(measure: Measure, judged: str) -> Measure:
    """The measure of what the judge said of the black images; `judged` is the verdicts' column."""

    def measured(table: pl.DataFrame) -> Figure:
        if _both(table, judged) is None:
            return Figure(None, NOT_ASKED)
        return measure(table.with_columns(pl.col(f"{judged}_without_image").alias(judged)))

    return measured


def coverage_without_image(table: pl.DataFrame, judged: str) -> Figure:
    """The share of rows with a verdict without the image, if any has one."""
    if _both(table, judged) is None:
        return Figure(None, NOT_ASKED)
    return agreement.coverage(table[f"{judged}_without_image"])


def _both(table: pl.DataFrame, judged: str) -> pl.DataFrame | None:
    """The rows with a verdict with and without the image; None if nobody was asked without."""
    column = f"{judged}_without_image"
    if column not in table.columns or table[column].null_count() == len(table):
        return None
    return table.drop_nulls([judged, column])
