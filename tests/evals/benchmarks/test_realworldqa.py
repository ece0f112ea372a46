"""RealWorldQA: options, and words and numbers."""

from __future__ import annotations

import pytest
from evals.golden import figures, mistake, scores, worth

CHOICES = ["The left one.", "The right one.", "Neither"]


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("B", (1, 1, 1)),
        ("B.", (1, 1, 1)),
        ("b", (1, 0, 0)),
        ("B) I think", (1, 1, 1)),
        ("The right one", (1, 0, 0)),
        ("The right one.", (1, 0, 1)),
        ("The answer is B", (1, 1, 1)),
        ("(A) or (B)", (0, 1, 0)),
        ("ABS", (0, 1, 0)),
        ("A", (0, 0, 0)),
        ("no idea", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_golden_options(prediction: str, expected: tuple[int, ...]) -> None:
    assert scores("realworldqa", prediction, answer="B", choices=CHOICES) == expected


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("4", "4", 1),
        ("4.", "4", 1),
        ("four", "4", 0),
        ("Yes", "yes", 1),
        (" Downhill ", "downhill", 1),
        ("Downhill road", "Downhill", 0),
        ("", "0", 0),
    ],
)
@pytest.mark.parametrize("protocol", ["official", "lmms-eval"])
def test_golden_words(prediction: str, answer: str, expected: int, protocol: str) -> None:
    assert worth("realworldqa", prediction, {"answer": answer}, protocol).score == expected


def test_failures_are_counted_of_all_rows() -> None:
    rows = [
        {"prediction": "(A) or (B)", "answer": "B", "choices": CHOICES},
        {"prediction": None, "answer": "4"},
        {"prediction": "4", "answer": "4"},
        {"prediction": "5", "answer": "4"},
    ]
    found = figures("realworldqa", rows)
    assert (found["score"], found["parse_failure_rate"]) == (0.25, 0.5)


def test_mistakes() -> None:
    row = {"prediction": "4", "answer": "4"}
    assert "has no 'choices'" in mistake("realworldqa", [row], "vlmevalkit")
    assert "A to C" in mistake("realworldqa", [{**row, "choices": CHOICES}])
