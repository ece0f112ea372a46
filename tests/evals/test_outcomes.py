"""Who wins an item, and what is shown of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evals.folders import write_eval

from peeralign.evals.outcomes import OUTCOME_SCHEMA, expected, outcomes
from peeralign.evals.sheets import open_side


def test_each_item(tmp_path: Path) -> None:
    item: dict[str, Any] = {"answer": "B", "choices": ["cat", "dog"]}
    replies = {"ada": ["A", "B", "(B)", None], "ben": ["B", "A", "B", "x"]}
    rows = {
        member: [{"id": n, **item, "prediction": reply} for n, reply in enumerate(said)]
        for member, said in replies.items()
    }
    side = open_side(write_eval(tmp_path / "e", {"realworldqa": rows}), None)
    sheets = (side.sheets["realworldqa"]["ada"](), side.sheets["realworldqa"]["ben"]())
    found = outcomes("realworldqa", ("ada", "ben"), sheets, ["0", "1", "2", "3"])
    assert found.schema == OUTCOME_SCHEMA
    assert found["outcome"].to_list() == ["win", "loss", "tie", "tie"]
    assert found["is_same"].to_list() == [False] * 4
    assert found["expected"].to_list() == ["B: dog"] * 4
    assert found["parsed_a"].to_list() == ["parsed", "parsed", "parsed", "none"]
    assert found["reading_b"].to_list()[:2] == ["B", "A"]
    assert found["prediction_a"].to_list() == ["A", "B", "(B)", None]


def test_texts_equal_but_for_case_are_the_same(tmp_path: Path) -> None:
    said = {"ada": "Yes \\ud800", "ben": "yes  \\ud800"}
    folder = write_eval(tmp_path / "e", {"gqa": dict.fromkeys(said, ())})
    for member, text in said.items():
        line = '{"id": 1, "answer": "no", "prediction": "%s"}\n' % text  # noqa: UP031
        (folder / "rows" / "gqa" / f"{member}.jsonl").write_text(line)
    side = open_side(folder, None)
    sheets = (side.sheets["gqa"]["ada"](), side.sheets["gqa"]["ben"]())
    assert outcomes("gqa", ("ada", "ben"), sheets, ["1"])["is_same"].to_list() == [True]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({}, None),
        ({"answer": 12}, "12"),
        ({"answer": "A", "choices": ["a cat", "b"]}, "A: a cat"),
        ({"answer": "A"}, "A"),
        ({"answer": "a cat", "choices": ["a cat", "b"]}, "a cat"),
        ({"answer": "D", "choices": ["a cat", "b"]}, "D"),
        ({"answers": ["x", "y", "x"]}, "x / y"),
        ({"answers": list("abcdefg")}, "a / b / c / d / e and 2 more"),
    ],
)
def test_the_right_answer_as_people_read_it(row: dict[str, Any], text: str | None) -> None:
    assert expected(row) == text
