"""ScienceQA: options, and the nine kinds of questions."""

from __future__ import annotations

import pytest
from evals.golden import figures, parsed, scores

CHOICES = ["iron", "wood", "glass"]


@pytest.mark.parametrize(
    ("prediction", "worth"),
    [
        ("B", (1, 1, 1)),
        ("b", (0, 1, 0)),
        ("B. wood", (1, 1, 1)),
        # Officially a blank follows the period.
        ("B.", (0, 1, 1)),
        ("B.wood", (0, 1, 1)),
        ("The answer is B.", (1, 0, 1)),
        # Something must follow the letter.
        ("The answer is B", (0, 0, 1)),
        ("Wood is soft. The answer is B.", (1, 0, 1)),
        ("The answer is A. No, The answer is B.", (0, 0, 0)),
        ("(B)", (0, 0, 1)),
        ("wood", (0, 0, 1)),
        # D is no option of three.
        ("D", (0, 0, 0)),
        ("A", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_golden(prediction: str, worth: tuple[int, ...]) -> None:
    assert scores("scienceqa", prediction, answer="B", choices=CHOICES) == worth


def test_what_is_not_read_is_not_drawn() -> None:
    read = parsed("scienceqa", "It depends", answer="B", choices=CHOICES)
    assert read == ("none", "none", "none")
    assert parsed("scienceqa", "D", answer="B", choices=CHOICES) == ("none", "none", "none")
    several = "The answer is A. The answer is B."
    assert parsed("scienceqa", several, answer="B", choices=CHOICES)[0] == "ambiguous"


def test_figures_of_the_kinds() -> None:
    base = {"answer": "B", "choices": CHOICES}
    rows = [
        {**base, "prediction": "B", "subject": "natural science", "grade": "grade3"},
        {**base, "prediction": "A", "subject": "natural science", "grade": "grade9"},
        {**base, "prediction": "B", "subject": "social science", "grade": 12},
        {**base, "prediction": None, "subject": "language science", "grade": "grade1"},
    ]
    flags = [(True, False), (True, True), (False, False), (False, True)]
    rows = [
        {**row, "has_text": text, "has_image": image}
        for row, (text, image) in zip(rows, flags, strict=True)
    ]
    found = figures("scienceqa", rows)
    expected = {
        "score": 0.5,
        "acc_average": 0.5,
        "acc_natural": 0.5,
        "acc_social": 1,
        "acc_language": 0,
        "acc_has_text": 0.5,
        "acc_has_image": 0,
        "acc_no_context": 1,
        "acc_grade_1_6": 0.5,
        "acc_grade_7_12": 0.5,
    }
    assert {name: found[name] for name in expected} == expected


def test_kinds_that_rows_do_not_tell_are_left_out() -> None:
    found = figures("scienceqa", [{"prediction": "B", "answer": "B", "choices": CHOICES}])
    assert not [name for name in found if name.startswith("acc_") and name != "acc_average"]
