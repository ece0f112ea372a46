"""Answers that are letters."""

from __future__ import annotations

import pytest

from peeralign.evals.benchmark import Graded
from peeralign.evals.options import graded_choice, letter_complaint
from peeralign.evals.reading.letters import Choice


def test_graded_choice() -> None:
    assert graded_choice(Choice("B", "parsed"), " b ") == Graded(1.0, "parsed", "B")
    assert graded_choice(Choice("A", "ambiguous"), "B") == Graded(0.0, "ambiguous", "A")
    assert graded_choice(Choice(None, "none"), "B") == Graded(0.0, "none", None)


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ({"answer": "B"}, None),
        ({"answer": "b", "choices": ["x", "y"]}, None),
        ({"answer": "C", "choices": ["x", "y"]}, "A to B"),
        ({"answer": "AB"}, "A to Z"),
        ({"answer": "0"}, "A to Z"),
        ({"answer": ""}, "A to Z"),
    ],
)
def test_letter_complaint(row: dict[str, object], known: str | None) -> None:
    found = letter_complaint(row, "official")
    assert (found is None) if known is None else (found or "").endswith(known)
