"""`peeralign judge-eval` as a user calls it: a real judge on tiny published sets, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evals.judged import SCORES, write
from typer.testing import CliRunner

from peeralign.cli import app, guarded
from peeralign.commands.measuring import lines_of

RUNNER = CliRunner()
Row = dict[str, Any]
Mistake = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, scenes: list[Row]) -> Path:
    for place, scene in enumerate(scenes[:4]):
        (tmp_path / f"{place}.png").write_bytes(scene["image"]["bytes"])
    return tmp_path


@pytest.fixture
def scores(folder: Path, scenes: list[Row]) -> str:
    """MLLM-as-a-Judge's scores of two answers to each of four questions; one image is missing."""
    rows = [
        {
            **{"id": place, "score_id": f"{place}-{name}", "image_path": f"{place}.png"},
            **{"original_dataset": "classroom", "instruction": scene["question"]},
            **{"name": name, "answer": answer, "human": human},
        }
        for place, scene in enumerate(scenes[:4])
        for name, answer, human in (("short", "red", "4"), ("long", "a dog and a purple cow", 2))
    ]
    rows.append({**rows[0], "id": 9, "score_id": "9", "image_path": "9.png"})
    return str(write(folder / "score.jsonl", rows))


@pytest.fixture
def pairs(folder: Path, scenes: list[Row]) -> str:
    """Like VL-RewardBench, a pair of each group."""
    names = ("wildvision-battle_0", "RLHF-V-1", "mathverse_2")
    rows = [
        {
            **{"id": own_id, "image_path": f"{place}.png", "query": scenes[place]["question"]},
            **{"response": ["red", "a dog and a purple cow"], "human_ranking": [0, 1]},
            **{"models": ["one", "other"], "query_source": "classroom"},
        }
        for place, own_id in enumerate(names)
    ]
    return str(write(folder / "pair.jsonl", rows))


def judging(data: str, rubric: str, out: Path, *more: str) -> list[str]:
    named = ["--data", data, "--judge", "classroom:ada", "--rubric", rubric, "--out", str(out)]
    return ["judge-eval", *named, *more]


def run(*arguments: str) -> tuple[str, str]:
    done = RUNNER.invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout, done.stderr


def test_a_model_judges_scores(scores: str, folder: Path) -> None:
    out = folder / "out"
    expected = ("--set", "judge.readout=expected")
    printed, _ = run(*judging(scores, "classroom", out, *expected))
    assert "Scores, 8 rows" in printed
    assert "8 rows judged; 0 of 8 verdicts could not be read" in printed
    assert "1 rows set aside (1 unusable image): set-aside.jsonl" in printed
    assert "add --black-image to the same command" in printed
    # The same figures as of verdicts that were there before.
    again, _ = run("judge-eval", "--scores", str(out / "scores.jsonl"), "--json")
    figures = json.loads(again)
    assert figures == json.loads((out / "figures.json").read_text())
    assert figures["coverage_scores"] == 1.0
    assert figures["pearson"] is not None
    assert figures["intervals"]["pearson"]["low"] <= figures["pearson"]
    black, beside = run(*judging(scores, "classroom", out, *expected, "--black-image", "--json"))
    found = json.loads(black)
    assert found["black_image_change"] is not None
    assert found["pearson"] == figures["pearson"]
    assert "1 rows set aside" in beside
    assert "add --black-image" not in beside


def test_a_model_compares_pairs(pairs: str, folder: Path) -> None:
    # Its verdicts are read from probabilities, however little of them is on the labels.
    readout = ("--set", "judge.readout=expected", "--set", "judge.min_label_mass=0")
    out = folder / "out"
    printed, _ = run(*judging(pairs, "pairwise_short", out, *readout, "--black-image"))
    assert "Pairs, 6 rows" in printed
    for group in ("general", "hallucination", "reasoning"):
        assert group in printed
    figures = json.loads((out / "figures.json").read_text())
    assert figures["coverage"] == 1.0
    assert figures["num_pairs_in_both_orders"] == 3
    assert figures["black_image_verdict_change"] is not None
    again, _ = run("judge-eval", "--pairs", str(out / "pairs.jsonl"), "--json")
    assert json.loads(again) == figures


def test_what_a_model_does_not_say_shows_as_coverage(pairs: str, folder: Path) -> None:
    # The classroom's peers were never taught to write such a verdict.
    printed, _ = run(*judging(pairs, "pairwise_short", folder / "out"))
    assert "6 of 6 verdicts could not be read (6 " in printed
    figures = json.loads((folder / "out" / "figures.json").read_text())
    assert figures["coverage_pairs"] == 0.0
    assert figures["accuracy_with_ties"] is None
    assert figures["reasons"]["accuracy_with_ties"] == "no scored pairs"


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Mistake:
    """Run a command that must fail; its one sentence."""

    def said(*arguments: str) -> str:
        code = guarded(lambda: app(["judge-eval", *arguments], standalone_mode=False))
        printed = capsys.readouterr().err
        assert code == 2
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1, printed
        return printed.removeprefix("error: ").strip()

    return said


def test_judging_and_reading_exclude_each_other(
    scores: str, folder: Path, mistake: Mistake
) -> None:
    there = str(write(folder / "s.jsonl", SCORES))
    for option in ("--scores", "--pairs", "--rankings"):
        assert mistake("--data", scores, option, there) == (
            f"--data is judged now and {option} holds verdicts that are there; give one of them"
        )
    for extra in (
        *(("--judge", "x"), ("--rubric", "x"), ("--out", "x"), ("--set", "seed=1")),
        ("--black-image",),
    ):
        assert mistake("--scores", there, *extra) == (
            f"{extra[0]} is for judging a published set; name its file with --data"
        )
    assert mistake("--data", scores, "--rubric", "classroom") == (
        "--data needs --judge, --out too; --help says what for"
    )
    assert "or --data for a published set" in mistake()


def test_other_mistakes_are_one_sentence(scores: str, folder: Path, mistake: Mistake) -> None:
    out = folder / "out"

    def said(*changes: str, data: str = scores, rubric: str = "classroom") -> str:
        return mistake(*judging(data, rubric, out, *changes)[1:])

    assert said(data="no.jsonl") == "no judgement set at no.jsonl: the file does not exist"
    assert said(rubric="classrom").endswith("did you mean 'classroom'?")
    assert said(rubric="pairwise").endswith("is pairwise; give --rubric one that is absolute")
    assert "unknown setting 'judge.ordres'" in said("--set", "judge.ordres=one")
    assert "no folder at none; set image_root" in said("--set", "image_root=none")
    (folder / "other.jsonl").write_text('{"image": "0.png"}\n')
    assert "is of no known layout" in said(data=str(folder / "other.jsonl"))
    assert not out.exists()
    (out / "other").mkdir(parents=True)
    assert "is no run of peeralign" in said()


def test_what_is_printed_of_a_summary() -> None:
    summary = {
        **{"rows": 3, "verdicts": 3, "unscored": 1, "unread": {"no JSON object": 2}},
        **{"set_aside": 0, "reasons": {}, "tied": 2, "file": "out/rankings.jsonl"},
    }
    assert lines_of(summary, black_image=True) == [
        "3 rows judged; 1 of 3 verdicts could not be read (2 no JSON object)",
        "2 rankings with equal places, whose order was drawn",
        "verdicts: out/rankings.jsonl",
    ]
    assert lines_of(summary, black_image=False)[-1] == (
        "how much of this needs the image: add --black-image to the same command"
    )
