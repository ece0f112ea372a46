"""MMHal-Bench: a judge's ratings and the share below 3."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake


def rows(ratings: list[float | None]) -> list[dict[str, Any]]:
    return [{"prediction": "words", "score": rating} for rating in ratings]


@pytest.mark.parametrize(
    ("ratings", "average", "rate"),
    [
        ([6], 6, 0),
        ([0], 0, 1),
        # 3 is without hallucination, if not informative.
        ([3], 3, 0),
        ([2], 2, 1),
        ([6, 0], 3, 0.5),
        ([5, 4, 3], 4, 0),
        ([2, 3], 2.5, 0.5),
        ([1, 1, 1, 5], 2, 0.75),
        # Without a rating: 0, and so a hallucination.
        ([None], 0, 1),
        ([6, None], 3, 0.5),
        ([2.5, 3.5], 3, 0.5),
    ],
)
def test_golden(ratings: list[float | None], average: float, rate: float) -> None:
    found = figures("mmhal", rows(ratings))
    assert found["score"] == found["average score"] == average
    assert found["hallucination rate"] == rate


def test_no_reply_hallucinates() -> None:
    found = figures("mmhal", [{"prediction": "", "score": 6}])
    assert (found["score"], found["hallucination rate"], found["parse_failure_rate"]) == (0, 1, 1)


def test_by_type_and_mistakes() -> None:
    given = [{**row, "category": kind} for row, kind in zip(rows([6, 2]), "ab", strict=True)]
    assert figures("mmhal", given)["by"]["category"] == {"a": 6.0, "b": 2.0}
    assert "no number from 0 to 6" in mistake("mmhal", rows([7]))
    assert "it has official" in mistake("mmhal", rows([6]), "lmms-eval")
