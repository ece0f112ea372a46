"""What a judge is shown of a benchmark, and what its scores become."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from peeralign.evals.benchmarks import find
from peeralign.evals.items import ITEM_SCHEMA
from peeralign.evals.judged import GRADINGS, answers_of, asked_of, graded_rows
from peeralign.judging.rubric import load_rubric
from peeralign.records import JUDGMENT_SCHEMA
from peeralign.stages.generate import answer_id


def items(*rows: dict[str, Any]) -> pl.DataFrame:
    picture = {"bytes": b"x", "path": None}
    table = [
        (str(place), f"prompt {place}", "all", picture, json.dumps(row))
        for place, row in enumerate(rows)
    ]
    return pl.DataFrame(table, schema=ITEM_SCHEMA, orient="row")


def verdicts(*rows: tuple[str, str, str, float | None]) -> pl.DataFrame:
    """(judge, question, answer, points or None)."""
    found = [
        {
            "id": f"{judge} {own_id} {text}",
            "question_id": own_id,
            "answer_id": answer_id(own_id, text),
            "judge": judge,
            "axes": None if points is None else [points],
        }
        for judge, own_id, text, points in rows
    ]
    return pl.DataFrame(found, schema=JUDGMENT_SCHEMA)


@pytest.mark.parametrize("name", GRADINGS)
def test_the_rubric_has_the_scale_of_the_metric(name: str) -> None:
    grading = GRADINGS[name]
    rubric = load_rubric(grading.rubric)
    assert rubric.kind == "absolute"
    assert any(grading.key in needs for needs in find(name).needs.values())
    # The reference is graded like any other answer, or shown.
    assert rubric.needs_reference != grading.with_reference


def test_a_judge_sees_the_bare_question_and_the_reference() -> None:
    asked = asked_of(
        items(
            {"question": "what?", "reference": "a dog"},
            {"question": "who?", "answer": "ada"},
            {"answer": "5", "reference": "five"},
        )
    )
    assert asked.select("id", "text", "reference").rows() == [
        ("0", "what?", "a dog"),
        ("1", "who?", "ada"),
        ("2", "prompt 2", "five"),
    ]


def test_references_are_judged_only_where_they_are_graded() -> None:
    asked = asked_of(
        items({"question": "q", "reference": "R"}, {"question": "q", "reference": "s"})
    )
    replies = {"0": "r"}
    alone = answers_of(GRADINGS["mmvet"], asked, replies)
    assert alone.select("question_id", "text").rows() == [("0", "r")]
    both = answers_of(GRADINGS["llavabench"], asked, {"0": "other"})
    assert both.select("question_id", "text").rows() == [("0", "other"), ("0", "R"), ("1", "s")]
    # Equal but for case: one answer, judged once.
    assert len(answers_of(GRADINGS["llavabench"], asked, replies)) == 2


def row(own_id: str, prediction: str | None) -> dict[str, Any]:
    return {"id": own_id, "prediction": prediction}


def test_scores_are_means_over_judges_on_the_benchmark_s_scale() -> None:
    grading, rubric = GRADINGS["mmvet"], load_rubric("integrated_capabilities")
    said = verdicts(("a", "0", "x", 10.0), ("b", "0", "x", 4.0), ("a", "1", "y", None))
    rows, lost = graded_rows(
        grading, rubric, [row("0", "x"), row("1", "y"), row("2", None)], {}, said
    )
    assert [found["score"] for found in rows] == [pytest.approx(0.7), None, None]
    assert lost == []
    # A rubric of another scale counts as a share of its top score.
    five = load_rubric("classroom")
    rows, _ = graded_rows(grading, five, [row("0", "x")], {}, verdicts(("a", "0", "x", 4.0)))
    assert rows[0]["score"] == pytest.approx(0.8)


def test_an_item_without_a_score_of_its_reference_is_left_out() -> None:
    grading, rubric = GRADINGS["llavabench"], load_rubric("visual_chat")
    said = verdicts(("a", "0", "x", 6.0), ("a", "0", "R", 8.0), ("a", "1", "y", 5.0))
    references = {"0": "R", "1": "S"}
    rows, lost = graded_rows(grading, rubric, [row("0", "x"), row("1", "y")], references, said)
    assert lost == ["1"]
    assert rows == [{**row("0", "x"), "score": 6.0, "reference_score": 8.0}]


@pytest.mark.parametrize(
    ("points", "correctness"),
    [(2.0, 1), (1.6, 1), (1.0, 2), (1.4, 2), (0.4, 0), (0.0, 0), (None, 2)],
)
def test_correctness_is_right_wrong_or_unclear(points: float | None, correctness: int) -> None:
    grading, rubric = GRADINGS["hallusionbench"], load_rubric("yes_no_correctness")
    said = verdicts(("a", "0", "yes", points))
    rows, _ = graded_rows(grading, rubric, [row("0", "yes")], {}, said)
    assert rows[0]["correctness"] == correctness
