"""MME: accuracy plus the share of images fully right."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake, worth


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("Yes", "yes", (1, 1, 1)),
        ("No", "no", (1, 1, 1)),
        ("Yes, it is", "Yes", (1, 1, 1)),
        ("yes or no", "yes", (1, 1, 0)),
        # Four characters, blanks among them officially.
        (" yes", "yes", (1, 1, 1)),
        ("  Yes", "yes", (0, 1, 1)),
        ("...no", "no", (0, 1, 1)),
        ("not at all", "no", (1, 1, 0)),
        ("None", "no", (1, 1, 0)),
        ("know", "no", (1, 1, 0)),
        ("The answer is yes", "yes", (0, 0, 1)),
        ("y", "yes", (0, 1, 0)),
        ("N.", "no", (0, 1, 0)),
        ("Maybe", "no", (0, 0, 0)),
        ("", "no", (0, 0, 0)),
    ],
)
def test_golden(prediction: str, answer: str, expected: tuple[int, ...]) -> None:
    keys = {"answer": answer, "category": "color", "image": "1.png"}
    protocols = ("official", "lmms-eval", "vlmevalkit")
    found = tuple(worth("mme", prediction, keys, protocol).score for protocol in protocols)
    assert found == expected


def image(name: str, category: str, replies: str) -> list[dict[str, Any]]:
    """Two questions on an image, whose answers are yes and no."""
    words = {"y": "yes", "n": "no", "?": "hm"}
    return [
        {"prediction": words[reply], "answer": answer, "category": category, "image": name}
        for reply, answer in zip(replies, ("yes", "no"), strict=True)
    ]


@pytest.mark.parametrize("protocol", ["official", "lmms-eval", "vlmevalkit"])
def test_figures(protocol: str) -> None:
    rows = [
        *image("1", "color", "yn"),
        *image("2", "color", "yy"),
        # The same name in another task is another image.
        *image("1", "OCR", "yn"),
        *image("3", "code_reasoning", "??"),
    ]
    found = figures("mme", rows, protocol)
    # color: 3 of 4, 1 of 2 images.
    assert found["color"] == 75 + 50
    assert found["OCR"] == 200
    assert found["code_reasoning"] == 0
    assert (found["Perception"], found["Cognition"]) == (325, 0)
    assert found["score"] == found["total"] == 325
    assert found["parse_failure_rate"] == 0.25
    assert "scene" not in found


def test_always_yes_is_half_of_the_answers_and_no_image() -> None:
    found = figures("mme", [*image("1", "count", "yy"), *image("2", "count", "yy")])
    assert (found["count"], found["total"]) == (50, 50)
    assert "Cognition" not in found


def test_mistakes() -> None:
    rows = image("1", "color", "yn")
    assert mistake("mme", rows[:1]) == (
        "the image '1' of MME's task 'color' has 1 questions; give both"
    )
    assert "neither yes nor no" in mistake("mme", [{**rows[0], "answer": "1"}])
    assert "has the category 'colour'; give one of existence" in mistake(
        "mme", [{**rows[0], "category": "colour"}]
    )
