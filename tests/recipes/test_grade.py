"""Judging a file: scores beside its rows, a panel's mean, comparisons, and resuming."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from stages.test_compare import BARE, Critic

from peeralign.errors import PeeralignError
from peeralign.panel import Member
from peeralign.progress import Reporter
from peeralign.recipes import judges as asking
from peeralign.recipes.grade import grade_file
from peeralign.recipes.judges import GradeConfig

ADA = Member(name="ada", model="classroom:ada")
BEN = Member(name="ben", model="classroom:ben")


@pytest.fixture
def answers(tmp_path: Path, scenes: list[dict[str, Any]]) -> Path:
    """Eight rows on four images, of which one has no image and one says the same as another."""
    rows = []
    for place, scene in enumerate(scenes[:4]):
        (tmp_path / f"{place}.png").write_bytes(scene["image"]["bytes"])
        asked = {"image": f"{place}.png", "question": scene["question"]}
        rows += [
            {**asked, "id": f"{place}-{text}", "answer": text} for text in ("red", "blue square")
        ]
    rows[3]["image"] = "missing.png"
    rows[5]["answer"] = "  RED"
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(**judge: Any) -> GradeConfig:
    return GradeConfig.model_validate({"judge": {"rubric": "classroom", **judge}})


def test_scores_beside_the_rows_and_a_panel_s_mean(answers: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = config(readout="expected")
    summary = grade_file(str(answers), [ADA, BEN], out, given, Reporter())
    scores = pl.read_parquet(out / "scores.parquet")
    assert scores["row"].to_list() == [1, 2, 3, 5, 6, 7, 8]
    assert scores["id"][0] == "0-red"
    assert scores["answer"].to_list()[:3] == ["red", "blue square", "red"]
    assert scores["num_judges"].to_list() == [2] * 7
    for row in scores.iter_rows(named=True):
        by_judge = {verdict["judge"]: verdict["score"] for verdict in row["verdicts"]}
        assert row["score"] == pytest.approx((by_judge["ada"] + by_judge["ben"]) / 2)
        assert row["reward"] == pytest.approx(row["score"] / 5)
    # "red" and "  RED" are one answer.
    assert scores["score"][3] == scores["score"][4]
    lines = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == scores["score"].to_list()
    (aside,) = [json.loads(line) for line in (out / "set-aside.jsonl").read_text().splitlines()]
    assert (aside["row"], aside["id"]) == (4, "1-blue square")
    assert summary["rows"] == 7
    assert (summary["set_aside"], summary["reasons"]) == (1, {"unusable image": 1})
    assert summary["judges"] == [
        {"judge": name, "verdicts": 6, "unscored": 0} for name in ("ada", "ben")
    ]
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["mean_score"] == pytest.approx(scores["score"].mean())


def test_a_missing_verdict_is_no_number(answers: Path, tmp_path: Path) -> None:
    # The classroom's peers were never taught this rubric.
    given = config(rubric="detailed_captions")
    summary = grade_file(str(answers), [ADA], tmp_path / "out", given, Reporter())
    scores = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    assert summary["unscored"] == summary["rows"] == 7
    assert scores["score"].null_count() == scores["reward"].null_count() == 7
    assert summary["mean_score"] is None
    for verdicts in scores["verdicts"]:
        assert verdicts[0]["reason"]


@pytest.fixture
def critics(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these engines be opened instead of models."""

    def use(**engines: Critic) -> None:
        monkeypatch.setattr(asking, "open_engine", lambda member, mass: engines[member.name])
        monkeypatch.setattr(asking, "check_member", lambda member: None)

    return use


@pytest.fixture
def pairs(tmp_path: Path, scenes: list[dict[str, Any]]) -> Path:
    (tmp_path / "0.png").write_bytes(scenes[0]["image"]["bytes"])
    (tmp_path / "bare.toml").write_text(BARE)
    given = [("long one", "no"), ("no", "yes"), ("on", "no"), ("mute", "x"), ("", "x")]
    rows = [{"image": "0.png", "question": "what?", "answer_a": a, "answer_b": b} for a, b in given]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_comparisons_beside_the_rows(
    pairs: Path, tmp_path: Path, critics: Callable[..., None]
) -> None:
    critics(fair=Critic(), biased=Critic("first"))
    judges = [Member(name=name, model="none") for name in ("fair", "biased")]
    given = config(rubric=str(tmp_path / "bare.toml"))
    summary = grade_file(str(pairs), judges, tmp_path / "out", given, Reporter())
    scores = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    assert scores["verdict"].to_list() == ["A", "B", "tie", None]
    assert scores["preference"].to_list() == [0.75, 0.25, 0.5, None]
    assert scores["num_judges"].to_list() == [2, 2, 2, 0]
    first = {verdict["judge"]: verdict for verdict in scores["verdicts"][0]}
    assert first["fair"] == {
        "judge": "fair",
        "verdict": "A",
        "preference": 1.0,
        "order_changed": False,
        "explanation": "by length",
        "reason": None,
    }
    assert (first["biased"]["verdict"], first["biased"]["order_changed"]) == ("tie", True)
    assert summary["verdicts"] == {"A": 1, "B": 1, "tie": 1}
    assert summary["order"] == [
        {"judge": "biased", "num_pairs": 3, "changed": 1.0, "shown_first": 1.0},
        {"judge": "fair", "num_pairs": 3, "changed": 0.0, "shown_first": 0.5},
    ]
    assert summary["reasons"] == {"no answer_a": 1}


def test_the_same_call_again_asks_nobody(
    pairs: Path, tmp_path: Path, critics: Callable[..., None]
) -> None:
    critics(c=Critic())
    judges = [Member(name="c", model="none")]
    given = config(rubric=str(tmp_path / "bare.toml"))
    out = tmp_path / "out"
    first = grade_file(str(pairs), judges, out, given, Reporter())
    before = (out / "scores.parquet").read_bytes()
    critics()
    assert grade_file(str(pairs), judges, out, given, Reporter()) == first
    assert (out / "scores.parquet").read_bytes() == before
    for changed, said in (
        (config(rubric=str(tmp_path / "bare.toml"), orders="one"), "judge.orders = both, not one"),
        (config(rubric="pairwise"), "made with other settings"),
    ):
        with pytest.raises(PeeralignError, match=said):
            grade_file(str(pairs), judges, out, changed, Reporter())
    pairs.write_text(pairs.read_text().replace("yes", "yet"))
    with pytest.raises(PeeralignError, match=r"content = .*; this changes everything from the row"):
        grade_file(str(pairs), judges, out, given, Reporter())
    # The rubric's own text counts, not its name alone.
    pairs.write_text(pairs.read_text().replace("yet", "yes"))
    (tmp_path / "bare.toml").write_text(BARE.replace("version = 1", "version = 2"))
    with pytest.raises(PeeralignError, match="rubric = "):
        grade_file(str(pairs), judges, out, given, Reporter())


@pytest.mark.slow
def test_killed_and_resumed_it_gives_the_same(answers: Path, tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "peeralign.cli", "judge", str(answers), "--out", str(out)),
            *("--judge", "classroom:ada", "--judge", "classroom:ben", "--rubric", "classroom"),
            *("--set", "judge.block_size=1", "--set", "judge.readout=expected"),
        ]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True)
    process = subprocess.Popen(command(killed), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(killed.glob("round-1/judgments/*/part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "scores.parquet").exists()
    subprocess.run(command(killed), check=True, capture_output=True)
    shards = sorted(path.relative_to(whole) for path in whole.glob("round-1/**/part-*"))
    # Four questions by two judges.
    assert len(shards) == 8
    for shard in shards:
        assert pl.read_parquet(whole / shard).equals(pl.read_parquet(killed / shard)), shard
    for name in ("scores.parquet", "scores.jsonl", "set-aside.jsonl", "summary.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
