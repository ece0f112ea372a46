"""Rows in, one object out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peeralign.errors import PeeralignError
from peeralign.evals.benchmark import PROTOCOLS
from peeralign.evals.benchmarks import NAMES, find
from peeralign.evals.score import GENERAL, grade_rows, score_file, score_rows

ROWS = [
    {"id": "a", "prediction": "1", "answer": "1"},
    {"id": "b", "prediction": "2", "answer": "1"},
    {"id": "c", "prediction": None, "answer": "1"},
    {"id": "d", "prediction": "1", "answer": "1"},
]


def with_key(key: str, values: str) -> list[dict[str, Any]]:
    return [{**row, key: value} for row, value in zip(ROWS, values, strict=True)]


def test_the_whole_object() -> None:
    found = score_rows("gqa", ROWS)
    low, high = found.pop("interval")
    assert 0 <= low < 0.5 < high <= 1
    assert found == {
        "benchmark": "GQA",
        "protocol": "official",
        "headline": "accuracy",
        "unit": "share, 0 to 1",
        "score": 0.5,
        "parse_failure_rate": 0.25,
        "num_rows": 4,
        "num_parsed": 3,
        "num_ambiguous": 0,
        "num_none": 1,
        "num_clusters": 4,
        "clustered_by": "row",
        "accuracy": 0.5,
        "by": {},
    }


def test_rows_of_one_image_or_question_are_one_cluster() -> None:
    assert score_rows("gqa", with_key("image", "xxyz"))["num_clusters"] == 3
    found = score_rows("gqa", with_key("question", "xxyy"))
    assert (found["num_clusters"], found["clustered_by"]) == (2, "question")
    both = [{**row, "image": "only"} for row in with_key("question", "wxyz")]
    found = score_rows("gqa", both)
    assert (found["interval"], found["clustered_by"]) == (None, "image")
    assert found["reason"] == "no interval: all rows are one cluster"
    # Not every row says so.
    assert score_rows("gqa", [*with_key("image", "xxyz")[:3], ROWS[3]])["clustered_by"] == "row"


def test_units_and_images_are_joined() -> None:
    row = {"prediction": "A", "answer": "A", "choices": ["a", "b"]}
    places = [("g", "1"), ("g", "2"), ("h", "2"), ("i", "3")]
    rows = [
        {**row, "id": n, "group": group, "image": image} for n, (group, image) in enumerate(places)
    ]
    found = score_rows("mmbench", rows)
    assert (found["num_clusters"], found["clustered_by"]) == (2, "unit and image")


def test_the_order_of_rows_does_not_move_the_score() -> None:
    assert score_rows("gqa", ROWS[::-1])["score"] == score_rows("gqa", ROWS)["score"]
    assert score_rows("gqa", ROWS) == score_rows("gqa", ROWS)


def test_grades_of_single_rows() -> None:
    found = grade_rows("gqa", ROWS)
    assert [grade.score for grade in found] == [1, 0, 0, 1]
    assert [grade.parsed for grade in found] == ["parsed", "parsed", "none", "parsed"]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_is_whole(name: str) -> None:
    benchmark = find(name)
    assert benchmark.needs
    assert set(benchmark.needs) <= set(PROTOCOLS)
    assert "official" in benchmark.needs
    assert benchmark.headline not in GENERAL


@pytest.mark.parametrize("name", ["MM-Vet", "mm_vet", "mmvet", "MMVet"])
def test_names_are_found_however_they_are_written(name: str) -> None:
    assert find(name).title == "MM-Vet"


def sentence(*arguments: Any) -> str:
    with pytest.raises(PeeralignError) as caught:
        score_rows(*arguments)
    return str(caught.value)


def test_mistakes() -> None:
    assert sentence("chart-qa2", ROWS).endswith("did you mean 'chartqa'?")
    assert sentence("gqa", ROWS, "lmms_eval") == (
        "GQA has no protocol 'lmms_eval', it has official, lmms-eval, vlmevalkit; "
        "did you mean 'lmms-eval'?"
    )
    assert sentence("gqa", []) == "no rows of GQA to score; give at least one"
    assert sentence("gqa", [*ROWS, ROWS[1]]) == (
        "row 5 has the id 'b' of row 2; give each item one id of its own"
    )
    assert sentence("gqa", [ROWS[0], {"id": 2, "prediction": "x"}]) == (
        "row 2 has no 'answer'; a row of GQA, protocol official, needs id, prediction, answer"
    )


def test_a_files_mistakes_have_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row) for row in ROWS]
    path.write_text("\n".join([*lines[:2], "", lines[2]]) + "\n")
    assert score_file("gqa", path)["num_rows"] == 3

    def of(text: str) -> str:
        path.write_text(text)
        with pytest.raises(PeeralignError) as caught:
            score_file("gqa", path)
        return str(caught.value)

    assert of('{"id": 1}\n').startswith(f"{path}, line 1 has no 'prediction'")
    assert of(f"\n{lines[0]}\n{lines[0]}\n") == (
        f"{path}, line 3 has the id 'a' of {path}, line 2; give each item one id of its own"
    )
    assert of("[1]\n").startswith(f"{path} is no JSON lines at line 1")
    assert of("\n") == f"{path} holds no rows; give one object per line"
    with pytest.raises(PeeralignError, match="it is a folder"):
        score_file("gqa", tmp_path)
