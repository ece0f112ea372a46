"""GQA: the answer, more or less as it stands."""

from __future__ import annotations

import pytest
from evals.golden import figures, parsed, scores


@pytest.mark.parametrize(
    ("prediction", "answer", "worth"),
    [
        ("yes", "yes", (1, 1, 1)),
        ("Yes", "yes", (0, 1, 1)),
        ("yes.", "yes", (0, 1, 0)),
        (" yes", "yes", (0, 1, 1)),
        ("t-shirt", "t shirt", (0, 0, 0)),
        ("t-shirt", "tshirt", (0, 1, 0)),
        ("the dog", "dog", (0, 0, 0)),
        ("dogs", "dog", (0, 0, 0)),
        ("fire truck", "fire truck", (1, 1, 1)),
        ("fire  truck", "fire truck", (0, 0, 0)),
        ("", "yes", (0, 0, 0)),
        (None, "no", (0, 0, 0)),
    ],
)
def test_golden(prediction: str | None, answer: str, worth: tuple[int, ...]) -> None:
    assert scores("gqa", prediction, answer=answer) == worth


def test_binary_and_open() -> None:
    rows = [
        {"prediction": "yes", "answer": "yes", "question_type": "verify"},
        {"prediction": "left", "answer": "right", "question_type": "choose"},
        {"prediction": "dog", "answer": "dog", "question_type": "query"},
        {"prediction": "cat", "answer": "cat", "question_type": "query"},
    ]
    found = figures("gqa", rows)
    assert (found["accuracy"], found["binary"], found["open"]) == (0.75, 0.5, 1)
    assert "binary" not in figures("gqa", rows[2:])


def test_a_text_is_always_read() -> None:
    assert parsed("gqa", "...", answer="yes") == ("parsed", "parsed", "parsed")
