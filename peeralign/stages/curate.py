"""Curate: the best and the worst answer of a question become a preference pair, or nothing."""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.records import PAIR_SCHEMA, make_id


class CurateConfig(BaseModel):
    """Which pairs are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_chosen_reward: float = 0.85
    """The chosen answer's reward must reach this (paper: 0.85)."""
    min_margin: float = 0.75
    """Chosen minus rejected reward must reach this (paper: 0.75). Rewards of five axes start at
    0.2, so a margin of 0.75 already needs a chosen reward of 0.95."""
    max_pairs: int | None = Field(default=None, ge=1)
    """Stop a round at this many pairs (paper: about 300,000); None uses every question."""
    anchor_share: float = Field(default=0.0, ge=0)
    """Stabiliser, not in the paper: up to this many anchors per pair, in every round's training.
    An anchor is a question without a pair whose best answer reaches min_chosen_reward: the panel
    agrees on it, and its answer is kept fresh by cross-entropy alone."""


def best_and_worst(rewards: pl.DataFrame) -> pl.DataFrame:
    """Each question's highest- and lowest-rewarded answers; ties go to the smaller answer id."""
    ranked = rewards.filter(pl.col("reward").is_not_null()).sort("question_id", "answer_id")
    # Rounding makes ties of sums that differ only in the last bit.
    reward = pl.col("reward").round(9)
    best, worst = reward.arg_max(), reward.arg_min()
    columns = []
    for side, place in (("chosen", best), ("rejected", worst)):
        columns += [
            pl.col("text").get(place).alias(side),
            pl.col("answer_id").get(place).alias(f"{side}_answer_id"),
            reward.get(place).alias(f"{side}_reward"),
        ]
    return ranked.group_by("question_id", maintain_order=True).agg(columns)


def curate(rewards: pl.DataFrame, config: CurateConfig) -> pl.DataFrame:
    """Preference pairs (PAIR_SCHEMA) that reach both thresholds. Panel of Peers, section 3.3."""
    margin = pl.col("chosen_reward") - pl.col("rejected_reward")
    pairs = best_and_worst(rewards).filter(
        pl.col("chosen_answer_id") != pl.col("rejected_answer_id"),
        pl.col("chosen_reward") > pl.col("rejected_reward"),
        pl.col("chosen_reward") >= config.min_chosen_reward - 1e-9,
        margin >= config.min_margin - 1e-9,
    )
    ids = [
        make_id("pair", chosen, rejected)
        for chosen, rejected in pairs.select("chosen_answer_id", "rejected_answer_id").iter_rows()
    ]
    pairs = pairs.with_columns(pl.Series("id", ids, dtype=pl.String)).sort("id")
    return pairs.select(PAIR_SCHEMA.names()).cast(PAIR_SCHEMA).slice(0, config.max_pairs)


def anchors(rewards: pl.DataFrame, pairs: pl.DataFrame, config: CurateConfig) -> pl.DataFrame:
    """Questions the panel agrees on: (question_id, text), at most anchor_share per pair."""
    agreed = best_and_worst(rewards).filter(
        pl.col("chosen_reward") >= config.min_chosen_reward - 1e-9,
        ~pl.col("question_id").is_in(pairs["question_id"].implode()),
    )
    most = int(config.anchor_share * len(pairs))
    return (
        agreed.sort("chosen_answer_id")
        .head(most)
        .select("question_id", pl.col("chosen").alias("text"))
    )
