"""Option letters: every reader and its rules."""

from __future__ import annotations

import pytest

from peeralign.evals.reading.letters import (
    Choice,
    kit_letter,
    lmms_letter,
    lmms_mmbench_letter,
    mmmu_letter,
    read_letter,
)

CHOICES = ["cat", "dog", "big dog", "Fish."]


@pytest.mark.parametrize(
    ("text", "letter", "how"),
    [
        ("C", "C", "parsed"),
        ("c.", "C", "parsed"),
        ("dog", "B", "parsed"),
        ("fish", "D", "parsed"),
        ("[C]", "C", "parsed"),
        ("**C** big dog", "C", "parsed"),
        ("C: big dog", "C", "parsed"),
        ("A dog", None, "none"),
        ("A. No: the answer is C", "C", "parsed"),
        ("Option B is wrong, option C is right", None, "ambiguous"),
        ("It is (C)", "C", "parsed"),
        ("(A), (C)", None, "ambiguous"),
        ("(E)", None, "none"),
        ("the answer is a cat", None, "none"),
        ("dogs", None, "none"),
    ],
)
def test_the_strict_reader(text: str, letter: str | None, how: str) -> None:
    assert read_letter(text, CHOICES) == (letter, how)


def test_two_options_of_one_text_have_no_letter() -> None:
    assert read_letter("cat", ["cat", "Cat"]) == (None, "none")


@pytest.mark.parametrize(
    ("text", "strictly", "loosely"),
    [
        ("B", "B", "B"),
        ("(B) or (A)", "A", "A"),
        ("AB C", "C", "C"),
        ("the AB of it", None, "B"),
        ("It is D.x", None, "D"),
        ("it is a fish. I think so", "D", "D"),
        # "dog" is found later than "big dog", inside it.
        ("it is a big dog I think", "B", "B"),
        ("a big dog", None, None),
    ],
)
def test_mmmu(text: str, strictly: str | None, loosely: str | None) -> None:
    assert mmmu_letter(text, CHOICES).letter == strictly
    assert mmmu_letter(text, CHOICES, loosely=True).letter == loosely


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B and so on it goes", None),
        ("so it is B and goes", "B"),
        ("so it is A or B", None),
        ("a cat", "A"),
        # Both "dog" and "big dog" are in it.
        ("a big dog", None),
        ("cat " * 20, None),
        ("the answer is dim", "D"),
        ("Cannot determine the answer: B", None),
        ("Failed to obtain answer via API B", None),
        ("Z", None),
    ],
)
def test_vlmevalkit(text: str, letter: str | None) -> None:
    assert kit_letter(text, CHOICES).letter == letter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", Choice("B", "parsed")),
        # The start goes before the end, and that before "the answer is".
        ("B, not A", Choice("B", "parsed")),
        ("I say the answer is A or B", Choice("B", "parsed")),
        ("So the answer is A or (B) maybe", Choice("B", "ambiguous")),
        ("It is (A), no, (B) there", Choice("B", "ambiguous")),
        ("(A) beats B. here", Choice("A", "parsed")),
        ("maybe B) there", Choice("B", "parsed")),
        ("maybe CAB there", Choice("B", "parsed")),
        ("xAx xCx", Choice("C", "ambiguous")),
        ("nothing", Choice(None, "none")),
    ],
)
def test_lmms_eval(text: str, expected: Choice) -> None:
    assert lmms_letter(text, "ABCD") == expected


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        ("A cat is in there", "A"),
        ("A dog here", "A"),
        ("A dog is in there", "B"),
        ("A pig is in there", "A"),
        (":B.", "B"),
        ("cat", "A"),
    ],
)
def test_lmms_eval_of_mmbench(text: str, letter: str) -> None:
    assert lmms_mmbench_letter(text, CHOICES).letter == letter
