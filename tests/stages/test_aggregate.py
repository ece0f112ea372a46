"""Aggregate: rewards against numbers worked out by hand."""

from __future__ import annotations

from typing import Any, Literal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from peeralign.records import CANDIDATE_SCHEMA, JUDGMENT_SCHEMA, REWARD_SCHEMA
from peeralign.stages.aggregate import AggregateConfig, aggregate

Method = Literal["mean", "min", "uncertainty_weighted", "average_rank", "majority_vote"]


def candidates(*rows: tuple[str, str, str, str, str | None]) -> pl.DataFrame:
    """Candidates from (id, question, answer, author, text)."""
    full = [
        (name, question, answer, author, 0, "clean", text, 1, None if text else "empty answer")
        for name, question, answer, author, text in rows
    ]
    return pl.DataFrame(full, schema=CANDIDATE_SCHEMA, orient="row")


def judgments(*rows: tuple[str, str, str, float | None]) -> pl.DataFrame:
    """Judgments from (question, answer, judge, score)."""
    full = [
        (f"{answer}-{judge}", question, answer, judge, score, None, None, None, "raw")
        for question, answer, judge, score in rows
    ]
    return pl.DataFrame(full, schema=JUDGMENT_SCHEMA, orient="row")


def by_answer(rewards: pl.DataFrame) -> dict[str, tuple[Any, Any, int]]:
    columns = rewards.select("answer_id", "reward", "variance", "num_judges")
    return {answer: tuple(rest) for answer, *rest in columns.iter_rows()}


ONE = candidates(("c1", "q", "a", "ada", "red"))
THREE_SCORES = judgments(("q", "a", "ada", 0.6), ("q", "a", "ben", 0.8), ("q", "a", "cleo", 1.0))
VARIANCE = (0.2**2 + 0.0 + 0.2**2) / 3


@pytest.mark.parametrize(
    ("method", "penalty", "reward"),
    [
        ("mean", 1.0, 0.8),
        ("min", 1.0, 0.6),
        ("uncertainty_weighted", 1.0, 0.8 - 0.08 / 3),
        ("uncertainty_weighted", 0.5, 0.8 - 0.04 / 3),
        ("uncertainty_weighted", 0.0, 0.8),
    ],
)
def test_three_judges(method: Method, penalty: float, reward: float) -> None:
    config = AggregateConfig(method=method, uncertainty_penalty=penalty)
    table = aggregate(ONE, THREE_SCORES, config)
    assert table.schema == REWARD_SCHEMA
    assert table.select("question_id", "answer_id", "text").row(0) == ("q", "a", "red")
    assert by_answer(table)["a"] == (pytest.approx(reward), pytest.approx(VARIANCE), 3)


@pytest.mark.parametrize(
    ("method", "reward"), [("mean", 0.7), ("min", 0.6), ("uncertainty_weighted", 0.69)]
)
def test_a_missing_verdict_is_no_zero(method: Method, reward: float) -> None:
    scores = judgments(("q", "a", "ada", 0.6), ("q", "a", "ben", None), ("q", "a", "cleo", 0.8))
    table = aggregate(ONE, scores, AggregateConfig(method=method))
    assert by_answer(table)["a"] == (pytest.approx(reward), pytest.approx(0.01), 2)


def test_one_judge_alone_has_no_variance() -> None:
    scores = judgments(("q", "a", "ben", 0.6))
    table = aggregate(ONE, scores, AggregateConfig(method="uncertainty_weighted"))
    assert by_answer(table)["a"] == (pytest.approx(0.6), 0.0, 1)


@pytest.mark.parametrize("judges", ["all", "others", "self"])
@pytest.mark.parametrize("scores", [judgments(), judgments(("q", "a", "ada", None))])
def test_an_answer_nobody_scored_has_no_reward(
    judges: Literal["all", "others", "self"], scores: pl.DataFrame
) -> None:
    table = aggregate(ONE, scores, AggregateConfig(), judges)
    assert by_answer(table) == {"a": (None, None, 0)}


def test_draws_without_text_are_no_answers() -> None:
    table = aggregate(
        candidates(("c1", "q", "a", "ada", "red"), ("c2", "q", "none", "ada", None)),
        THREE_SCORES,
        AggregateConfig(),
    )
    assert table["answer_id"].to_list() == ["a"]


def test_equal_answers_are_one_row_with_the_first_candidate_s_wording() -> None:
    wordings = candidates(("c2", "q", "a", "ada", "RED"), ("c1", "q", "a", "ben", "Red"))
    assert aggregate(wordings, THREE_SCORES, AggregateConfig())["text"].to_list() == ["Red"]


# "a" was drawn twice by ada and once by ben; "b" by cleo alone; "c" by ada alone.
SHARED = candidates(
    ("c1", "q", "a", "ada", "red"),
    ("c2", "q", "a", "ada", "red"),
    ("c3", "q", "a", "ben", "red"),
    ("c4", "q", "b", "cleo", "blue"),
    ("c5", "r", "c", "ada", "two"),
)
SHARED_SCORES = judgments(
    ("q", "a", "ada", 0.2),
    ("q", "a", "ben", 0.6),
    ("q", "a", "cleo", 1.0),
    ("q", "b", "ada", 0.4),
    ("q", "b", "ben", None),
    ("q", "b", "cleo", 0.8),
    ("r", "c", "ada", 1.0),
    ("r", "c", "ben", 0.2),
    ("r", "c", "cleo", 0.6),
)


def test_all_judges() -> None:
    assert by_answer(aggregate(SHARED, SHARED_SCORES, AggregateConfig())) == {
        "a": (pytest.approx(0.6), pytest.approx(0.32 / 3), 3),
        "b": (pytest.approx(0.6), pytest.approx(0.04), 2),
        "c": (pytest.approx(0.6), pytest.approx(0.32 / 3), 3),
    }


@pytest.mark.parametrize("judges", ["all", "others", "self"])
@pytest.mark.parametrize("scores", [SHARED_SCORES, judgments()])
def test_draws_are_counted_over_all_authors(
    judges: Literal["all", "others", "self"], scores: pl.DataFrame
) -> None:
    table = aggregate(SHARED, scores, AggregateConfig(), judges)
    assert dict(table.select("answer_id", "num_draws").iter_rows()) == {"a": 3, "b": 1, "c": 1}


def test_others_judge_each_candidate() -> None:
    # "a": ada's two draws get (0.6 + 1.0) / 2 = 0.8, variance 0.04; ben's draw gets
    # (0.2 + 1.0) / 2 = 0.6, variance 0.16. Means over the three draws: 2.2 / 3 and 0.24 / 3.
    assert by_answer(aggregate(SHARED, SHARED_SCORES, AggregateConfig(), "others")) == {
        "a": (pytest.approx(2.2 / 3), pytest.approx(0.08), 2),
        "b": (pytest.approx(0.4), pytest.approx(0.0), 1),
        "c": (pytest.approx(0.4), pytest.approx(0.04), 2),
    }


def test_authors_judge_themselves() -> None:
    # "a": 0.2 for each of ada's draws, 0.6 for ben's.
    assert by_answer(aggregate(SHARED, SHARED_SCORES, AggregateConfig(), "self")) == {
        "a": (pytest.approx(1.0 / 3), pytest.approx(0.0), 1),
        "b": (pytest.approx(0.8), pytest.approx(0.0), 1),
        "c": (pytest.approx(1.0), pytest.approx(0.0), 1),
    }


def test_others_with_the_least_score() -> None:
    # "a": ada's draws min(0.6, 1.0), ben's min(0.2, 1.0).
    table = aggregate(SHARED, SHARED_SCORES, AggregateConfig(method="min"), "others")
    assert by_answer(table)["a"][0] == pytest.approx((0.6 + 0.6 + 0.2) / 3)


def test_an_author_that_could_not_judge_itself_leaves_the_others_draws() -> None:
    scores = SHARED_SCORES.filter(~((pl.col("answer_id") == "a") & (pl.col("judge") == "ada")))
    table = aggregate(SHARED, scores, AggregateConfig(), "self")
    assert by_answer(table)["a"] == (pytest.approx(0.6), pytest.approx(0.0), 1)


@pytest.mark.parametrize("judges", ["all", "others", "self"])
@pytest.mark.parametrize("calibrate", ["none", "z"])
@pytest.mark.parametrize(
    "method", ["mean", "min", "uncertainty_weighted", "average_rank", "majority_vote"]
)
def test_the_order_of_the_rows_does_not_matter(
    judges: Literal["all", "others", "self"], method: Method, calibrate: Literal["none", "z"]
) -> None:
    # Scores whose sums differ in the last bit when they are added in another order.
    names = ["ada", "ben", "cleo", "dora", "emil"]
    scores = [0.1, 0.7, 0.2, 0.6, 0.3]
    drawn = candidates(
        *(
            (f"c{number}{answer}", "q", answer, names[(number * step) % 5], answer)
            for step, answer in enumerate("abcd", start=1)
            for number in range(7)
        )
    )
    judged = judgments(
        *(
            ("q", answer, name, scores[(place + shift) % 5])
            for shift, answer in enumerate("abcd")
            for place, name in enumerate(names)
        )
    )
    config = AggregateConfig(method=method, calibrate=calibrate)
    expected = aggregate(drawn, judged, config, judges)
    for seed in range(10):
        table = aggregate(
            drawn.sample(fraction=1, shuffle=True, seed=seed),
            judged.sample(fraction=1, shuffle=True, seed=seed),
            config,
            judges,
        )
        assert_frame_equal(table, expected, check_exact=True)


FOUR = candidates(*((f"c{a}", "q", a, "ada", a) for a in "abcd"))


def test_average_rank_by_hand() -> None:
    given = {"ada": (0.9, 0.5, 0.5, 0.1), "ben": (0.2, 0.4, 0.6, 0.8)}
    rows = [
        ("q", answer, judge, score)
        for judge, scores in given.items()
        for answer, score in zip("abcd", scores, strict=True)
    ]
    table = aggregate(FOUR, judgments(*rows), AggregateConfig(method="average_rank"))
    # Places from below: ada 3, 1.5, 1.5, 0 of 3; ben 0, 1, 2, 3 of 3.
    expected = {"a": 1.5 / 3, "b": 1.25 / 3, "c": 1.75 / 3, "d": 1.5 / 3}
    for answer, reward in expected.items():
        assert by_answer(table)[answer][0] == pytest.approx(reward)


def test_ranks_hold_among_what_a_judge_scored() -> None:
    rows = judgments(
        ("q", "a", "ada", 0.4),
        ("q", "b", "ada", 0.2),
        ("q", "c", "ada", None),
        ("q", "c", "ben", 1),
    )
    found = by_answer(aggregate(FOUR, rows, AggregateConfig(method="average_rank")))
    assert [found[answer][0] for answer in "abcd"] == [1.0, 0.0, 1.0, None]
    assert [found[answer][2] for answer in "abcd"] == [1, 1, 1, 0]


def test_majority_vote_by_hand() -> None:
    given = {
        "ada": (0.9, 0.5, 0.3, 0.1),
        "ben": (0.8, 0.8, 0.3, 0.1),
        "cleo": (0.5, 0.5, 0.5, 0.5),
    }
    rows = [
        ("q", answer, judge, score)
        for judge, scores in given.items()
        for answer, score in zip("abcd", scores, strict=True)
    ]
    table = aggregate(FOUR, judgments(*rows), AggregateConfig(method="majority_vote"))
    # Votes for: a 1 + 1/2, b 1/2; against: d 2. Cleo has no best and no worst.
    expected = {"a": 0.5 + 1.5 / 6, "b": 0.5 + 0.5 / 6, "c": 0.5, "d": 0.5 - 2 / 6}
    for answer, reward in expected.items():
        assert by_answer(table)[answer][0] == pytest.approx(reward)


@pytest.mark.parametrize("method", ["average_rank", "majority_vote"])
def test_ranks_do_not_depend_on_the_scale_a_judge_uses(method: Method) -> None:
    def rewards(scale: float) -> list[float]:
        rows = [("q", a, "ada", scale * n) for n, a in enumerate("abcd")]
        table = aggregate(FOUR, judgments(*rows), AggregateConfig(method=method, calibrate="z"))
        return [by_answer(table)[answer][0] for answer in "abcd"]

    assert rewards(0.1) == rewards(0.001)
    assert rewards(0.1) == ([0, 1 / 3, 2 / 3, 1] if method == "average_rank" else [0, 0.5, 0.5, 1])


def test_z_scores_are_by_judge_and_category() -> None:
    answers_of = {"q1": "ab", "q2": "cd", "q3": "ef"}
    given = candidates(*((f"c{a}", q, a, "ada", a) for q, some in answers_of.items() for a in some))
    questions = pl.DataFrame({"id": ["q1", "q2", "q3"], "category": ["easy", "easy", "hard"]})
    scores = {
        "lenient": {"a": 0.9, "b": 0.8, "c": 0.9, "d": 0.8, "e": 0.6, "f": 0.4},
        "strict": {"a": 0.3, "b": 0.1, "c": 0.3, "d": 0.1, "e": 0.2, "f": 0.2},
    }
    question_of = {a: q for q, some in answers_of.items() for a in some}
    rows = judgments(
        *((question_of[a], a, judge, s) for judge, some in scores.items() for a, s in some.items())
    )
    config = AggregateConfig(calibrate="z")
    found = by_answer(aggregate(given, rows, config, questions=questions))
    # z is 1 or -1 everywhere but for the strict judge's hard question, where it says nothing.
    above = 0.8413447460685429
    assert found["a"][0] == pytest.approx(above)
    assert found["d"][0] == pytest.approx(1 - above)
    assert found["e"][0] == pytest.approx(0.6914624612740131)  # Phi(1/2)
    assert found["e"][1] == pytest.approx(0.25)
    # As one category, the hard question's scores are low for the lenient judge.
    pooled = by_answer(aggregate(given, rows, config))
    assert pooled["e"][0] < found["e"][0]


def test_calibration_makes_two_judges_weigh_alike() -> None:
    rows = judgments(
        *(("q", a, "lively", s) for a, s in zip("abcd", (0.2, 1.0, 0.2, 1.0), strict=True)),
        *(("q", a, "timid", s) for a, s in zip("abcd", (0.61, 0.6, 0.61, 0.6), strict=True)),
    )
    plain = by_answer(aggregate(FOUR, rows, AggregateConfig()))
    assert plain["b"][0] > plain["a"][0]
    even = by_answer(aggregate(FOUR, rows, AggregateConfig(calibrate="z")))
    assert [even[answer][0] for answer in "abcd"] == pytest.approx([0.5] * 4)
    assert even["a"][1] == pytest.approx(1.0)


@pytest.mark.parametrize("judges", ["all", "others", "self"])
@pytest.mark.parametrize("method", ["mean", "average_rank", "majority_vote"])
def test_nobody_scored_stays_null_however_it_is_merged(
    judges: Literal["all", "others", "self"], method: Method
) -> None:
    config = AggregateConfig(method=method, calibrate="z")
    table = aggregate(ONE, judgments(("q", "a", "ada", None)), config, judges)
    assert table.schema == REWARD_SCHEMA
    assert by_answer(table)["a"] == (None, None, 0)


def test_one_author_and_a_panel_of_judges() -> None:
    """Best of N: an author's draws, graded by judges that do not answer."""
    scores = judgments(*(("q", a, judge, 0.2 * n) for n, a in enumerate("abcd") for judge in "xy"))
    for judges in ("all", "others"):
        found = by_answer(aggregate(FOUR, scores, AggregateConfig(), judges))
        assert max(found, key=lambda answer: found[answer][0]) == "d"
        assert found["d"][2] == 2
