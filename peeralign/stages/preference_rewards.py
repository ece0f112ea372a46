"""Preference rewards: an answer's comparisons with the others become one number.

LLaVA-Critic, section 4.3, steps 2 and 3. a_ij is the score of answer y_j relative to y_i, where y_i
was shown first; r_i = sum_k a_ki - sum_l a_il.
"""

from __future__ import annotations

import polars as pl

from peeralign.records import REWARD_SCHEMA


def all_pairs(answers: pl.DataFrame) -> pl.DataFrame:
    """Every two answers to a question once, as `compare` takes them.

    `answers` has question_id, answer_id, text, one row an answer. Ids are digests, so which of two
    comes first has nothing to do with what they say.
    """
    first = answers.select("question_id", first_id="answer_id", first="text")
    second = answers.select("question_id", second_id="answer_id", second="text")
    return (
        first.join(second, on="question_id")
        .filter(pl.col("first_id") < pl.col("second_id"))
        .sort("question_id", "first_id", "second_id")
    )


def preference_rewards(candidates: pl.DataFrame, comparisons: pl.DataFrame) -> pl.DataFrame:
    """One reward r_i per distinct answer of `candidates` (REWARD_SCHEMA), the mean over critics.

    `comparisons` has COMPARISON_SCHEMA; those about answers not in `candidates` are left out. A
    pair with an unscored order is left out for that critic: the other order alone would count for
    what was shown second. We sum a - 1/2, which cancels where both orders were asked, so that a
    single order (`orders` "one") and a tie count as they should. Without any verdict the reward is
    null; `variance` is that over critics.
    """
    answered = candidates.filter(pl.col("text").is_not_null()).sort(
        "question_id", "answer_id", "id"
    )
    answers = answered.group_by("question_id", "answer_id", maintain_order=True).agg(
        pl.col("text").first(), pl.len().cast(pl.Int32).alias("num_draws")
    )
    by_critic = (
        _relative_scores(comparisons, answers["answer_id"])
        .group_by("answer_id", "judge")
        .agg(pl.col("share").sort_by("pair_id", "order").sum())
    )
    share = pl.col("share").sort_by("judge")
    merged = by_critic.group_by("answer_id").agg(
        share.mean().round(9).alias("reward"),
        share.var(ddof=0).alias("variance"),
        pl.len().cast(pl.Int32).alias("num_judges"),
    )
    return (
        answers.join(merged, on="answer_id", how="left", maintain_order="left")
        .with_columns(pl.col("num_judges").fill_null(0))
        .select(REWARD_SCHEMA.names())
        .cast(REWARD_SCHEMA)
    )


def _relative_scores(comparisons: pl.DataFrame, answer_ids: pl.Series) -> pl.DataFrame:
    """(answer_id, judge, pair_id, order, share): what each comparison adds to r_i and r_j.

    y_j, shown second, gains a_ij - 1/2, and y_i loses it. `preference` is for the first answer
    whatever was shown first, so it gains preference - 1/2 in either order, and the second loses it.
    """
    known = answer_ids.implode()
    whole = comparisons.filter(
        pl.col("first_id").is_in(known) & pl.col("second_id").is_in(known),
        pl.col("preference").null_count().over("pair_id", "judge") == 0,
    )
    kept = ("judge", "pair_id", "order")
    share = pl.col("preference") - 0.5
    return pl.concat(
        [
            whole.select(*kept, answer_id="first_id", share=share),
            whole.select(*kept, answer_id="second_id", share=-share),
        ]
    )
