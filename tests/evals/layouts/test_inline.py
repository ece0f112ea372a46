"""Options and hints inside the text of a question."""

from __future__ import annotations

import pytest

from peeralign.evals.layouts.inline import parted, without_hint, without_images


@pytest.mark.parametrize(
    ("question", "stem", "options"),
    [
        ("Which?\nOptions: A: a cat, B: a dog", "Which?", ["a cat", "a dog"]),
        # A comma or a letter inside an option ends it only before the next letter's mark.
        ("Which?\nOptions: A: x, y, B: C: z, C: w", "Which?", ["x, y", "C: z", "w"]),
        ("Which?\nChoices:\n(A) 4\n(B) 6\n(C) 8", "Which?", ["4", "6", "8"]),
        ("Which?\n(A) 4\n(B) 6", "Which?", ["4", "6"]),
        ("Which?\n\nA. Left\nB. Right", "Which?", ["Left", "Right"]),
        ("Which?\nA. of\ntwo lines\nB. one", "Which?", ["of\ntwo lines", "one"]),
        # The last options are those of the question.
        ("A. red\nB. blue\nOptions: A: 1, B: 2", "A. red\nB. blue", ["1", "2"]),
        ("Is it A. or B. here?", "Is it A. or B. here?", []),
        ("Which?\nOptions: A: one only", "Which?\nOptions: A: one only", []),
        ("Which?\nB. Left\nC. Right", "Which?\nB. Left\nC. Right", []),
    ],
)
def test_parted(question: str, stem: str, options: list[str]) -> None:
    assert parted(question) == (stem, options)


def test_parted_by_an_answer_that_is_none_of_the_options() -> None:
    question = "Which?\nA. Left\nB. Right"
    assert parted(question, "b") == ("Which?", ["Left", "Right"])
    assert parted(question, "C") == (question, [])
    assert parted(question, "left") == (question, [])


def test_without_hint() -> None:
    assert without_hint("Hint: Say a letter.\nQuestion: How\nwide?") == "How\nwide?"
    assert without_hint("Hint: Say a letter.\nHow wide?") == "How wide?"
    assert without_hint("What does Question: mean?") == "What does Question: mean?"


def test_without_images() -> None:
    assert (
        without_images("<image 1> As in <image 1>, what is it? <image 12>") == "As in, what is it?"
    )
    assert without_images("an <image> tag") == "an <image> tag"
