"""Aggregate: the judges' scores of an answer become its reward."""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.records import REWARD_SCHEMA


class AggregateConfig(BaseModel):
    """How the judges' scores are merged."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: Literal["mean", "min", "uncertainty_weighted", "average_rank", "majority_vote"] = "mean"
    """"mean" (paper), "min", or "uncertainty_weighted": mean - penalty x variance over judges. The
    others look at each judge's order of a question's answers alone. "average_rank": the share of
    the other answers that an answer beats, mean over judges. "majority_vote": each judge votes for
    the best answer and against the worst; 1 if all vote for it, 0 if all vote against it, 0.5
    without votes. Ties share a place or a vote. curate's thresholds apply to these numbers."""
    uncertainty_penalty: float = Field(default=1.0, ge=0)
    """The weight of the variance in "uncertainty_weighted" (lambda in Coste et al., 2024)."""
    calibrate: Literal["none", "z"] = "none"
    """"z": a judge's scores become z-scores among all it gave in the round to questions of the
    category, so that lenient and strict judges weigh alike. A merged z becomes the reward Phi(z),
    the share of a normal distribution below it, to which curate's thresholds apply: 0.5 is average,
    0.84 a standard deviation better. Orders of answers (the last two methods) do not change."""


def aggregate(
    candidates: pl.DataFrame,
    judgments: pl.DataFrame,
    config: AggregateConfig,
    judges: Literal["all", "others", "self"] = "all",
    questions: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """One reward per distinct answer (REWARD_SCHEMA), over the judges that scored it.

    Panel of Peers, sections 3.1 and 5.5: R_mu(y) = mean_i R_i(y), or the least, or the mean less
    `uncertainty_penalty` times the variance (population variance over the judges), or merged over
    ranks. With `judges` "others" or "self", each candidate is rewarded by its own set of judges,
    and equal candidates share the mean of their rewards. An answer that nobody scored has reward
    null. `questions` (id, category) is needed for calibration by category; without it all are one.
    `variance` is that of the numbers that were merged: scores, z-scores, ranks or votes.
    """
    usable = candidates.filter(pl.col("text").is_not_null()).sort("question_id", "answer_id", "id")
    scored = _comparable(judgments.filter(pl.col("score").is_not_null()), config, questions)
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
    if config.calibrate == "z" and config.method not in _BY_RANK:
        merged = merged.with_columns(_share_below(merged["reward"]))
    answers = usable.group_by("question_id", "answer_id", maintain_order=True).agg(
        pl.col("text").first(), pl.len().cast(pl.Int32).alias("num_draws")
    )
    return (
        answers.join(merged, on="answer_id", how="left", maintain_order="left")
        .with_columns(pl.col("num_judges").fill_null(0))
        .select(REWARD_SCHEMA.names())
        .cast(REWARD_SCHEMA)
    )


_BY_RANK = ("average_rank", "majority_vote")


def _comparable(
    scored: pl.DataFrame, config: AggregateConfig, questions: pl.DataFrame | None
) -> pl.DataFrame:
    """(answer_id, judge, score), the scores as the method merges them."""
    # Rounding must not break ties of sums that differ only in the last bit.
    score = pl.col("score").round(9)
    if config.method == "average_rank":
        per_judge = ["question_id", "judge"]
        num = pl.len().over(per_judge)
        beaten = score.rank("average").over(per_judge) - 1
        # Nobody to beat, and nobody who is better.
        ranked = pl.when(num > 1).then(beaten / (num - 1)).otherwise(1.0)
        scored = scored.with_columns(ranked.alias("score"))
    elif config.method == "majority_vote":
        best, worst = score == score.max(), score == score.min()
        vote = (best / best.sum() - worst / worst.sum()).over("question_id", "judge")
        scored = scored.with_columns((0.5 + vote / 2).alias("score"))
    elif config.calibrate == "z":
        scored = _z_scores(scored, questions)
    return scored.select("answer_id", "judge", "score")


def _z_scores(scored: pl.DataFrame, questions: pl.DataFrame | None) -> pl.DataFrame:
    if questions is None:
        scored = scored.with_columns(category=pl.lit(""))
    else:
        categories = questions.select(question_id="id", category="category")
        scored = scored.join(categories, on="question_id", how="left", maintain_order="left")
    # In one order, so that a resumed run has the same last bits.
    scored = scored.sort("judge", "category", "question_id", "answer_id")
    score, group = pl.col("score"), ["judge", "category"]
    spread = score.std(ddof=0).over(group)
    away = score - score.mean().over(group)
    # A judge that gives one score to all says nothing.
    z = pl.when(spread > 1e-9).then(away / spread).otherwise(0.0)
    return scored.with_columns(z.alias("score"))


def _share_below(z: pl.Series) -> pl.Series:
    from scipy.special import ndtr

    return pl.Series(z.name, ndtr(z.to_numpy()), dtype=pl.Float64)


def _merge(config: AggregateConfig, score: pl.Expr) -> pl.Expr:
    if config.method == "min":
        return score.min()
    if config.method == "uncertainty_weighted":
        return score.mean() - config.uncertainty_penalty * score.var(ddof=0)
    return score.mean()
