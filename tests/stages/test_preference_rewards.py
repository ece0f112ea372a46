"""Preference rewards, by hand: three answers, both orders, what is unscored, ties."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from peeralign.records import CANDIDATE_SCHEMA, COMPARISON_SCHEMA, REWARD_SCHEMA
from peeralign.stages.preference_rewards import all_pairs, preference_rewards

Rows = list[dict[str, Any]]


def candidates(*names: str, question: str = "q") -> pl.DataFrame:
    rows = [
        {"id": f"{n}{i}", "question_id": question, "answer_id": n, "text": f"says {n}", "draw": i}
        for i, n in enumerate(names)
    ]
    return pl.DataFrame(rows, schema=CANDIDATE_SCHEMA)


def asked(first: str, second: str, *preferences: float | None, judge: str = "c") -> Rows:
    """The rows of one pair: what the critic prefers (1 is `first`) in order 0, then in order 1."""
    return [
        {"pair_id": first + second, "first_id": first, "second_id": second}
        | {"order": order, "judge": judge, "preference": value}
        for order, value in enumerate(preferences)
    ]


def rewards(names: str, *rows: Rows) -> dict[str, float | None]:
    table = pl.DataFrame([row for pair in rows for row in pair], schema=COMPARISON_SCHEMA)
    found = preference_rewards(candidates(*names), table)
    assert found.schema == REWARD_SCHEMA
    return dict(found.select("answer_id", "reward").iter_rows())


def test_three_answers_by_hand() -> None:
    # a_ij is y_j's score with y_i shown first: a_xy = 0, a_yx = 1 (x better in both orders);
    # a_xz = 0.5, a_zx = 1; a_yz = 1, a_zy = 1 (always what stands second).
    found = rewards("xyz", asked("x", "y", 1, 1), asked("x", "z", 0.5, 1), asked("y", "z", 0, 1))
    x = (1 + 1) - (0 + 0.5)
    y = (0 + 1) - (1 + 1)
    z = (0.5 + 1) - (1 + 1)
    assert found == {"x": x, "y": y, "z": z}


def test_a_critic_that_goes_by_the_order_alone_says_nothing() -> None:
    always_first = [asked(a, b, 1, 0) for a, b in ("xy", "xz", "yz")]
    assert rewards("xyz", *always_first) == {"x": 0, "y": 0, "z": 0}


def test_names_exchanged_is_the_same() -> None:
    one = rewards("xyz", asked("x", "y", 0.9, 0.6), asked("y", "z", 0.2, 0.3))
    # Shown in the same two orders, but the other one is called first.
    other = rewards("xyz", asked("y", "x", 0.4, 0.1), asked("z", "y", 0.7, 0.8))
    assert one == pytest.approx(other)


def test_an_unscored_order_leaves_the_pair_out_on_both_sides() -> None:
    found = rewards(
        "xyz", asked("x", "y", 1, None), asked("x", "z", 1, 1), asked("y", "z", None, 0)
    )
    assert found == {"x": 1, "y": None, "z": -1}


def test_one_order_alone_counts_ties_for_nobody() -> None:
    found = rewards("xyz", asked("x", "y", 1), asked("x", "z", 0.5), asked("y", "z", 0.5))
    assert found == {"x": 0.5, "y": -0.5, "z": 0}


def test_the_mean_over_critics_that_have_a_verdict() -> None:
    rows = [
        *asked("x", "y", 1, 1, judge="b"),
        *asked("x", "y", 0, 1),
        *asked("x", "y", None, 1, judge="d"),
    ]
    table = pl.DataFrame(rows, schema=COMPARISON_SCHEMA)
    found = preference_rewards(candidates("x", "y", "y"), table)
    assert found.select("answer_id", "num_draws", "reward", "variance", "num_judges").rows() == [
        ("x", 1, 0.5, 0.25, 2),
        ("y", 2, -0.5, 0.25, 2),
    ]


def test_answers_of_others_do_not_count() -> None:
    assert rewards("xy", asked("x", "y", 1, 1), asked("x", "w", 0, 0)) == {"x": 1, "y": -1}


def test_all_pairs_once_within_a_question() -> None:
    rows = [("q", "b"), ("q", "a"), ("q", "c"), ("p", "d"), ("p", "e"), ("o", "f")]
    answers = pl.DataFrame(rows, schema=["question_id", "answer_id"], orient="row")
    found = all_pairs(answers.with_columns(text="answer_id"))
    assert found.columns == ["question_id", "first_id", "first", "second_id", "second"]
    pairs = found.select(pl.col("first_id") + pl.col("second_id")).to_series().to_list()
    assert pairs == ["de", "ab", "ac", "bc"]
