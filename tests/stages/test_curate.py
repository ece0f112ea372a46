"""Curate: which pairs are kept, at the thresholds and beside them."""

from __future__ import annotations

import random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from peeralign.records import CANDIDATE_SCHEMA, JUDGMENT_SCHEMA, PAIR_SCHEMA, REWARD_SCHEMA
from peeralign.stages.aggregate import AggregateConfig, aggregate
from peeralign.stages.curate import CurateConfig, anchors, best_and_worst, curate
from peeralign.stages.generate import answer_id

OPEN = CurateConfig(min_chosen_reward=0.0, min_margin=0.0)


def rewards(*rows: tuple[str, str, float | None]) -> pl.DataFrame:
    """Rewards from (question, answer, reward); an answer's text is its id in capitals."""
    return drawn_rewards(*((*row, 1) for row in rows))


def drawn_rewards(*rows: tuple[str, str, float | None, int]) -> pl.DataFrame:
    """The same from (question, answer, reward, number of draws)."""
    full = [(q, name, name.upper(), draws, reward, 0.0, 3) for q, name, reward, draws in rows]
    return pl.DataFrame(full, schema=REWARD_SCHEMA, orient="row")


def sides(pairs: pl.DataFrame) -> dict[str, tuple[str, str]]:
    columns = pairs.select("question_id", "chosen", "rejected")
    return {question: (chosen, rejected) for question, chosen, rejected in columns.iter_rows()}


def test_best_against_worst() -> None:
    table = rewards(
        ("q", "a", 0.6), ("q", "b", 0.9), ("q", "c", 0.3), ("r", "d", 0.2), ("r", "e", 1.0)
    )
    pairs = curate(table, OPEN)
    assert pairs.schema == PAIR_SCHEMA
    assert sides(pairs) == {"q": ("B", "C"), "r": ("E", "D")}
    q = pairs.row(by_predicate=pl.col("question_id") == "q", named=True)
    assert (q["chosen_answer_id"], q["rejected_answer_id"]) == ("b", "c")
    assert (q["chosen_reward"], q["rejected_reward"]) == (0.9, 0.3)
    assert pairs["id"].n_unique() == 2


@pytest.mark.parametrize(
    ("chosen", "rejected", "kept"),
    [
        (0.85, 0.1, True),  # both at the threshold
        (1.0, 0.25, True),
        (0.95, 0.2, True),
        ((1.0 + 1.0 + 0.55) / 3, 0.1, True),
        (0.8499, 0.0, False),
        (1.0, 0.2501, False),
        (0.84, 0.8, False),
    ],
)
def test_thresholds_are_inclusive(chosen: float, rejected: float, kept: bool) -> None:
    table = rewards(("q", "a", chosen), ("q", "b", rejected))
    assert len(curate(table, CurateConfig())) == kept


def test_a_margin_met_on_paper_is_met_in_floating_point() -> None:
    assert 0.7 - 0.4 < 0.3
    table = rewards(("q", "a", 0.7), ("q", "b", 0.4))
    assert len(curate(table, CurateConfig(min_chosen_reward=0.7, min_margin=0.3))) == 1


def test_the_paper_s_thresholds_are_the_defaults() -> None:
    assert (CurateConfig().min_chosen_reward, CurateConfig().min_margin) == (0.85, 0.75)


@pytest.mark.parametrize(
    "values",
    [
        [0.8],
        [0.8, 0.8],
        [0.8, 0.8, 0.8],
        [0.8, None],
        [None, None],
        [0.1 + 0.2, 0.3],  # equal but for the last bit
        [0.3, 0.1 + 0.2],
    ],
)
def test_no_difference_no_pair(values: list[float | None]) -> None:
    table = rewards(*(("q", f"a{place}", value) for place, value in enumerate(values)))
    assert curate(table, OPEN).is_empty()


def test_ties_go_to_the_smaller_id_and_never_to_one_answer_twice() -> None:
    table = rewards(
        *(("q", name, value) for name, value in zip("dcba", [0.9, 0.9, 0.3, 0.3], strict=True))
    )
    for seed in range(10):
        shuffled = table.sample(fraction=1, shuffle=True, seed=seed)
        assert sides(curate(shuffled, OPEN)) == {"q": ("C", "A")}


def test_unscored_answers_are_neither_best_nor_worst() -> None:
    table = rewards(("q", "a", None), ("q", "b", 0.9), ("q", "c", 0.5), ("q", "d", None))
    assert sides(curate(table, OPEN)) == {"q": ("B", "C")}


def test_answers_equal_after_normalising_are_one() -> None:
    """Through aggregate: "Red" and " red" share their judgment, so they cannot be a pair."""
    texts = ["Red", " red", "RED\n"]
    drawn = pl.DataFrame(
        [
            (f"c{place}", "q", answer_id("q", text), "ada", place, "clean", text, 1, None)
            for place, text in enumerate(texts)
        ],
        schema=CANDIDATE_SCHEMA,
        orient="row",
    )
    name = answer_id("q", "red")
    judged = pl.DataFrame(
        [("j", "q", name, "ben", 1.0, None, None, None, "")], schema=JUDGMENT_SCHEMA, orient="row"
    )
    table = aggregate(drawn, judged, AggregateConfig())
    assert table.select("answer_id", "text", "reward").rows() == [(name, "Red", 1.0)]
    assert curate(table, OPEN).is_empty()


MANY = rewards(
    *(
        row
        for number in range(40)
        for row in ((f"q{number}", f"g{number}", 1.0), (f"q{number}", f"b{number}", 0.2))
    )
)


def test_a_round_stops_at_the_asked_number_of_pairs() -> None:
    everything = curate(MANY, CurateConfig())
    assert len(everything) == 40
    few = curate(MANY, CurateConfig(max_pairs=7))
    assert_frame_equal(few, everything.head(7))
    assert len(curate(MANY, CurateConfig(max_pairs=100))) == 40


def test_the_order_of_the_rows_does_not_matter() -> None:
    expected = curate(MANY, CurateConfig(max_pairs=11))
    for seed in range(5):
        shuffled = MANY.sample(fraction=1, shuffle=True, seed=seed)
        assert_frame_equal(curate(shuffled, CurateConfig(max_pairs=11)), expected)


def test_no_rewards_no_pairs() -> None:
    empty = rewards()
    assert curate(empty, CurateConfig()).schema == PAIR_SCHEMA
    assert curate(empty, CurateConfig()).is_empty()
    assert best_and_worst(empty).is_empty()
    assert anchors(empty, curate(empty, OPEN), CurateConfig(anchor_share=1.0)).is_empty()


# Four questions with a pair, and six whose answers are too close for one.
AGREED = rewards(
    *(row for n in range(4) for row in ((f"p{n}", f"x{n}", 1.0), (f"p{n}", f"y{n}", 0.2))),
    *(row for n in range(4) for row in ((f"k{n}", f"r{n}", 0.95), (f"k{n}", f"s{n}", 0.9))),
    ("k4", "r4", 0.85),
    ("k5", "r5", 0.84),
)


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.7, 2), (9.0, 5)])
def test_anchors_are_limited_by_the_pairs(share: float, number: int) -> None:
    config = CurateConfig(anchor_share=share)
    pairs = curate(AGREED, config)
    assert len(pairs) == 4
    kept = anchors(AGREED, pairs, config)
    assert kept.columns == ["question_id", "text"]
    # The first by answer id; never a question with a pair, never one below the threshold.
    expected = [(f"k{n}", f"R{n}") for n in range(number)]
    assert kept.rows() == expected


def test_a_question_whose_pair_was_not_needed_can_anchor() -> None:
    config = CurateConfig(anchor_share=1.0, max_pairs=1)
    pairs = curate(AGREED, config)
    (paired,) = pairs["question_id"]
    kept = anchors(AGREED, pairs, config)
    assert len(kept) == 1
    assert kept["question_id"][0] != paired


TIED = drawn_rewards(
    ("q", "a", 0.90, 1),
    ("q", "b", 0.88, 9),
    ("q", "c", 0.84, 20),
    ("q", "d", 0.40, 2),
    ("q", "e", 0.22, 6),
    ("q", "f", 0.20, 1),
)


def test_exact_ties_go_to_the_answer_drawn_most_often() -> None:
    table = drawn_rewards(
        ("q", "a", 0.9, 1), ("q", "b", 0.9, 5), ("q", "c", 0.2, 1), ("q", "d", 0.2, 3)
    )
    assert sides(curate(table, OPEN)) == {"q": ("B", "D")}


@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [(0.0, ("A", "F")), (0.02, ("B", "E")), (0.05, ("B", "E")), (0.06, ("C", "E"))],
)
def test_a_tolerance_widens_what_counts_as_a_tie(
    tolerance: float, expected: tuple[str, str]
) -> None:
    config = OPEN.model_copy(update={"tie_tolerance": tolerance})
    assert sides(curate(TIED, config)) == {"q": expected}


def test_thresholds_hold_for_the_answers_that_were_picked() -> None:
    # The best reward is 0.90, but the answer that is picked among the ties has 0.88.
    tied = OPEN.model_copy(update={"tie_tolerance": 0.05})
    assert len(curate(TIED, tied.model_copy(update={"min_chosen_reward": 0.88}))) == 1
    assert curate(TIED, tied.model_copy(update={"min_chosen_reward": 0.89})).is_empty()
    assert len(curate(TIED, tied.model_copy(update={"min_margin": 0.66}))) == 1
    assert curate(TIED, tied.model_copy(update={"min_margin": 0.67})).is_empty()


def test_when_all_answers_are_tied_there_is_no_pair() -> None:
    everything = OPEN.model_copy(update={"tie_tolerance": 1.0})
    assert curate(TIED, everything).is_empty()


def test_equal_draws_among_near_ties_go_to_the_smaller_id() -> None:
    table = drawn_rewards(
        ("q", "b", 0.9, 2), ("q", "a", 0.88, 2), ("q", "d", 0.22, 3), ("q", "e", 0.2, 3)
    )
    tied = OPEN.model_copy(update={"tie_tolerance": 0.02})
    assert sides(curate(table, OPEN)) == {"q": ("B", "E")}
    assert sides(curate(table, tied)) == {"q": ("A", "D")}


def test_the_pair_holds_the_rewards_of_the_answers_that_were_picked() -> None:
    pair = curate(TIED, OPEN.model_copy(update={"tie_tolerance": 0.05})).row(0, named=True)
    assert (pair["chosen_answer_id"], pair["chosen_reward"]) == ("b", 0.88)
    assert (pair["rejected_answer_id"], pair["rejected_reward"]) == ("e", 0.22)


def test_near_ties_that_meet_in_the_middle_are_no_pair() -> None:
    # Within 0.3 of the best and of the worst alike, "b" would be chosen and rejected.
    table = drawn_rewards(("q", "a", 1.0, 1), ("q", "b", 0.7, 5), ("q", "c", 0.4, 1))
    assert sides(curate(table, OPEN)) == {"q": ("A", "C")}
    assert curate(table, OPEN.model_copy(update={"tie_tolerance": 0.3})).is_empty()


def test_draws_do_not_make_an_unscored_answer_count() -> None:
    table = drawn_rewards(("q", "a", None, 99), ("q", "b", 0.9, 1), ("q", "c", 0.5, 1))
    tied = OPEN.model_copy(update={"tie_tolerance": 0.1})
    assert sides(curate(table, tied)) == {"q": ("B", "C")}


def test_an_anchor_is_the_answer_drawn_most_often_among_the_ties() -> None:
    table = AGREED.with_columns(
        num_draws=pl.when(pl.col("answer_id") == "s0").then(7).otherwise(1).cast(pl.Int32)
    )
    config = CurateConfig(anchor_share=0.5, tie_tolerance=0.05)
    kept = anchors(table, curate(table, config), config)
    # Ordered by answer id: r1 and r2 come before s0, so two anchors would leave it out.
    assert kept.rows() == [("k1", "R1"), ("k2", "R2")]
    everyone = config.model_copy(update={"anchor_share": 9.0})
    assert ("k0", "S0") in anchors(table, curate(table, everyone), everyone).rows()


def test_no_tolerance_below_zero() -> None:
    with pytest.raises(ValueError, match="tie_tolerance"):
        CurateConfig(tie_tolerance=-0.01)


def pick(answers: list[tuple[str, float, int]], tolerance: float) -> tuple[str, str] | None:
    """The rule in plain words, for one question of (answer, reward in hundredths, draws)."""
    best, worst = (f(reward for _, reward, _ in answers) for f in (max, min))
    near_best = [a for a in answers if best - a[1] <= tolerance]
    near_worst = [a for a in answers if a[1] - worst <= tolerance]
    chosen, rejected = (min(near, key=lambda a: (-a[2], a[0])) for near in (near_best, near_worst))
    # Whoever is picked on both sides is the same answer: a pair never prefers the lower reward.
    assert chosen == rejected or chosen[1] >= rejected[1]
    return (chosen[0], rejected[0]) if chosen[1] > rejected[1] else None


@pytest.mark.parametrize("tolerance", [0, 4, 20, 50])
def test_any_question_follows_the_rule(tolerance: int) -> None:
    rng = random.Random(tolerance)
    expected, rows = {}, []
    for number in range(200):
        answers = [
            (f"q{number}-{name}", rng.randrange(20, 101, 4), rng.randint(1, 4))
            for name in "abcdefgh"[: rng.randint(1, 8)]
        ]
        pair = pick(answers, tolerance)
        if pair:
            expected[f"q{number}"] = tuple(name.upper() for name in pair)
        rows += [(f"q{number}", name, reward / 100, draws) for name, reward, draws in answers]
    rng.shuffle(rows)
    config = OPEN.model_copy(update={"tie_tolerance": tolerance / 100})
    assert sides(curate(drawn_rewards(*rows), config)) == expected
    assert len(expected) > 20
