"""ChartQA: relaxed accuracy."""

from __future__ import annotations

import pytest
from evals.golden import figures, mistake, parsed, scores


@pytest.mark.parametrize(
    ("prediction", "answer", "worth"),
    [
        ("12", "12", (1, 1, 1)),
        # 12 and 0.12: a percentage is a hundredth.
        ("12", "12%", (0, 0, 0)),
        ("0.12", "12%", (1, 1, 1)),
        ("12.5%", "12%", (1, 1, 1)),
        # 5 % of 100 is still right, more is not.
        ("105", "100", (1, 1, 1)),
        ("105.1", "100", (0, 0, 0)),
        ("-95", "-100", (1, 1, 1)),
        ("95", "-100", (0, 0, 0)),
        # Thousands' commas make no number.
        ("1,000", "1000", (0, 0, 0)),
        ("1,000", "1,000", (1, 1, 1)),
        # Nothing is within 5 % of 0, which is compared as text.
        ("0", "0", (1, 1, 1)),
        ("0.0", "0", (0, 0, 0)),
        ("Yes", "yes", (1, 1, 1)),
        ("Yes.", "yes", (0, 0, 0)),
        ("about 12", "12", (0, 0, 0)),
        # A number may have blanks around it; a percentage and a text may not, officially.
        (" 12\n", "12", (1, 1, 1)),
        ("12% ", "12%", (0, 1, 1)),
        ("yes ", "yes", (0, 1, 1)),
    ],
)
def test_golden(prediction: str, answer: str, worth: tuple[int, ...]) -> None:
    assert scores("chartqa", prediction, answer=answer) == worth


def test_a_reply_may_match_any_answer() -> None:
    row = {"prediction": "grey", "answers": ["gray", "grey"]}
    assert figures("chartqa", [row])["score"] == 1
    assert figures("chartqa", [row], "vlmevalkit")["score"] == 1
    assert "lmms-eval compares with one" in mistake("chartqa", [row], "lmms-eval")


@pytest.mark.parametrize("prediction", [None, "", "  \n"])
def test_no_reply_is_wrong_and_not_read(prediction: str | None) -> None:
    assert scores("chartqa", prediction, answer="5") == (0, 0, 0)
    assert parsed("chartqa", prediction, answer="5") == ("none", "none", "none")


def test_the_halves_of_the_test_set() -> None:
    found = figures(
        "chartqa",
        [
            {"prediction": "1", "answer": "1", "split": "test_human"},
            {"prediction": "2", "answer": "1", "split": "test_human"},
            {"prediction": "1", "answer": "1", "split": "test_augmented"},
            {"prediction": None, "answer": "1", "split": "test_augmented"},
            {"prediction": "1", "answer": "1", "split": "test_augmented"},
        ],
    )
    assert found["score"] == found["relaxed_accuracy"] == 0.6
    assert found["relaxed_accuracy_human"] == 0.5
    assert found["relaxed_accuracy_augmented"] == 0.666667
    assert found["parse_failure_rate"] == 0.2
