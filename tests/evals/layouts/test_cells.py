"""Values of cells."""

from __future__ import annotations

from typing import Any

import pytest

from peeralign.evals.layouts.cells import (
    choices,
    letter,
    listed,
    options,
    text,
    text_or_none,
    texts,
)
from peeralign.store.conversations import Unusable


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_empty_cells(value: Any) -> None:
    row = {"answer": value}
    assert text_or_none(row, "answer") is None
    with pytest.raises(Unusable, match=r"^no answer$"):
        text(row, "answer")
    with pytest.raises(Unusable, match=r"^no right answer$"):
        texts(row, "answer", "right answer")
    assert text_or_none(row, "other") is None


def test_numbers_are_texts_and_lists_are_none() -> None:
    assert text({"answer": 4}, "answer") == "4"
    with pytest.raises(Unusable, match=r"^its answer is no text$"):
        text({"answer": ["4"]}, "answer")


@pytest.mark.parametrize(
    ("value", "values"),
    [
        (["a", "b"], ["a", "b"]),
        ("['a', \"b's\"]", ["a", "b's"]),
        (" ['a']", ["a"]),
        # Python warns of such a text; here warnings are errors.
        ("['\\d']", ["\\d"]),
        ("[1, 2.5]", [1, 2.5]),
        # No list of Python, but the answer as it stands.
        ("[Canada, UK]", ["[Canada, UK]"]),
        ("['a', __import__('os')]", ["['a', __import__('os')]"]),
        ("[", ["["]),
        ("[" * 200_000, ["[" * 200_000]),
        ("a", ["a"]),
        (4, [4]),
        (None, []),
    ],
)
def test_lists(value: Any, values: list[Any]) -> None:
    assert listed(value) == values


def test_choices_keep_blank_ones_in_their_place() -> None:
    assert choices({"choices": ["a", "", None, 4]}) == ["a", "", "", "4"]
    assert choices({"options": "['a', 'b']"}, "options") == ["a", "b"]
    assert choices({"choices": None}) == []


def test_options_end_at_the_first_empty_one() -> None:
    assert options({"A": "one", "B": 2, "C": None, "D": "four"}) == ["one", "2"]
    # A word that other readers take for nothing.
    assert options({"A": "None", "B": "NA"}) == ["None", "NA"]
    assert options({"question": "x"}) == []


@pytest.mark.parametrize(("value", "found"), [("b", "B"), ("C", "C"), (0, "A"), ("2", "C")])
def test_letters(value: Any, found: str) -> None:
    assert letter({"answer": value}, 3) == found


@pytest.mark.parametrize("value", ["D", 3, "AB", "-1"])
def test_a_letter_of_no_option(value: Any) -> None:
    with pytest.raises(Unusable, match=r"^its answer is none of the options: "):
        letter({"answer": value}, 3)
