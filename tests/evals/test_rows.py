"""Keys of rows: which are needed, and what each may hold."""

from __future__ import annotations

from typing import Any

import pytest

from peeralign.evals.benchmark import PROTOCOLS
from peeralign.evals.benchmarks import NAMES, find
from peeralign.evals.rows import WrongRow, checked, shown

ROW = {"id": 1, "prediction": "B", "answer": "B", "choices": ["a", "b"]}


def complaint(row: dict[str, Any], name: str = "ai2d", protocol: str = "official") -> str:
    with pytest.raises(WrongRow) as caught:
        checked(find(name), row, protocol)
    return str(caught.value)


def test_a_row_is_made_uniform() -> None:
    given = {**ROW, "prediction": 4, "choices": [1, 2.5], "category": 7, "other": object()}
    assert checked(find("ai2d"), given, "official") == {
        "id": "1",
        "prediction": "4",
        "answer": "B",
        "choices": ["1", "2.5"],
        "category": "7",
    }


def test_one_answer_may_stand_for_several() -> None:
    row = {"id": 1, "prediction": "x", "answer": "x"}
    assert checked(find("chartqa"), row, "official")["answers"] == ["x"]
    row = {"id": 1, "prediction": "x", "answers": "x"}
    assert checked(find("chartqa"), row, "official")["answers"] == ["x"]


def test_optional_keys_may_be_null() -> None:
    assert "category" not in checked(find("ai2d"), {**ROW, "category": None}, "official")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_needed_key_is_known_and_asked_for(name: str, protocol: str) -> None:
    needs = find(name).needs.get(protocol, ())
    for key in needs:
        row = {"id": 1, "prediction": "x", **dict.fromkeys(set(needs) - {key}, "x")}
        assert complaint(row, name, protocol).startswith(f"has no '{key}'")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("prediction", ["B"], "has a wrong 'prediction': ['B']; give a text"),
        ("prediction", True, "has a wrong 'prediction': True; give a text"),
        ("id", " ", "has a wrong 'id': it is empty; give a name or a number"),
        ("id", None, "has a wrong 'id': None; give a text"),
        ("answer", None, "has a wrong 'answer': None; give a text"),
        ("choices", ["a"], "has a wrong 'choices': ['a']; give a list of 2 to 26 options"),
        ("choices", "ab", "has a wrong 'choices': 'ab'; give a list of 2 to 26 options"),
        ("category", [1], "has a wrong 'category': [1]; give a text"),
        ("score", "1", "has a wrong 'score': '1'; give a number"),
        ("score", float("nan"), "has a wrong 'score': nan; give a finite number"),
        ("score", [], "has a wrong 'score': it is empty; give a score, or null"),
        ("answers", [], "has a wrong 'answers': it is empty; give a list of texts"),
        ("score", 10**400, f"has a wrong 'score': {'1' + '0' * 59}...; give a finite number"),
        ("prediction", float("nan"), "has a wrong 'prediction': nan; give a text"),
        ("precision", "1", "has a wrong 'precision': '1'; give a number"),
        ("precision", 1.5, "has a wrong 'precision': 1.5; give a whole number"),
        ("has_image", 1, "has a wrong 'has_image': 1; give true or false"),
    ],
)
def test_wrong_values(key: str, value: Any, sentence: str) -> None:
    assert complaint({**ROW, key: value}) == sentence


def test_a_missing_key_has_the_nearest_name_and_the_keys_that_are_needed() -> None:
    row = {"id": 1, "prediction": "B", "answer": "B", "choice": ["a", "b"]}
    assert complaint(row) == (
        "has no 'choices'; did you mean 'choice'?; a row of AI2D, protocol official, needs "
        "id, prediction, answer, choices"
    )


def test_values_are_shown_short_and_safe() -> None:
    assert shown("x" * 100) == "'" + "x" * 59 + "..."
    assert shown("\x1b") == "'\\x1b'"
