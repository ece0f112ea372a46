"""MMBench: every rotation must be right."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake, parsed, scores

CHOICES = ["cat", "dog", "bird", "fish"]


@pytest.mark.parametrize(
    ("prediction", "worth", "read"),
    [
        ("B", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("B. dog", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("(B)", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("dog", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("it is a dog", (1, 1, 1), ("parsed", "parsed", "parsed")),
        # A lone A in a long reply is an article to lmms-eval.
        ("A dog is there", (0, 1, 0), ("parsed", "parsed", "parsed")),
        ("A big dog sits in there", (1, 1, 1), ("parsed", "parsed", "parsed")),
        # Letters that are far from the end are none to VLMEvalKit.
        ("B is what I see in here", (0, 1, 0), ("none", "parsed", "none")),
        ("**B**", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("answer is dark", (0, 0, 0), ("parsed", "none", "parsed")),
        ("A or B", (0, 0, 0), ("ambiguous", "parsed", "ambiguous")),
        ("cat or dog", (0, 0, 0), ("ambiguous", "none", "ambiguous")),
        ("a horse", (0, 0, 0), ("none", "none", "none")),
        (None, (0, 0, 0), ("none", "none", "none")),
    ],
)
def test_golden(prediction: str | None, worth: tuple[int, ...], read: tuple[str, ...]) -> None:
    keys = {"answer": "B", "choices": CHOICES, "group": 1}
    assert scores("mmbench", prediction, **keys) == worth
    assert parsed("mmbench", prediction, **keys) == read


@pytest.mark.parametrize(
    ("prediction", "worth", "read"),
    [
        ("bird", (1, 1, 1), ("parsed", "parsed", "parsed")),
        # lmms-eval finds the "nan" of the options C and D, which are not there, in it.
        ("banana", (0, 0, 0), ("parsed", "none", "parsed")),
        ("a bird, not a banana", (0, 0, 0), ("ambiguous", "none", "ambiguous")),
        ("C is my choice, not B", (1, 0, 1), ("parsed", "parsed", "parsed")),
    ],
)
def test_a_question_of_two_options(
    prediction: str, worth: tuple[int, ...], read: tuple[str, ...]
) -> None:
    keys = {"answer": "B", "choices": ["banana", "bird"], "group": 1}
    assert scores("mmbench", prediction, **keys) == worth
    assert parsed("mmbench", prediction, **keys) == read


def rotations(group: int, replies: str, category: str = "LR") -> list[dict[str, Any]]:
    """The four rotations of a question whose answer is the dog."""
    rows = []
    for shift, reply in enumerate(replies):
        choices = CHOICES[shift:] + CHOICES[:shift]
        letter = "ABCD"[choices.index("dog")]
        rows.append(
            {
                "prediction": reply,
                "answer": letter,
                "choices": choices,
                "group": group,
                "category": category,
            }
        )
    return rows


@pytest.mark.parametrize("protocol", ["official", "lmms-eval", "vlmevalkit"])
def test_one_wrong_rotation_is_enough(protocol: str) -> None:
    found = figures("mmbench", [*rotations(1, "BADC"), *rotations(2, "BADB", "CP")], protocol)
    assert found["score"] == found["Overall"] == 0.5
    assert found["vanilla"] == 7 / 8
    assert found["num_incomplete"] == 0
    assert found["by"]["category"] == {"LR": 1.0, "CP": 0.0}
    assert (found["num_rows"], found["num_clusters"]) == (8, 2)


def test_a_question_that_is_always_answered_b() -> None:
    found = figures("mmbench", rotations(1, "BBBB"))
    assert (found["Overall"], found["vanilla"]) == (0, 0.25)


def test_lacking_rotations_are_counted() -> None:
    found = figures("mmbench", [*rotations(1, "BADC"), *rotations(2, "BA")])
    assert (found["Overall"], found["num_incomplete"]) == (1, 1)


def test_mistakes() -> None:
    row = rotations(1, "B")[0]
    del row["group"]
    assert "has no 'group'" in mistake("mmbench", [row])
