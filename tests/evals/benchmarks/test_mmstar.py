"""MMStar: the first character, and the mean of items or of parts."""

from __future__ import annotations

import pytest
from evals.golden import figures, mistake, parsed, scores

CHOICES = ["cat", "bird", "dog", "fish"]


@pytest.mark.parametrize(
    ("prediction", "worth", "read"),
    [
        ("B", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("b", (1, 0, 0), ("parsed", "none", "none")),
        ("(B)", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("Option B", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("The answer is B.", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("Answer: B", (0, 1, 1), ("parsed", "parsed", "parsed")),
        # Any word that begins with the letter.
        ("bird", (1, 0, 1), ("parsed", "none", "parsed")),
        ("big dog", (1, 0, 0), ("parsed", "none", "parsed")),
        # The last letter of the best form, to lmms-eval.
        ("Not (A), rather (B) I think", (0, 1, 0), ("none", "ambiguous", "ambiguous")),
        # Any capital that could be one, if there is nothing better.
        ("It is the TUB", (0, 1, 0), ("none", "parsed", "none")),
        ("TB", (0, 1, 0), ("none", "parsed", "none")),
        ("A", (0, 0, 0), ("parsed", "parsed", "parsed")),
        ("", (0, 0, 0), ("none", "none", "none")),
    ],
)
def test_golden(prediction: str, worth: tuple[int, ...], read: tuple[str, ...]) -> None:
    keys = {"answer": "B", "choices": CHOICES, "l2_category": "recognition"}
    assert scores("mmstar", prediction, **keys) == worth
    assert parsed("mmstar", prediction, **keys) == read


ROWS = [
    {"prediction": "A", "answer": "A", "category": "math", "l2_category": "geometry"},
    {"prediction": "B", "answer": "A", "category": "math", "l2_category": "statistics"},
    {"prediction": "A", "answer": "A", "category": "math", "l2_category": "geometry"},
    {"prediction": "A", "answer": "A", "category": "logic", "l2_category": "diagram"},
]


def test_items_count_alike_officially() -> None:
    found = figures("mmstar", ROWS)
    assert found["score"] == found["final score"] == 0.75
    assert found["by"]["category"] == {"math": 0.666667, "logic": 1.0}
    assert found["by"]["l2_category"] == {"geometry": 1.0, "statistics": 0.0, "diagram": 1.0}


def test_parts_count_alike_in_lmms_eval() -> None:
    found = figures("mmstar", ROWS, "lmms-eval")
    assert found["score"] == 0.666667
    # math: geometry 1 and statistics 0.
    assert found["by"]["category"] == {"math": 0.5, "logic": 1.0}


def test_keys_by_protocol() -> None:
    row = {"prediction": "A", "answer": "A"}
    assert figures("mmstar", [row])["score"] == 1
    assert "has no 'l2_category'" in mistake("mmstar", [row], "lmms-eval")
    assert "has no 'choices'" in mistake("mmstar", [row], "vlmevalkit")
