"""MMMU: options and open questions."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake, parsed, scores

CHOICES = ["red", "green", "deep blue"]


@pytest.mark.parametrize(
    ("prediction", "worth", "read"),
    [
        ("B", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("(B)", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("B.", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("B) green", (0, 0, 1), ("none", "none", "parsed")),
        ("The answer is B", (1, 1, 1), ("parsed", "parsed", "parsed")),
        # The last one named wins.
        ("Not A but B", (1, 1, 0), ("ambiguous", "ambiguous", "ambiguous")),
        ("(A) is wrong, so (B)", (1, 1, 0), ("ambiguous", "ambiguous", "ambiguous")),
        # Brackets come first.
        ("(B) and not A", (1, 1, 0), ("parsed", "parsed", "ambiguous")),
        # A letter at the end of a word is one to lmms-eval.
        ("vitamin B", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("take USB now", (0, 1, 0), ("none", "parsed", "none")),
        ("I say B. Sure", (0, 1, 1), ("none", "parsed", "parsed")),
        # Marks at the end are removed; lmms-eval looks for the end without the line break.
        ("it could be B,", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("it could be B,\n", (0, 1, 1), ("none", "parsed", "parsed")),
        # Texts of options in replies of more than five words only.
        ("it must be the green", (0, 0, 1), ("none", "none", "parsed")),
        ("it must be the green one", (1, 1, 1), ("parsed", "parsed", "parsed")),
        # The scripts draw an option; here nothing was read.
        ("I do not know", (0, 0, 0), ("none", "none", "none")),
        (None, (0, 0, 0), ("none", "none", "none")),
    ],
)
def test_golden_options(
    prediction: str | None, worth: tuple[int, ...], read: tuple[str, ...]
) -> None:
    keys = {"answer": "B", "choices": CHOICES}
    assert scores("mmmu", prediction, **keys) == worth
    assert parsed("mmmu", prediction, **keys) == read


@pytest.mark.parametrize(
    ("prediction", "answers", "worth"),
    [
        ("5", "5", (1, 1, 1)),
        ("The result is 5.0", "5", (1, 1, 1)),
        # Two digits after the point count; VLMEvalKit looks for the text.
        ("3.14159", "3.14", (1, 1, 1)),
        ("3.144", "3.14", (1, 1, 1)),
        ("3.146", "3.14", (0, 0, 1)),
        ("x = 1,000", "1000", (1, 1, 0)),
        ("an apple tree", "apple", (1, 1, 1)),
        # Only the end of a line counts once there is a sign of one.
        ("apple is a fruit", "apple", (0, 0, 1)),
        ("thus pear\nor 7", "7", (0, 0, 1)),
        # A lone letter must stand at the edge of a word.
        ("plan a", "a", (1, 1, 1)),
        ("plan", "a", (0, 0, 1)),
        # Of several answers lmms-eval and VLMEvalKit know the text of the list only.
        ("24/7", ["24/7", "3.429"], (1, 0, 0)),
        ("3.43", ["24/7", "3.429"], (1, 0, 0)),
        # VLMEvalKit looks for the letter of an option where the answer is a capital by itself.
        ("so C ", "C", (1, 1, 0)),
        ("Other Answers", "B", (0, 0, 1)),
        ("", "5", (0, 0, 0)),
    ],
)
def test_golden_open(prediction: str, answers: Any, worth: tuple[int, ...]) -> None:
    assert scores("mmmu", prediction, answers=answers) == worth


def test_figures_by_discipline() -> None:
    rows = [
        {"id": "validation_Art_1", "prediction": "B", "answer": "B", "choices": CHOICES},
        {"id": "validation_Art_Theory_2", "prediction": "A", "answer": "B", "choices": CHOICES},
        {"id": "validation_Math_3", "prediction": "7", "answer": "7"},
        {"id": "4", "prediction": "?", "answer": "7", "category": "Physics"},
    ]
    found = figures("mmmu", rows)
    assert found["score"] == found["Overall"] == 0.5
    assert found["Overall-Art and Design"] == 0.5
    assert found["Overall-Science"] == 0.5
    assert "Overall-Business" not in found


def test_options_have_one_answer() -> None:
    row = {"prediction": "B", "answers": ["A", "B"], "choices": CHOICES}
    assert "give the letter of one option" in mistake("mmmu", [row])
    assert "A to C" in mistake("mmmu", [{**row, "answers": ["D"]}])
