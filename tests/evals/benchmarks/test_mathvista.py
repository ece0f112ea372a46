"""MathVista: what a model extracted, or what needs no model."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake, parsed, scores

CHOICES = ["acute", "right angle", "obtuse"]
OPTIONS = {"answer": "right angle", "answer_type": "text", "choices": CHOICES}
WHOLE = {"answer": "14", "answer_type": "integer"}
DECIMAL = {"answer": "1.5", "answer_type": "float", "precision": 1}
LIST = {"answer": "[2007, 2008]", "answer_type": "list"}


@pytest.mark.parametrize(
    ("prediction", "keys", "worth"),
    [
        ("right angle", OPTIONS, (1, 1, 1)),
        # A letter alone would be extracted by the model.
        ("B", OPTIONS, (0, 0, 1)),
        ('The answer is "right angle".', OPTIONS, (1, 0, 1)),
        ("It is B", OPTIONS, (0, 0, 1)),
        ("14", WHOLE, (1, 1, 1)),
        ("14.0", WHOLE, (0, 0, 0)),
        ("There are 14", WHOLE, (0, 0, 0)),
        ('The answer is "14".', WHOLE, (1, 0, 0)),
        ("1.5", DECIMAL, (1, 1, 1)),
        ("1.52", DECIMAL, (1, 1, 0)),
        ("1.56", DECIMAL, (0, 0, 0)),
        ("[2007, 2008]", LIST, (0, 0, 0)),
        (None, WHOLE, (0, 0, 0)),
    ],
)
def test_golden_without_an_extraction(
    prediction: str | None, keys: dict[str, Any], worth: tuple[int, ...]
) -> None:
    assert scores("mathvista", prediction, **keys) == worth


@pytest.mark.parametrize(
    ("extraction", "keys", "worth", "read"),
    [
        ("B", OPTIONS, (1, 1, 1), "parsed"),
        ("(b) something", OPTIONS, (1, 1, 0), "parsed"),
        ("right angle", OPTIONS, (1, 1, 1), "parsed"),
        # The nearest option by edit distance.
        ("right angel", OPTIONS, (1, 1, 0), "ambiguous"),
        ("14", WHOLE, (1, 1, 1), "parsed"),
        ("14.9", WHOLE, (1, 1, 0), "parsed"),
        ("fourteen", WHOLE, (0, 0, 0), "none"),
        ("1.46", DECIMAL, (1, 1, 0), "parsed"),
        ("inf", WHOLE, (0, 0, 0), "none"),
        # Lists are compared as text, and never right in VLMEvalKit.
        ("[2007, 2008]", LIST, (1, 1, 0), "parsed"),
        ("[2007,2008]", LIST, (0, 0, 0), "parsed"),
        (" [2007, 2008]", LIST, (0, 1, 0), "parsed"),
        (" ", WHOLE, (0, 0, 0), "none"),
    ],
)
def test_golden_with_an_extraction(
    extraction: str, keys: dict[str, Any], worth: tuple[int, ...], read: str
) -> None:
    keys = {**keys, "extraction": extraction}
    assert scores("mathvista", "some words", **keys) == worth
    assert parsed("mathvista", "some words", **keys)[0] == read


def test_no_reply_is_wrong_whatever_was_extracted() -> None:
    assert scores("mathvista", "", extraction="14", **WHOLE) == (0, 0, 0)


def test_figures() -> None:
    rows = [
        {"prediction": "14", **WHOLE, "task": "counting"},
        {"prediction": "some", **WHOLE, "task": "counting"},
        {"prediction": "right angle", **OPTIONS, "task": "geometry"},
    ]
    found = figures("mathvista", rows)
    assert found["score"] == found["accuracy"] == 0.666667
    assert found["parse_failure_rate"] == 0.333333
    assert found["by"]["task"] == {"counting": 0.5, "geometry": 1.0}


def test_mistakes() -> None:
    row = {"prediction": "1", **DECIMAL}
    assert "has no 'precision'" in mistake("mathvista", [{**row, "precision": None}])
    assert "give text, integer, float, list" in mistake("mathvista", [{**row, "answer_type": "x"}])
    assert "none of its choices" in mistake("mathvista", [{**row, "choices": CHOICES}])
