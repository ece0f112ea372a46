"""TextVQA: agreement with ten annotators, each left out in turn."""

from __future__ import annotations

import pytest
from evals.golden import figures, mistake, scores

from peeralign.evals.benchmarks.textvqa import agreement


@pytest.mark.parametrize(
    ("matches", "worth"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_each_annotator_is_left_out_in_turn(matches: int, worth: float) -> None:
    answers = ["stop"] * matches + [f"other {n}" for n in range(10 - matches)]
    assert agreement("stop", answers) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("prediction", "answer", "worth"),
    [
        ("Stop", "stop", (1, 1, 1)),
        ("the stop sign", "stop sign", (1, 1, 1)),
        ("stop.", "stop", (1, 1, 1)),
        ("Two", "2", (1, 1, 1)),
        ("none", "0", (1, 1, 1)),
        ("eleven", "11", (0, 0, 0)),
        ("dont walk", "don't walk", (1, 1, 1)),
        ("coca-cola", "coca cola", (1, 1, 1)),
        ("coca-cola", "cocacola", (0, 0, 0)),
        # A comma between letters goes, but is a blank in VLMEvalKit.
        ("ab,cd", "abcd", (1, 1, 0)),
        ("ab,cd", "ab cd", (0, 0, 1)),
        # The possessive is a word of its own, but in VLMEvalKit.
        ("joe's", "joe 's", (1, 1, 0)),
        # A final period after a digit goes, but not in VLMEvalKit.
        ("3.", "3", (1, 1, 0)),
        ("3.5", "3.5", (1, 1, 1)),
        ("1,000", "1000", (1, 1, 1)),
        ("it is a stop sign", "stop sign", (0, 0, 0)),
        ("", "stop", (0, 0, 0)),
    ],
)
def test_golden(prediction: str, answer: str, worth: tuple[int, ...]) -> None:
    assert scores("textvqa", prediction, answers=[answer] * 10) == worth


def test_three_of_ten_give_nine_tenths() -> None:
    row = {"prediction": "stop", "answers": ["Stop", "stop.", "the stop", *"abcdefg"]}
    assert figures("textvqa", [row])["score"] == 0.9


def test_an_empty_reply_matches_no_empty_answer() -> None:
    row = {"prediction": " ", "answers": [""] * 10}
    found = figures("textvqa", [row])
    assert (found["score"], found["parse_failure_rate"]) == (0, 1)


def test_officially_there_are_ten_answers() -> None:
    row = {"prediction": "stop", "answers": ["stop"] * 4}
    assert mistake("textvqa", [row]) == (
        "row 1 has 4 answers; TextVQA has 10 annotators, give all of them"
    )
    # Of the three others, all match.
    assert figures("textvqa", [row], "lmms-eval")["accuracy"] == 1
    assert figures("textvqa", [{**row, "answers": ["stop"] * 3}], "vlmevalkit")["score"] == 0.666667
