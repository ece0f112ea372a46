"""AI2D: options of diagrams."""

from __future__ import annotations

import pytest
from evals.golden import figures, mistake, parsed, scores

CHOICES = ["moon", "sun", "full moon", "star"]


@pytest.mark.parametrize(
    ("prediction", "worth", "read"),
    [
        ("B", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("b", (1, 1, 0), ("parsed", "parsed", "none")),
        ("(B)", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("B.", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("B. sun", (1, 1, 1), ("parsed", "parsed", "parsed")),
        # Neither a letter and a period, nor the letter alone.
        ("B) sun", (1, 0, 1), ("parsed", "none", "parsed")),
        ("The answer is B", (1, 0, 1), ("parsed", "none", "parsed")),
        ("The answer is B because it is the sun and nothing else", (1, 0, 1), None),
        ("sun", (1, 0, 1), ("parsed", "none", "parsed")),
        # The text of an option among other words counts for VLMEvalKit alone.
        ("it is the sun", (0, 0, 1), ("none", "none", "parsed")),
        # "answer is" and the first letter of a word.
        ("the answer is black, I am sure about that", (0, 0, 1), ("none", "none", "parsed")),
        ("A. moon", (0, 0, 0), ("parsed", "parsed", "parsed")),
        ("(A) or (B)", (0, 0, 0), ("ambiguous", "none", "ambiguous")),
        ("I do not know", (0, 0, 0), ("none", "none", "none")),
        (None, (0, 0, 0), ("none", "none", "none")),
    ],
)
def test_golden(
    prediction: str | None, worth: tuple[int, ...], read: tuple[str, ...] | None
) -> None:
    keys = {"answer": "B", "choices": CHOICES}
    assert scores("ai2d", prediction, **keys) == worth
    assert read is None or parsed("ai2d", prediction, **keys) == read


def test_an_ambiguous_reply_without_a_letter_is_a_failure() -> None:
    rows = [
        {"prediction": "(A) or (B)", "answer": "B", "choices": CHOICES},
        {"prediction": "B", "answer": "B", "choices": CHOICES},
    ]
    found = figures("ai2d", rows)
    assert (found["score"], found["parse_failure_rate"], found["num_ambiguous"]) == (0.5, 0.5, 1)


def test_the_answer_is_a_letter_of_the_options() -> None:
    wrong = {"prediction": "B", "answer": "1", "choices": CHOICES}
    assert mistake("ai2d", [wrong]) == (
        "row 1 has the answer '1'; give the letter of an option, A to D"
    )
    assert "A to D" in mistake("ai2d", [{**wrong, "answer": "E"}])
