"""MM-Vet: the mean of a judge's scores."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake, worth


@pytest.mark.parametrize(
    ("prediction", "score", "expected", "read"),
    [
        ("x = 3", 0.0, 0.0, "parsed"),
        ("x = -1", 0.5, 0.5, "parsed"),
        ("x = -1", 1, 1.0, "parsed"),
        ("x", 0.1, 0.1, "parsed"),
        ("x", [0.2, 0.4], 0.3, "parsed"),
        ("x", [1, 1, 1, 1, 0.5], 0.9, "parsed"),
        # A run without a score counts as 0.
        ("x", [1, None], 0.5, "parsed"),
        ("x", [None, None], 0.0, "none"),
        ("x", None, 0.0, "none"),
        # Nobody can have judged a reply that is not there.
        (None, 1.0, 0.0, "none"),
        ("", 1.0, 0.0, "none"),
    ],
)
@pytest.mark.parametrize("protocol", ["official", "lmms-eval", "vlmevalkit"])
def test_golden(
    prediction: str | None, score: Any, expected: float, read: str, protocol: str
) -> None:
    found = worth("mmvet", prediction, {"score": score, "capabilities": ["rec"]}, protocol)
    assert (found.score, found.parsed) == (pytest.approx(expected), read)


def test_total_and_capabilities() -> None:
    rows = [
        {"prediction": "a", "score": 1.0, "capabilities": ["rec", "ocr"]},
        {"prediction": "b", "score": 0.4, "capabilities": "ocr,math"},
        {"prediction": "c", "score": None, "capabilities": ["rec"]},
    ]
    found = figures("MM-Vet", rows)
    assert found["score"] == found["total"] == 46.666667
    assert (found["rec"], found["ocr"], found["math"]) == (50, 70, 40)
    assert "know" not in found
    # Each set of several capabilities is a figure of its own.
    assert (found["rec_ocr"], found["ocr_math"]) == (100, 40)
    assert "std" not in found
    assert found["parse_failure_rate"] == 0.333333


def test_the_deviation_over_runs() -> None:
    rows = [
        {"prediction": "a", "score": [1.0, 0.0], "capabilities": ["rec"]},
        {"prediction": "b", "score": [0.5, None], "capabilities": ["rec"]},
        # Not read: 0 in every run.
        {"prediction": None, "score": [1.0, 1.0], "capabilities": ["rec"]},
        {"prediction": "d", "score": [0.5, 1.0], "capabilities": ["rec"]},
    ]
    found = figures("mmvet", rows)
    # Totals of 50 and 25.
    assert (found["total"], found["std"]) == (37.5, 12.5)
    # Runs of another number have no deviation.
    assert "std" not in figures("mmvet", [*rows, {**rows[0], "score": [1.0]}])


def test_mistakes() -> None:
    row = {"prediction": "a", "score": 1.1, "capabilities": ["rec"]}
    assert "has a 'score' outside 0 to 1" in mistake("mmvet", [row])
    assert "capability 'see'" in mistake("mmvet", [{**row, "score": 1, "capabilities": ["see"]}])
    assert "give a number" in mistake("mmvet", [{**row, "score": "1"}])
