"""Files of verdicts: what is read, and every mistake with its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peeralign.errors import PeeralignError
from peeralign.store.verdicts import (
    PAIRS_SCHEMA,
    RANKINGS_SCHEMA,
    SCORES_SCHEMA,
    read_pairs,
    read_rankings,
    read_scores,
)

Row = dict[str, Any]
SCORE: Row = {"item": 1, "model": "a", "score": 3, "reference": 4.5}
PAIR: Row = {"item": 1, "model_a": "a", "model_b": "b", "verdict": "A", "reference": "tie"}
RANKING: Row = {"item": 1, "ranking": ["x", "y"], "reference": ["y", "x"]}


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: Row | str) -> Path:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / "said.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / "said.jsonl"

    return write


def refused(read: Callable[[Path], Any], path: Path) -> str:
    """What the reader says of the file, without its name."""
    with pytest.raises(PeeralignError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(str(path)) or str(path) in said
    assert "\n" not in said
    return said.replace(str(path), "").removeprefix(", ")


def test_scores(file: Callable[..., Path]) -> None:
    second = {"item": "2", "model": "b", "score": None, "reference": -1, "set": "x", "more": {}}
    table = read_scores(file(SCORE, "", {**second, "answer": "a\ud800b", "author": "c"}))
    assert table.schema == SCORES_SCHEMA
    assert table.select("set", "item", "model", "score", "reference", "author").rows() == [
        ("all", "1", "a", 3.0, 4.5, "a"),
        ("x", "2", "b", None, -1.0, "c"),
    ]
    assert table["answer"].to_list() == [None, "a\ufffdb"]


def test_what_was_said_of_black_images(file: Callable[..., Path]) -> None:
    for read, row, name, value in (
        (read_scores, SCORE, "score_without_image", 2.5),
        (read_pairs, PAIR, "verdict_without_image", "B"),
        (read_rankings, RANKING, "ranking_without_image", ["y", "x"]),
    ):
        rows = [{**row, name: value}, {**row, "item": 2, name: None}, {**row, "item": 3}]
        assert read(file(*rows))[name].to_list() == [value, None, None]


def test_the_judge_s_family_is_that_of_its_own_answers(file: Callable[..., Path]) -> None:
    mine = {**SCORE, "judge": "a", "family": "f"}
    others = {**SCORE, "model": "b", "judge": "a", "family": "g"}
    stated = {**SCORE, "model": "c", "judge": "z", "judge_family": "h"}
    unknown = {**SCORE, "model": "d", "judge": "y"}
    table = read_scores(file(mine, others, stated, unknown))
    assert table["judge_family"].to_list() == ["f", "f", "h", None]
    pair = {**PAIR, "judge": "b", "family_b": "g"}
    assert read_pairs(file(pair))["judge_family"].to_list() == ["g"]


def test_pairs_in_both_orders(file: Callable[..., Path]) -> None:
    swapped = {**PAIR, "model_a": "b", "model_b": "a", "verdict": None, "reference": "B"}
    table = read_pairs(file(PAIR, swapped))
    assert table.schema == PAIRS_SCHEMA
    assert table["verdict"].to_list() == ["A", None]
    assert table["reference"].to_list() == ["tie", "B"]


def test_two_answers_of_one_model_differ_by_their_texts(file: Callable[..., Path]) -> None:
    alike = {**PAIR, "model_b": "a"}
    texts = {"answer_a": "x", "answer_b": "y"}
    swapped = {"answer_a": "y", "answer_b": "x"}
    assert len(read_pairs(file({**alike, **texts}, {**alike, **swapped}))) == 2
    assert "repeats line 1" in refused(read_pairs, file({**alike, **texts}, {**alike, **texts}))


def test_rankings(file: Callable[..., Path]) -> None:
    letters = {"item": 2, "ranking": None, "reference": "C A B"}
    numbers = {"item": 3, "ranking": [2, 1], "reference": [1, 2, 3]}
    table = read_rankings(file(RANKING, letters, numbers))
    assert table.schema == RANKINGS_SCHEMA
    assert table["reference"].to_list() == [["y", "x"], ["C", "A", "B"], ["1", "2", "3"]]
    assert table["ranking"].to_list() == [["x", "y"], None, ["2", "1"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": float("nan")}, "line 2: score is nan, which is no finite number"),
        ({"score": float("-inf")}, "line 2: score is -inf, which is no finite number"),
        ({"score": 10**400}, "which is no finite number"),
        ({"score": "3"}, "line 2: score is '3'; give a number"),
        ({"score": True}, "line 2: score is True; give a number"),
        ({"reference": None}, "line 2: reference is None; give a number"),
        ({"score_without_image": "3"}, "line 2: score_without_image is '3'; give a number"),
        ({"reference": float("nan")}, "line 2: reference is nan"),
        ({"item": None}, "line 2: item is None; give a name or a number"),
        ({"item": " "}, "line 2: item is empty"),
        ({"model": 1.5}, "line 2: model is 1.5"),
        ({"model": ["x" * 100]}, "..."),
        ({"answer": 3}, "line 2: answer is 3; give a text, or null"),
        ({"set": 3}, "line 2: set is 3; give a text, or null"),
        ({}, "line 2 repeats line 1: item '1', model 'a', of set 'all'"),
        ({"set": "all"}, "line 2 repeats line 1"),
        ({"item": "1", "judge": "z"}, "each judge a file of its own"),
    ],
)
def test_bad_scores(file: Callable[..., Path], change: Row, said: str) -> None:
    assert said in refused(read_scores, file(SCORE, {**SCORE, **change}))


@pytest.mark.parametrize("missing", ["item", "model", "score", "reference"])
def test_a_missing_key_is_named(file: Callable[..., Path], missing: str) -> None:
    row = {name: value for name, value in SCORE.items() if name != missing}
    # A verdict that is missing is null; a key that is missing is a mistake.
    said = refused(read_scores, file(SCORE, {**row, "item_2": 1}))
    assert said.startswith(f"line 2 has no '{missing}'")
    assert "needs item, model, score, reference" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "C"}, 'line 1: verdict is \'C\'; give "A", "B" or "tie"'),
        ({"verdict": "a"}, "verdict is 'a'"),
        ({"verdict": 1}, "verdict is 1"),
        ({"verdict": ["A"]}, "verdict is ['A']"),
        ({"verdict_without_image": "C"}, 'verdict_without_image is \'C\'; give "A", "B" or "tie"'),
        ({"reference": None}, "reference is None"),
        ({"model_b": ""}, "model_b is empty"),
    ],
)
def test_bad_pairs(file: Callable[..., Path], change: Row, said: str) -> None:
    assert said in refused(read_pairs, file({**PAIR, **change}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reference": "ABA"}, "line 1: reference is 'ABA'; give every name once"),
        ({"reference": []}, "give every name once"),
        ({"ranking": 3}, "ranking is 3; give a list of names"),
        ({"ranking_without_image": 3}, "ranking_without_image is 3; give a list of names"),
        ({"ranking": [None]}, "ranking is None; give a name or a number"),
    ],
)
def test_bad_rankings(file: Callable[..., Path], change: Row, said: str) -> None:
    assert said in refused(read_rankings, file({**RANKING, **change}))


def test_files_that_are_none(file: Callable[..., Path], tmp_path: Path) -> None:
    assert "it is a folder" in refused(read_scores, tmp_path)
    assert "holds no rows" in refused(read_scores, file())
    assert "no JSON lines at line 2" in refused(read_scores, file(SCORE, "{"))
    assert "no JSON lines at line 1 (not an object)" in refused(read_scores, file("[]"))
