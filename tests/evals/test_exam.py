"""Exams: matching, scores by skill, and exam files that cannot be used."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from peeralign.engines.base import AnswerRequest, Draw, Engine, JudgeRequest, Readout, Sampling
from peeralign.errors import PeeralignError
from peeralign.evals.exam import (
    EXAM_FILE_SCHEMA,
    exact_match,
    read_exam,
    sit_exam,
    skill_scores,
)
from peeralign.judging.verdict import Verdict
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.records import EXAM_SCHEMA
from peeralign.store.run import Stage


@pytest.mark.parametrize(
    ("prediction", "answer", "score"),
    [
        ("red", "red", 1.0),
        (" Red\n", "red", 1.0),
        ("dark  red", "Dark Red", 1.0),
        ("red.", "red", 0.0),
        ("red blue", "red", 0.0),
        ("re", "red", 0.0),
        ("", "red", 0.0),
        (None, "red", 0.0),
        ("12", "12%", 0.0),
        ("03", "3", 0.0),
    ],
)
def test_exact_match(prediction: str | None, answer: str, score: float) -> None:
    assert exact_match(prediction, answer) == score


def graded(*rows: tuple[str, float]) -> pl.DataFrame:
    full = [
        (f"i{place}", skill, "General", "?", "!", score, None)
        for place, (skill, score) in enumerate(rows)
    ]
    return pl.DataFrame(full, schema=EXAM_SCHEMA, orient="row")


def test_the_mean_is_over_skills_not_over_questions() -> None:
    table = graded(
        ("count", 1.0), ("colour", 1.0), ("colour", 0.0), ("colour", 0.0), ("count", 1.0)
    )
    assert skill_scores(table) == {
        "mean": pytest.approx((1.0 + 1 / 3) / 2, abs=1e-6),
        "skills": {
            "count": {"score": 1.0, "questions": 2},
            "colour": {"score": 0.333333, "questions": 3},
        },
    }


def test_skills_keep_the_exam_s_order() -> None:
    table = graded(("c", 1.0), ("a", 0.0), ("b", 0.0), ("a", 1.0))
    assert list(skill_scores(table)["skills"]) == ["c", "a", "b"]


def test_items_without_a_score_are_left_out_and_counted() -> None:
    table = graded(("count", 1.0), ("count", 0.0), ("read", 1.0)).with_columns(
        score=pl.when(pl.col("item_id") == "i1").then(None).otherwise("score"),
        reason=pl.when(pl.col("item_id") == "i1").then(pl.lit("BrokenImage: no file at x")),
    )
    assert skill_scores(table) == {
        "mean": 1.0,
        "skills": {
            "count": {"score": 1.0, "questions": 1},
            "read": {"score": 1.0, "questions": 1},
        },
        "set_aside": {"BrokenImage": 1},
    }
    nothing = table.with_columns(score=pl.lit(None, pl.Float64))
    with pytest.raises(PeeralignError, match="has no image that can be opened"):
        skill_scores(nothing)


def picture(shade: int = 0) -> dict[str, Any]:
    data = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


def exam_rows(**changes: Any) -> dict[str, list[Any]]:
    rows = {
        "id": ["e1", "e2"],
        "image": [picture(), picture(1)],
        "text": ["what colour?", "how many?"],
        "answer": ["red", "2"],
        "skill": ["colour", "count"],
        "category": ["General", "Vision-centric"],
    }
    return {name: value for name, value in {**rows, **changes}.items() if value is not None}


def written(folder: Path, rows: dict[str, list[Any]]) -> str:
    path = folder / "exam.parquet"
    pl.DataFrame(rows, strict=False).write_parquet(path)
    return str(path)


def test_an_exam_is_read(tmp_path: Path) -> None:
    table = read_exam(written(tmp_path, exam_rows()))
    assert table.schema == EXAM_FILE_SCHEMA
    assert table.to_dict(as_series=False) == exam_rows()


def test_other_columns_and_orders_do_not_matter(tmp_path: Path) -> None:
    rows = dict(reversed(exam_rows(extra=[1, 2]).items()))
    assert read_exam(written(tmp_path, rows)).to_dict(as_series=False) == exam_rows()


def test_whole_numbers_are_read_as_text(tmp_path: Path) -> None:
    table = read_exam(written(tmp_path, exam_rows(id=[1, 2], answer=[12, 3])))
    assert table["id"].to_list() == ["1", "2"]
    assert table["answer"].to_list() == ["12", "3"]


def test_an_exam_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        PeeralignError, match=r"no exam at .*exam\.parquet: the file does not exist"
    ):
        read_exam(str(tmp_path / "exam.parquet"))


@pytest.mark.parametrize("content", [b"", b"id,text\n1,2\n", b"PAR1" + b"\x00" * 40])
def test_an_exam_that_is_no_parquet_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "exam.parquet"
    path.write_bytes(content)
    with pytest.raises(PeeralignError, match=r"exam\.parquet is not a readable Parquet file"):
        read_exam(str(path))


@pytest.mark.parametrize("column", list(EXAM_FILE_SCHEMA))
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    with pytest.raises(PeeralignError, match=rf"exam\.parquet has no column '{column}'"):
        read_exam(written(tmp_path, exam_rows(**{column: None})))


def test_a_misspelt_column_is_found(tmp_path: Path) -> None:
    rows = exam_rows(answer=None, answers=["red", "2"])
    with pytest.raises(PeeralignError, match="no column 'answer'; did you mean 'answers'"):
        read_exam(written(tmp_path, rows))


def test_an_empty_exam(tmp_path: Path) -> None:
    path = tmp_path / "exam.parquet"
    pl.DataFrame(schema=EXAM_FILE_SCHEMA).write_parquet(path)
    with pytest.raises(PeeralignError, match=r"exam\.parquet holds no questions"):
        read_exam(str(path))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image": ["a.png", "b.png"]}, "image"),
        ({"answer": [["red"], ["2"]]}, "answer"),
        ({"answer": ["red", None]}, "answer"),
        ({"text": [None, "how many?"]}, "text"),
        ({"skill": [None, "count"]}, "skill"),
        # Predictions are joined by id: one of two items would be graded by the other's answer.
        ({"id": ["e1", "e1"]}, "id"),
    ],
    ids=["image", "answer of lists", "no answer", "no text", "no skill", "id twice"],
)
def test_a_column_that_cannot_be_used_is_named(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PeeralignError, match=rf"exam\.parquet.*\b{complaint}\b"):
        read_exam(written(tmp_path, exam_rows(**changes)))


class Parrot:
    """Answers each question with a fixed text; knows no models."""

    def __init__(self, replies: dict[str, str | None]) -> None:
        self.replies = replies
        self.samplings: set[Sampling] = set()

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        self.samplings.add(sampling)
        return [[Draw(self.replies[request.text], 1)] for request in requests]

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        raise AssertionError("nobody is to judge here")

    def close(self) -> None: ...


def test_every_member_sits_the_exam_greedily(tmp_path: Path) -> None:
    exam = read_exam(written(tmp_path, exam_rows()))
    engines: dict[str, Parrot] = {
        "ada": Parrot({"what colour?": "RED", "how many?": None}),
        "senior": Parrot({"what colour?": "blue", "how many?": "2"}),
    }
    # Who does not answer, judge or learn is examined too.
    panel = Panel(
        (
            Member(name="ada", model="none"),
            Member(name="senior", model="none", answers=False, learns=False),
        )
    )

    def open_engine(member: Member) -> Engine:
        return engines[member.name]

    sit_exam(lambda name: Stage(tmp_path / name), exam, panel, open_engine, 9, Reporter())
    ada, senior = (Stage(tmp_path / name).read(EXAM_SCHEMA) for name in engines)
    assert ada.schema == EXAM_SCHEMA
    assert ada.rows() == [
        ("e1", "colour", "General", "what colour?", "RED", 1.0, None),
        ("e2", "count", "Vision-centric", "how many?", None, 0.0, None),
    ]
    assert senior.select("prediction", "score").rows() == [("blue", 0.0), ("2", 1.0)]
    for engine in engines.values():
        assert engine.samplings == {Sampling(1, 0.0, 1.0, 9)}


def test_a_broken_image_is_nobody_s_mistake(tmp_path: Path) -> None:
    broken = {"bytes": b"no picture", "path": None}
    exam = read_exam(written(tmp_path, exam_rows(image=[broken, picture(1)])))
    ada = Member(name="ada", model="none")
    parrot = Parrot({"what colour?": "RED", "how many?": "2"})
    sit_exam(
        lambda name: Stage(tmp_path / name), exam, Panel((ada,)), lambda _: parrot, 9, Reporter()
    )
    table = Stage(tmp_path / "ada").read(EXAM_SCHEMA)
    first, second = table.select("prediction", "score", "reason").rows()
    assert first[:2] == (None, None)
    assert first[2].startswith("BrokenImage: not a PNG")
    assert second == ("2", 1.0, None)
    assert skill_scores(table)["set_aside"] == {"BrokenImage": 1}
