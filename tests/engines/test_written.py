"""Scores read where a judge wrote them."""

from __future__ import annotations

import math
import re

import pytest

from peeralign.engines.written import WrittenToken, read_written
from peeralign.judging.verdict import Form

FORM = Form(("A", "B"), (1, 5))
WIDE = Form(("A",), (1, 10))


def tokens(
    raw: str, alternatives: dict[int, dict[str, float]] | None = None, pattern: str = r"\d|\D+"
) -> list[WrittenToken]:
    """`raw` cut by `pattern`; `alternatives` by the token's place, else it is certain."""
    pieces = re.findall(pattern, raw)
    assert "".join(pieces) == raw
    given = alternatives or {}
    return [
        WrittenToken(piece, {t: math.log(p) for t, p in given.get(n, {piece: 1.0}).items()})
        for n, piece in enumerate(pieces)
    ]


def test_the_expectation_is_over_the_labels_alone() -> None:
    read = tokens('{"A": 4, "B": 1}', {1: {"4": 0.5, " 5": 0.25, "9": 0.15, "the": 0.1}})
    verdict = read_written(read, FORM, "expected", 0.5)
    assert verdict.axes == pytest.approx([(4 * 0.5 + 5 * 0.25) / 0.75, 1.0])
    assert verdict.label_mass == pytest.approx(0.75)
    assert read_written(read, FORM, "expected", 0.8).axes is None
    assert read_written(read, FORM, "greedy", 0.5).axes == [4.0, 1.0]
    assert read_written(read, FORM, "text", 0.8).axes == [4.0, 1.0]


def test_scores_are_looked_up_in_the_verdict_and_not_in_the_talk_before_it() -> None:
    raw = 'The 2 of "A": 3, {"A": 2}. So {"x": {"A": 5}, "A": 3, "B": 1}'
    place = [token.text for token in tokens(raw)].index("3", 4)
    verdict = read_written(tokens(raw, {place: {"3": 0.5, "4": 0.5}}), FORM, "expected", 0.5)
    assert verdict.axes == [3.5, 1.0]


def test_keys_in_any_case_and_order_are_found() -> None:
    read = tokens('{"b" : 5, "a":2.0}', {1: {"5": 0.5, "4": 0.5}})
    assert read_written(read, FORM, "expected", 0.5).axes == [2.0, 4.5]


def test_a_letter_that_folds_into_two_does_not_shift_the_places() -> None:
    read = tokens('Straße ẞ ŉ: {"A": 2, "B": 1}', {1: {"2": 0.5, "3": 0.5}})
    assert read_written(read, FORM, "expected", 0.5).axes == [2.5, 1.0]


def test_a_score_that_is_not_one_token_has_no_expectation() -> None:
    read = tokens('{"A": 10}')
    assert read_written(read, WIDE, "expected", 0.5).reason == (
        "a score is not one token of the reply"
    )
    assert read_written(read, WIDE, "greedy", 0.5).axes == [10.0]


def test_a_first_digit_that_may_stand_for_ten_has_no_expectation() -> None:
    read = tokens('{"A": 7}', {1: {"7": 0.6, "1": 0.4}})
    assert "first digit has two meanings" in str(read_written(read, WIDE, "expected", 0.5).reason)
    assert read_written(read, WIDE, "greedy", 0.5).axes == [7.0]
    whole = tokens('{"A": 7}', {1: {"7": 0.5, "1": 0.25, "10": 0.25}})
    assert read_written(whole, WIDE, "expected", 0.5).axes == pytest.approx([6.25])
    unlikely = tokens('{"A": 7}', {1: {"7": 0.999, "1": 0.001}})
    assert read_written(unlikely, WIDE, "expected", 0.5).axes == pytest.approx([6.994])


def test_no_probability_on_any_label_is_never_a_score() -> None:
    read = tokens('{"A": 4, "B": 1}', {1: {"four": 1.0}})
    verdict = read_written(read, FORM, "expected", 0.0)
    assert verdict.axes is None
    assert verdict.label_mass == 0.0


def test_a_logprob_a_little_above_zero_is_certainty() -> None:
    read = [
        WrittenToken(t.text, dict.fromkeys(t.logprobs, 1e-3)) for t in tokens('{"A": 4, "B": 1}')
    ]
    assert read_written(read, FORM, "expected", 0.5).label_mass == 1.0


def test_an_unreadable_reply_keeps_its_reason() -> None:
    verdict = read_written(tokens("four, I think"), FORM, "expected", 0.5)
    assert (verdict.reason, verdict.raw) == ("no JSON object in the reply", "four, I think")


COMPARED = Form(("better",), (0, 1), choices=("A", "B", "tie"))
SAID = Form(("better",), (0, 1), choices=("A", "B", "tie"), mark="Verdict:")
BY_CHOICE = r'[A-Za-z]+|"|[^A-Za-z"]+'


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        ('{"better": "A"}', COMPARED),
        ('A B? {"Better" : "A", "reason": "A, not B"}', COMPARED),
        ("Verdict: A", SAID),
        ("A or B? **Verdict:** A. Not B.", SAID),
        # What a schema makes of a rubric that asks for a mark.
        ('{"better": "A"}', SAID),
    ],
)
def test_a_choice_is_weighed_where_it_was_written(raw: str, form: Form) -> None:
    pieces = [token.text for token in tokens(raw, pattern=BY_CHOICE)]
    start = next(n for n, piece in enumerate(pieces) if piece in ("better", "Better", "Verdict"))
    place = pieces.index("A", start)
    read = tokens(raw, {place: {"A": 0.5, ' "B': 0.25, "TIE": 0.15, "x": 0.1}}, BY_CHOICE)
    verdict = read_written(read, form, "expected", 0.5)
    assert verdict.axes == pytest.approx([(0.5 + 0.15 / 2) / 0.9])
    assert verdict.shares == pytest.approx([0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9])
    assert verdict.label_mass == pytest.approx(0.9)
    assert verdict.raw == raw
    greedy = read_written(read, form, "greedy", 0.5)
    assert (greedy.axes, greedy.shares) == ([1.0], verdict.shares)
    assert read_written(read, form, "expected", 0.95).axes is None


def test_a_token_that_only_begins_a_label_hides_its_weight() -> None:
    read = tokens('{"better": "A"}', {6: {"A": 0.6, "t": 0.4}}, BY_CHOICE)
    assert read[6].text == "A"
    verdict = read_written(read, COMPARED, "expected", 0.5)
    assert "label in several tokens" in str(verdict.reason)
    assert read_written(read, COMPARED, "greedy", 0.5).axes == [1.0]
    whole = tokens('{"better": "A"}', {6: {"A": 0.6, "t": 0.1, "tie": 0.3}}, BY_CHOICE)
    assert read_written(whole, COMPARED, "expected", 0.5).axes == pytest.approx([0.75 / 0.9])
    written = tokens('{"better": "tie"}', pattern=r"t|ie|[^t]+?(?=t|$)|.")
    assert read_written(written, COMPARED, "expected", 0.5).reason == (
        "a score is not one token of the reply"
    )
    assert read_written(written, COMPARED, "greedy", 0.5).axes == [0.5]


def test_a_score_behind_a_mark_is_weighed() -> None:
    form = Form(("score",), (1, 5), mark="Score:", reason="first")
    read = tokens("4 of 5 hold. Score: 3", {4: {"3": 0.5, "4": 0.5}})
    assert read[4].text == "3"
    assert read_written(read, form, "expected", 0.5).axes == [3.5]
