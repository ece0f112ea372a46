"""LLaVA-Bench: a judge's scores against the reference's."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake

PAIRS: list[tuple[list[tuple[float | None, float]], float]] = [
    ([(8, 10)], 80),
    ([(10, 8)], 125),
    ([(1, 10)], 10),
    # Of the sums, not the mean of the ratios (which would be 75).
    ([(10, 10), (1, 2)], 91.666667),
    ([(5, 5), (5, 5)], 100),
    ([(6, 8), (8, 8)], 87.5),
    ([(7.5, 10)], 75),
    # A reply without a score counts 0, the reference stays.
    ([(8, 8), (None, 8)], 50),
    ([(None, 8)], 0),
    ([(9, 9), (9, 10), (None, 5)], 75),
]


def rows(pairs: list[tuple[float | None, float]]) -> list[dict[str, Any]]:
    return [
        {"prediction": "words", "score": score, "reference_score": reference}
        for score, reference in pairs
    ]


@pytest.mark.parametrize(("pairs", "expected"), PAIRS)
@pytest.mark.parametrize("protocol", ["official", "lmms-eval", "vlmevalkit"])
def test_golden(pairs: list[tuple[float | None, float]], expected: float, protocol: str) -> None:
    assert figures("LLaVA-Bench", rows(pairs), protocol)["score"] == expected


def test_figures_and_kinds() -> None:
    kinds = ["conv", "detail", "conv"]
    given = rows([(8, 10), (6, 8), (4, 10)])
    found = figures(
        "llavabench", [{**row, "category": kind} for row, kind in zip(given, kinds, strict=True)]
    )
    assert found["relative score"] == 64.285714
    assert found["model score"] == 60
    assert found["reference score"] == 93.333333
    assert found["by"]["category"] == {"conv": 60.0, "detail": 75.0}


def test_mistakes() -> None:
    assert "no number from 1 to 10" in mistake("llavabench", rows([(0, 5)]))
    assert "'reference_score' outside 1 to 10" in mistake("llavabench", rows([(5, 11)]))
    two = {"prediction": "a", "score": [5, 6], "reference_score": 5}
    assert "no number from 1 to 10" in mistake("llavabench", [two])
