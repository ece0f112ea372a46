"""`peeralign critic-data` and `peeralign critic` as a user calls them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from peeralign.classroom.demo import draw_key, draw_pool
from peeralign.classroom.peers import shipped_peer
from peeralign.cli import app, guarded
from peeralign.training.parts import part_of

RUNNER = CliRunner()
SOURCES = """
[[members]]
name = "ada"
model = "classroom:ada"
judges = false

[[sources]]
name = "classroom"
questions = 18
teacher = "exact"
answers = "classroom:key-100"
pointwise = "classroom"
pairwise = "classroom_pairwise"

[sources.pool]
path = "classroom:pool-100"

[generate]
num_draws = 3
max_new_tokens = 4
"""


def run(*arguments: str) -> str:
    done = RUNNER.invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
    return done.stdout


def test_from_sources_to_a_critic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peeralign.classroom.demo.REPLAY_IMAGES", 8)
    draw_pool(100, 18).write_parquet(tmp_path / "pool.parquet")
    draw_key(100, 18).write_parquet(tmp_path / "key.parquet")
    mine = SOURCES.replace("classroom:key-100", str(tmp_path / "key.parquet"))
    mine = mine.replace("classroom:pool-100", str(tmp_path / "pool.parquet"))
    (tmp_path / "sources.toml").write_text(mine)
    out, critic = tmp_path / "data", tmp_path / "critic"
    said = run("critic-data", str(tmp_path / "sources.toml"), "--out", str(out))
    summary = json.loads((out / "summary.json").read_text())
    assert f"critic data: {out / 'critic.parquet'}" in said
    for row in summary["by_scenario"]:
        line = next(line for line in said.splitlines() if f" {row['kind']} " in line)
        assert str(row["samples"]) in line.split()
    said = run(
        *("critic", "classroom:ada", str(out / "critic.parquet"), "--out", str(critic)),
        *("--set", "replay=classroom:replay-ada", "--set", "replay_share=0.2"),
        *("--set", "learning_rate=1e-3", "--set", "trackers=[]"),
    )
    assert f"checkpoint: {critic / 'checkpoint'}" in said
    before = load_file(shipped_peer("ada") / "model.safetensors")
    after = load_file(critic / "checkpoint" / "model.safetensors")
    learnt = {part_of(n) for n in before if not after[n].equal(before[n].to(after[n].dtype))}
    assert learnt == {"vision", "projector", "language"}


def test_settings_are_printed_as_a_file_of_sources(tmp_path: Path) -> None:
    printed = tomllib.loads(run("config", "critic_data"))
    assert printed["recipe"] == "critic_data"
    assert printed["tie_share"] == 0.2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources = []", "sources"),
        ('[[sources]]\nname = "a"\nfile = "none.jsonl"', "no judgements at none.jsonl"),
        (SOURCES.replace("pool-100", "pool-x"), "the classroom has no table 'pool-x'"),
        (SOURCES.replace("teacher", "teahcer"), "teahcer"),
        ("sources = [", "is not valid TOML"),
        ('recipe = "pop"\n' + SOURCES, "is a recipe for `peeralign run` (pop)"),
    ],
)
def test_one_sentence_for_every_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "sources.toml").write_text(text)
    arguments = ["critic-data", str(tmp_path / "sources.toml"), "--out", str(tmp_path / "out")]
    code = guarded(lambda: app(arguments, standalone_mode=False))
    printed = capsys.readouterr().err
    assert code == 2
    assert printed.startswith("error: ")
    assert said in printed
    assert printed.count("\n") == 1
