"""Normalised texts, and yes or no."""

from __future__ import annotations

import pytest

from peeralign.evals.reading.words import (
    kit_vqa_normalised,
    kit_without_punctuation,
    kit_yes_or_no,
    pope_yes_or_no,
    said,
    vqa_normalised,
    without_marks,
)


@pytest.mark.parametrize(
    ("text", "plain", "kit"),
    [
        ("The Cat", "cat", "cat"),
        ("a an the", "", ""),
        ("Ten men", "10 men", "10 men"),
        ("none", "0", "0"),
        ("its", "its", "its"),
        ("Joe's", "joe 's", "joe's"),
        ("couldnt've been", "couldn't've been", "couldn't've been"),
        ("couldn'tve", "couldn't've", "couldn't've"),
        ("somebody'd", "somebodyd", "somebodyd"),
        ("yalld've", "yalld've", "yalld've"),
        ("y'alld've", "y'all'd've", "y'all'd've"),
        ("co-op", "co op", "co op"),
        ("co- op", "co op", "co op"),
        ("really?", "really", "really"),
        ("a/b", "b", "b"),
        ("3.", "3", "3."),
        (".5", ".5", ".5"),
        ("U.S.A.", "usa", "usa"),
        # A comma between digits makes all punctuation vanish, where it is still there.
        ("1,000-2", "1000 2", "10002"),
        ("x,y", "xy", "x y"),
        ("  two\nlines\t", "2 lines", "2 lines"),
        # Of 40 periods, 32 are removed.
        ("." * 40, "." * 8, "." * 8),
    ],
)
def test_normalised(text: str, plain: str, kit: str) -> None:
    assert vqa_normalised(text) == plain
    assert kit_vqa_normalised(text) == kit


def test_punctuation() -> None:
    assert kit_without_punctuation("Yes, it is!") == "Yes it is "
    assert without_marks("(B). It's!") == "b its"


@pytest.mark.parametrize(
    ("text", "how", "kit", "pope"),
    [
        ("Yes", "parsed", "yes", "yes"),
        ("no.", "parsed", "no", "no"),
        ("Yes, no", "ambiguous", None, "no"),
        ("It is not", "parsed", None, "no"),
        ("Nothing", "none", None, "yes"),
        ("Yes. no", "ambiguous", None, "yes"),
        ("", "none", None, "yes"),
    ],
)
def test_yes_or_no(text: str, how: str, kit: str | None, pope: str) -> None:
    assert said(text) == how
    assert kit_yes_or_no(text) == kit
    assert pope_yes_or_no(text) == pope
