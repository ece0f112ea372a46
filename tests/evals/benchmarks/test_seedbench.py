"""SEED-Bench: four options."""

from __future__ import annotations

import pytest
from evals.golden import figures, parsed, scores

CHOICES = ["cat", "bird", "dog", "fish"]


@pytest.mark.parametrize(
    ("prediction", "worth", "read"),
    [
        ("B", (1, 1, 1), ("parsed", "parsed", "parsed")),
        (" B\n", (1, 1, 1), ("parsed", "parsed", "parsed")),
        # The official script ranks options, so what is not the letter is not read.
        ("B.", (0, 1, 1), ("none", "parsed", "parsed")),
        ("b", (0, 1, 0), ("none", "parsed", "none")),
        ("B. bird", (0, 1, 1), ("none", "parsed", "parsed")),
        # The first character, whatever it begins.
        ("Birds", (0, 1, 1), ("none", "parsed", "parsed")),
        ("Because of the dog", (0, 1, 0), ("none", "parsed", "parsed")),
        ("(B)", (0, 0, 1), ("none", "none", "parsed")),
        ("The answer is B", (0, 0, 1), ("none", "none", "parsed")),
        ("A", (0, 0, 0), ("parsed", "parsed", "parsed")),
        ("E", (0, 0, 0), ("none", "none", "none")),
        (None, (0, 0, 0), ("none", "none", "none")),
    ],
)
def test_golden(prediction: str | None, worth: tuple[int, ...], read: tuple[str, ...]) -> None:
    keys = {"answer": "B", "choices": CHOICES}
    assert scores("seedbench", prediction, **keys) == worth
    assert parsed("seedbench", prediction, **keys) == read


def test_by_data_type() -> None:
    rows = [
        {"prediction": "A", "answer": "A", "data_type": "image", "category": 1},
        {"prediction": "A", "answer": "B", "data_type": "image", "category": 1},
        {"prediction": "A", "answer": "A", "data_type": "video", "category": 10},
    ]
    found = figures("SEED-Bench", rows)
    assert found["score"] == found["accuracy"] == 0.666667
    assert found["by"] == {
        "category": {"1": 0.5, "10": 1.0},
        "data_type": {"image": 0.5, "video": 1.0},
    }
