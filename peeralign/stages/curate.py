"""Curate: the best and the worst answer of a question become a preference pair, or nothing."""

from __future__ import annotations

from typing import TypeVar

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
    tie_tolerance: float = Field(default=0.0, ge=0)
    """Stabiliser, not in the paper: rewards this close to the best (or to the worst) count as ties,
    and a tie goes to the answer drawn most often. 0 leaves exact ties only."""
    max_pairs: int | None = Field(default=None, ge=1)
    """Stop a round at this many pairs (paper: about 300,000); left out, every question is used."""
    anchor_share: float = Field(default=0.0, ge=0)
    """Stabiliser, not in the paper: up to this many anchors per pair, in every round's training.
    An anchor is a question without a pair whose best answer reaches min_chosen_reward: the panel
    agrees on it, and its answer is kept fresh by cross-entropy alone."""


Table = TypeVar("Table", pl.DataFrame, pl.LazyFrame)


def best_and_worst(rewards: Table, tie_tolerance: float = 0.0) -> Table:
    """Each question's chosen and rejected answer, with rewards.

    Answers within `tie_tolerance` of the highest (or the lowest) reward are tied; a tie goes to
    the answer drawn most often, then to the smaller answer id.
    """
    # Rounding makes ties of sums that differ only in the last bit.
    ranked = rewards.filter(pl.col("reward").is_not_null()).with_columns(pl.col("reward").round(9))
    ranked = ranked.sort(["num_draws", "answer_id"], descending=[True, False])
    ranked = ranked.sort("question_id", maintain_order=True)
    reward = pl.col("reward")
    tied_best = reward >= reward.max() - tie_tolerance - 1e-9
    tied_worst = reward <= reward.min() + tie_tolerance + 1e-9
    columns = []
    for side, tied in (("chosen", tied_best), ("rejected", tied_worst)):
        columns += [
            pl.col("text").filter(tied).first().alias(side),
            pl.col("answer_id").filter(tied).first().alias(f"{side}_answer_id"),
            reward.filter(tied).first().alias(f"{side}_reward"),
        ]
    return ranked.group_by("question_id", maintain_order=True).agg(columns)


def curate(rewards: pl.DataFrame, config: CurateConfig) -> pl.DataFrame:
    """Preference pairs (PAIR_SCHEMA) that reach both thresholds. Panel of Peers, section 3.3."""
    margin = pl.col("chosen_reward") - pl.col("rejected_reward")
    pairs = best_and_worst(rewards, config.tie_tolerance).filter(
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
    agreed = best_and_worst(rewards, config.tie_tolerance).filter(
        pl.col("chosen_reward") >= config.min_chosen_reward - 1e-9,
        ~pl.col("question_id").is_in(pairs["question_id"].implode()),
    )
    most = int(config.anchor_share * len(pairs))
    return (
        agreed.sort("chosen_answer_id")
        .head(most)
        .select("question_id", pl.col("chosen").alias("text"))
    )
