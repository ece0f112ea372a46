"""HallusionBench: aAcc, qAcc and fAcc."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake, worth

PLACE = {"category": "VD", "subcategory": "chart", "set_id": 0, "figure_id": 1, "question_id": 0}


@pytest.mark.parametrize(
    ("prediction", "answer", "official", "vlmevalkit", "read"),
    [
        ("Yes", "yes", 1, 1, "parsed"),
        ("Yes, it is.", "1", 1, 1, "parsed"),
        ("No.", "0", 1, 1, "parsed"),
        ("no", "yes", 0, 0, "parsed"),
        ("yes-and", "yes", 1, 1, "parsed"),
        ("YES!", "yes", 1, 1, "parsed"),
        ("Yes and no", "yes", 0, 0, "ambiguous"),
        ("It is not", "no", 0, 0, "none"),
        ("The lines are equal", "yes", 0, 0, "none"),
        ("yesterday", "yes", 0, 0, "none"),
        (None, "yes", 0, 0, "none"),
    ],
)
def test_golden(
    prediction: str | None, answer: str, official: int, vlmevalkit: int, read: str
) -> None:
    keys = {**PLACE, "answer": answer}
    assert worth("hallusionbench", prediction, keys, "official")[:2] == (official, read)
    assert worth("hallusionbench", prediction, keys, "vlmevalkit")[:2] == (vlmevalkit, read)


@pytest.mark.parametrize(
    ("correctness", "place", "score"),
    [
        (1, {}, 1),
        (0, {}, 0),
        (2, {}, 0),
        # Unclear is right where there is no image to see.
        (2, {"category": "VS", "figure_id": 0}, 1),
        (0, {"category": "VS", "figure_id": 0}, 0),
        (2, {"category": "VS", "figure_id": 1}, 0),
        (2, {"category": "VD", "figure_id": 0}, 0),
    ],
)
@pytest.mark.parametrize("protocol", ["official", "lmms-eval"])
def test_a_judges_verdict_goes_before_the_words(
    correctness: int, place: dict[str, Any], score: int, protocol: str
) -> None:
    keys = {**PLACE, **place, "answer": "yes", "correctness": correctness}
    assert worth("hallusionbench", "no", keys, protocol).score == score


def test_not_knowing_without_an_image() -> None:
    keys = {**PLACE, "category": "VS", "figure_id": 0, "answer": "yes"}
    assert worth("hallusionbench", "I cannot tell", keys, "official").score == 1
    assert worth("hallusionbench", "I cannot tell", keys, "vlmevalkit").score == 0
    # No reply at all is wrong even there.
    assert worth("hallusionbench", None, keys, "official").score == 0


def rows() -> list[dict[str, Any]]:
    """A set of two questions on figures 0 and 1; right but for question 1 on figure 1."""
    return [
        {
            **PLACE,
            "category": "VS",
            "figure_id": figure,
            "question_id": question,
            "answer": "yes",
            "prediction": "no" if figure == question == 1 else "yes",
        }
        for figure in (0, 1)
        for question in (0, 1)
    ]


def test_figures() -> None:
    found = figures("hallusionbench", rows())
    assert found["score"] == found["aAcc"] == 0.75
    assert found["qAcc"] == 0.5
    # Figure 0 of VS is no figure, and figure 1 has a wrong answer.
    assert found["fAcc"] == 0
    assert figures("hallusionbench", rows(), "vlmevalkit")["fAcc"] == 0.5


def test_easy_and_hard() -> None:
    shown = [{**row, "visual_input": "2" if row["figure_id"] else "1"} for row in rows()]
    found = figures("hallusionbench", shown)
    assert (found["easy aAcc"], found["hard aAcc"]) == (1.0, 0.5)
    # A question's easy answers count as one: with no figure and with the original.
    blind = [{**row, "figure_id": 2, "visual_input": "0", "prediction": "no"} for row in rows()[:1]]
    found = figures("hallusionbench", [*shown, *blind])
    assert (found["easy aAcc"], found["hard aAcc"]) == (0.5, 0.5)
    # Only the authors' script has them, and only where all rows say what was shown.
    assert "easy aAcc" not in figures("hallusionbench", shown, "vlmevalkit")
    assert "easy aAcc" not in figures("hallusionbench", [*shown[1:], rows()[0]])


def test_sets_are_not_mixed_and_stay_together() -> None:
    both = [*rows(), *({**row, "subcategory": "map", "prediction": "yes"} for row in rows())]
    found = figures("hallusionbench", both)
    assert (found["aAcc"], found["qAcc"], found["fAcc"]) == (0.875, 0.75, 0.5)
    assert (found["num_clusters"], found["clustered_by"]) == (2, "unit")
    assert found["interval"] == [0.75, 1.0]
    assert found["by"]["subcategory"] == {"chart": 0.75, "map": 1.0}


def test_mistakes() -> None:
    row = {**PLACE, "answer": "yes", "prediction": "yes"}
    assert "neither yes nor no" in mistake("hallusionbench", [{**row, "answer": "2"}])
    assert "give VD or VS" in mistake("hallusionbench", [{**row, "category": "X"}])
    assert "none of 0 (wrong)" in mistake("hallusionbench", [{**row, "correctness": 3}])
    assert "has no 'correctness'" in mistake("hallusionbench", [row], "lmms-eval")
