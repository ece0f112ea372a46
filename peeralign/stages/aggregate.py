"""Aggregate: the judges' scores of an answer become its reward."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.records import REWARD_SCHEMA


class AggregateConfig(BaseModel):
    """How the judges' scores are merged."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: Literal["mean", "min", "uncertainty_weighted"] = "mean"
    """"mean" (paper), "min", or "uncertainty_weighted": mean - penalty x variance over judges."""
    uncertainty_penalty: float = Field(default=1.0, ge=0)
    """The weight of the variance in "uncertainty_weighted" (lambda in Coste et al., 2024)."""


def aggregate(
    candidates: pl.DataFrame,
    judgments: pl.DataFrame,
    config: AggregateConfig,
    judges: Literal["all", "others", "self"] = "all",
) -> pl.DataFrame:
    """One reward per distinct answer (REWARD_SCHEMA), over the judges that scored it.

    Panel of Peers, sections 3.1 and 5.5: R_mu(y) = mean_i R_i(y), or the least, or the mean less
    `uncertainty_penalty` times the variance (population variance over the judges). With `judges`
    "others" or "self", each candidate is rewarded by its own set of judges, and equal candidates
    share the mean of their rewards. An answer that nobody scored has reward null.
    """
    usable = candidates.filter(pl.col("text").is_not_null()).sort("question_id", "answer_id", "id")
    scored = judgments.filter(pl.col("score").is_not_null()).select("answer_id", "judge", "score")
    # Which judges count for which candidate; with "all" that is the same for equal candidates.
    if judges == "all":
        key = ["answer_id"]
        votes = scored
    else:
        key = ["answer_id", "author"]
        same = pl.col("judge") == pl.col("author")
        authors = usable.select("answer_id", "author").unique(maintain_order=True)
        votes = authors.join(scored, on="answer_id").filter(same if judges == "self" else ~same)
    score = pl.col("score").sort_by("judge")
    merged = votes.group_by(key, maintain_order=True).agg(
        _merge(config, score).alias("reward"),
        score.var(ddof=0).alias("variance"),
        pl.len().cast(pl.Int32).alias("num_judges"),
    )
    if judges != "all":
        per_candidate = usable.select("answer_id", "author").join(merged, on=key)
        merged = per_candidate.group_by("answer_id", maintain_order=True).agg(
            pl.col("reward").mean(), pl.col("variance").mean(), pl.col("num_judges").max()
        )
    answers = usable.group_by("question_id", "answer_id", maintain_order=True).agg(
        pl.col("text").first(), pl.len().cast(pl.Int32).alias("num_draws")
    )
    return (
        answers.join(merged, on="answer_id", how="left", maintain_order="left")
        .with_columns(pl.col("num_judges").fill_null(0))
        .select(REWARD_SCHEMA.names())
        .cast(REWARD_SCHEMA)
    )


def _merge(config: AggregateConfig, score: pl.Expr) -> pl.Expr:
    if config.method == "mean":
        return score.mean()
    if config.method == "min":
        return score.min()
    return score.mean() - config.uncertainty_penalty * score.var(ddof=0)
