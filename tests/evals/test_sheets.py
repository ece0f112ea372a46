"""What is read of an evaluation's folder and of a run's."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from evals.folders import gqa, png, write_eval, write_exam, write_exam_file, write_run

from peeralign.errors import PeeralignError
from peeralign.evals.sheets import open_side
from peeralign.store.run import Run, Stage


def read(folder: Path, number: int | None) -> None:
    for members in open_side(folder, number).sheets.values():
        for sheet in members.values():
            sheet()


def mistake(folder: Path, number: int | None = None) -> str:
    with pytest.raises(PeeralignError) as caught:
        read(folder, number)
    return str(caught.value)


def test_an_evaluation(tmp_path: Path) -> None:
    rows = {"gqa": {"ada": gqa("10-"), "ben": gqa("111")}, "pope": {"ada": gqa("1")}}
    side = open_side(write_eval(tmp_path / "e", rows), None)
    assert (side.round, side.members) == (None, ["ada", "ben"])
    assert list(side.tasks) == ["gqa", "pope"]
    task = side.tasks["gqa"]
    assert (task.title, task.protocol, task.headline) == ("GQA", "official", "accuracy")
    sheet = side.sheets["gqa"]["ada"]()
    assert list(sheet.rows) == ["000", "001", "002"]
    assert [grade.score for grade in sheet.grades.values()] == [1, 0, 0]
    assert sheet.grades["002"].parsed == "none"
    assert sheet.written["000"]["question"] == "is it 0?"


def test_grades_are_of_the_protocol_that_was_asked_for(tmp_path: Path) -> None:
    row = {"id": 1, "prediction": "Yes.", "answer": "yes"}
    scores = {}
    for protocol in ("official", "lmms-eval"):
        folder = write_eval(tmp_path / protocol, {"pope": {"ada": [row]}}, protocol=protocol)
        sheet = open_side(folder, None).sheets["pope"]["ada"]()
        scores[protocol] = sheet.grades["1"].score
    assert scores == {"official": 1.0, "lmms-eval": 0.0}


def test_mistakes_of_an_evaluation(tmp_path: Path) -> None:
    assert "has no manifest.json" in mistake(tmp_path / "none")
    folder = write_eval(tmp_path / "empty", {"gqa": {}})
    assert "has no finished rows of any benchmark" in mistake(folder)
    folder = write_eval(tmp_path / "e", {"gqa": {"ada": [{"id": 1, "answer": "yes"}]}})
    place = folder / "rows" / "gqa" / "ada.jsonl"
    assert mistake(folder).startswith(f"{place}, line 1 has no 'prediction'")
    assert "which has no rounds; leave --round out" in mistake(folder, 1)
    strange = {"recipe": "eval", "settings": {"benchmarks": [{"name": "../gqa"}]}}
    (folder / "manifest.json").write_text(json.dumps(strange))
    assert "holds an evaluation by '../gqa', which is no benchmark known here" in mistake(folder)
    (folder / "manifest.json").write_text(json.dumps({"recipe": "eval"}))
    assert mistake(folder).startswith(f"{folder} cannot be read as an evaluation or a run")
    (folder / "manifest.json").write_text("{")
    assert "manifest.json is damaged" in mistake(folder)


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    return write_exam_file(tmp_path / "exam.parquet", {"count": 3, "colour": 2})


def test_a_run_after_each_round(tmp_path: Path, exam: Path) -> None:
    rounds = {0: {"ada": {"count": "1-0", "colour": "11"}}, 2: {"ada": {"count": "111"}}}
    folder = write_run(tmp_path / "r", exam, rounds)
    side = open_side(folder, 0)
    assert (side.round, side.members, list(side.tasks)) == (0, ["ada"], ["exam"])
    sheet = side.sheets["exam"]["ada"]()
    assert [grade.score for grade in sheet.grades.values()] == [1, 0, 0, 1, 1]
    assert sheet.grades["count-01"].parsed == "none"
    assert sheet.written["count-00"]["answer"] == "yes"
    task = side.tasks["exam"]
    measures = task.measures(list(sheet.rows.values()), list(sheet.grades.values()))
    once = [1.0] * 5
    # 1 of 3 and 2 of 2.
    assert measures["mean over skills"](once) == pytest.approx(2 / 3)
    assert measures["mean over items"](once) == pytest.approx(3 / 5)
    assert open_side(folder, None).round == 2
    assert "has no exam of round 1, only of 0, 2" in mistake(folder, 1)


def test_the_exams_images_are_its_clusters_while_its_file_is_there(
    tmp_path: Path, exam: Path
) -> None:
    folder = write_run(tmp_path / "r", exam, {0: {"ada": {"count": "110", "colour": "11"}}})
    side = open_side(folder, None)
    rows = side.sheets["exam"]["ada"]().rows
    # The first images of both skills are one.
    assert rows["count-00"]["image"] == rows["colour-00"]["image"] != rows["count-01"]["image"]
    images = side.images("exam", {"count-01", "none"})
    assert images == {"count-01": {"bytes": png(1), "path": None}}
    exam.unlink()
    side = open_side(folder, None)
    assert not any(
        "image" in row or "question" in row for row in side.sheets["exam"]["ada"]().rows.values()
    )
    with pytest.raises(PeeralignError, match="no exam at"):
        side.images("exam", {"count-01"})


def test_another_file_in_the_exams_place_is_not_taken_for_it(tmp_path: Path, exam: Path) -> None:
    folder = write_run(tmp_path / "r", exam, {0: {"ada": {"count": "1"}}})
    other = pl.read_parquet(exam).with_columns(text=pl.lit("something else?"))
    other.write_parquet(exam)
    side = open_side(folder, None)
    assert "image" not in side.sheets["exam"]["ada"]().rows["count-00"]
    assert "answer" not in side.sheets["exam"]["ada"]().written["count-00"]


def test_exams_taken_again_and_with_describing(tmp_path: Path, exam: Path) -> None:
    folder = write_run(tmp_path / "r", exam, {0: {"ada": {"count": "110"}}})
    write_exam(Run(folder).stage(0, "exam-described", "ada"), {"count": "111"})
    write_exam(Stage(folder / "exams" / "second" / "round-0" / "ada"), {"shape": "10"})
    side = open_side(folder, None)
    assert list(side.tasks) == ["exam", "exam-described", "exams/second"]
    assert len(side.sheets["exams/second"]["ada"]().rows) == 2
    with pytest.raises(PeeralignError, match="the exam's file is not known"):
        side.images("exams/second", {"shape-00"})


def test_unfinished_exams_do_not_count(tmp_path: Path, exam: Path) -> None:
    folder = write_run(
        tmp_path / "r", exam, {0: {"ada": {"count": "1"}}, 1: {"ada": {"count": "1"}}}
    )
    Run(folder).stage(1, "exam", "ada").done.unlink()
    assert open_side(folder, None).round == 0
    Run(folder).stage(0, "exam", "ada").done.unlink()
    assert "has no finished exam to compare" in mistake(folder)


def test_two_answers_to_one_question(tmp_path: Path, exam: Path) -> None:
    folder = write_run(tmp_path / "r", exam, {0: {"ada": {"count": "1"}}})
    stage = Run(folder).stage(0, "exam", "ada")
    (stage.folder / "part-00001.parquet").write_bytes(stage.shard(0).read_bytes())
    assert mistake(folder).endswith("has two answers to the question 'count-00'")
