"""`peeralign judge` as a user calls it: what it prints, and one sentence for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from peeralign.cli import app, guarded
from peeralign.commands.grading import lines_of, members_of

RUNNER = CliRunner()
Mistake = Callable[..., str]


@pytest.fixture
def answers(tmp_path: Path, scenes: list[dict[str, Any]]) -> Path:
    (tmp_path / "0.png").write_bytes(scenes[0]["image"]["bytes"])
    row = {"image": "0.png", "question": scenes[0]["question"], "answer": "red"}
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "answer": ""}) + "\n")
    return path


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Mistake:
    """Run a command that must fail; its one sentence."""

    def run(*arguments: str) -> str:
        code = guarded(lambda: app(["judge", *arguments], standalone_mode=False))
        printed = capsys.readouterr().err
        assert code == 2
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1, printed
        return printed.removeprefix("error: ").strip()

    return run


def test_a_file_is_judged(answers: Path, tmp_path: Path) -> None:
    member = tmp_path / "second.toml"
    member.write_text('model = "classroom:ben"\ndevice = "cpu"\n')
    done = RUNNER.invoke(
        app,
        [
            *("judge", str(answers), "--judge", "classroom:ada", "--judge", str(member)),
            *("--rubric", "classroom", "--out", str(tmp_path / "out")),
        ],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    assert "1 rows judged, 0 of them without a verdict" in done.stdout
    assert "1 rows set aside (1 no answer): set-aside.jsonl" in done.stdout
    assert f"scores: {tmp_path / 'out' / 'scores.parquet'}" in done.stdout
    row = json.loads((tmp_path / "out" / "scores.jsonl").read_text())
    assert [verdict["judge"] for verdict in row["verdicts"]] == ["ada", "second"]


def test_mistakes_are_one_sentence(answers: Path, tmp_path: Path, mistake: Mistake) -> None:
    data, out = str(answers), tmp_path / "out"

    def said(
        *changes: str, data: str = data, judge: str = "classroom:ada", rubric: str = "classroom"
    ) -> str:
        return mistake(data, "--judge", judge, "--rubric", rubric, "--out", str(out), *changes)

    assert said(data="no.jsonl").startswith("no answers at no.jsonl: the file does not exist")
    assert said(rubric="classrom").endswith("did you mean 'classroom'?")
    assert said(rubric="pairwise").startswith(f"{data} has no column 'answer_a', only image")
    assert "has no column 'reference'" in said(rubric="hallucination")
    assert said(judge="classroom:nobody").startswith("no classroom peer named")
    assert said(judge="none.toml") == "no judge at none.toml: the file does not exist"
    assert said(judge=str(tmp_path / "none")).startswith("no member at ")
    assert "unknown setting 'judge.ordres'" in said("--set", "judge.ordres=one")
    assert "leave judge.judges" in said("--set", "judge.judges=others")
    assert 'set judge.readout = "text"' in said(
        *("--set", "judge.readout=greedy"), rubric="relative_ranking"
    )
    # None of them leaves a folder that the corrected command would refuse.
    assert not out.exists()
    (out / "other").mkdir(parents=True)
    assert "is no run of peeralign" in said()


def test_judges_get_names_of_their_own(tmp_path: Path) -> None:
    named = tmp_path / "named.toml"
    named.write_text('name = "zoe"\nmodel = "x/y"\n')
    given = ["org/Model-7B", "other/Model-7B", "classroom:ada", "./my folder/", str(named)]
    assert [member.name for member in members_of(given)] == [
        *("Model-7B", "Model-7B-2", "ada", "my-folder", "zoe")
    ]


def test_what_is_printed_of_comparisons() -> None:
    summary = {
        **{"rows": 4, "unscored": 1, "set_aside": 0, "reasons": {}},
        "verdicts": {"A": 2, "B": 1, "tie": 0},
        "order": [
            {"judge": "ada", "num_pairs": 3, "changed": 1 / 3, "shown_first": 0.5},
            {"judge": "ben", "num_pairs": 0, "changed": None, "shown_first": None},
        ],
    }
    assert lines_of(summary) == [
        "4 rows judged, 1 of them without a verdict",
        "A 2, B 1, tie 0",
        "ada: 33.3% of 3 verdicts change with the order",
    ]
