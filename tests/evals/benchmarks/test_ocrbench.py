"""OCRBench: an answer inside the reply is a point."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake, scores

REGULAR = "Regular Text Recognition"
FORMULA = "Handwritten Mathematical Expression Recognition"


def row(prediction: str | None, answer: Any, category: str = REGULAR) -> dict[str, Any]:
    dataset = "HME100k" if category == FORMULA else "IIIT5K"
    return {
        "prediction": prediction,
        "answers": answer,
        "category": category,
        "dataset": dataset,
    }


@pytest.mark.parametrize(
    ("prediction", "answer", "category", "worth"),
    [
        ("Hello", "hello", REGULAR, (1, 1, 1)),
        ("The word is hello.", "HELLO", REGULAR, (1, 1, 1)),
        # Any part will do, even of another word.
        ("othello", "hello", REGULAR, (1, 1, 1)),
        ("h e l l o", "hello", REGULAR, (0, 0, 0)),
        ("good\nbye", "good bye", REGULAR, (1, 1, 1)),
        ("good  bye", "good bye", REGULAR, (0, 0, 0)),
        ("2", ["two", "2"], REGULAR, (1, 1, 1)),
        # Full-width letters are others, but to lmms-eval.
        ("\uff28ELL\uff2f", "hello", REGULAR, (0, 1, 0)),
        ("a\u3000b", "a b", REGULAR, (0, 1, 0)),
        # Formulas: blanks do not matter, case does.
        ("x ^ 2 + 1", "x^2+1", FORMULA, (1, 1, 1)),
        ("X ^ 2", "x^2", FORMULA, (0, 0, 0)),
        ("= x\n^ 2", "x^2", FORMULA, (1, 1, 1)),
        (" ", "hello", REGULAR, (0, 0, 0)),
        (None, "", REGULAR, (0, 0, 0)),
    ],
)
def test_golden(prediction: str | None, answer: Any, category: str, worth: tuple[int, ...]) -> None:
    keys = {
        name: value for name, value in row("", answer, category).items() if name != "prediction"
    }
    assert scores("ocrbench", prediction, **keys) == worth


def test_a_formula_is_known_by_its_data_set_or_by_its_type() -> None:
    keys = {"answers": "a b", "category": FORMULA, "dataset": "svt"}
    assert scores("ocrbench", "ab", **keys) == (0, 0, 1)
    keys = {"answers": "a b", "category": REGULAR, "dataset": "HME100k"}
    assert scores("ocrbench", "ab", **keys) == (1, 1, 0)


def test_the_final_score_counts_points() -> None:
    rows = [
        row("a", "a"),
        row("b", "a"),
        row("a", "a", "Handwriting Recognition"),
        row("a", "a", "Doc-oriented VQA"),
        row("a", "a", FORMULA),
    ]
    found = figures("ocrbench", rows)
    assert found["score"] == found["Final Score"] == 4
    assert found["Text Recognition"] == 2
    assert found[REGULAR] == found["Doc-oriented VQA"] == found[FORMULA] == 1
    assert found["Key Information Extraction"] == 0
    assert figures("ocrbench", rows, "vlmevalkit")["score"] == 4
    # lmms-eval divides by 1,000 even if there are five.
    assert figures("ocrbench", rows, "lmms-eval")["score"] == 0.004


def test_an_unknown_type_is_refused() -> None:
    wrong = row("a", "a", "Text Recognition")
    assert "has the category 'Text Recognition'; give one of Regular" in mistake(
        "ocrbench", [wrong]
    )
