"""Processes that evaluate together, however far one is behind, and one that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from evals.standins import cell, layouts_of, standin, write_shard
from processes import together

# Rank 1 comes late to everything, when rank 0 may have done it alone.
SCRIPT = """
import sys, time
from pathlib import Path
from peeralign.distributed import rank
from peeralign.engines.base import Draw
from peeralign.evals.asked import BenchmarkConfig
from peeralign.judging.verdict import parse_verdict
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes import evaluate as recipe, together as joint
from peeralign.recipes.answer import AnswerConfig
from peeralign.recipes.together import Together
from peeralign.stages.generate import GenerateConfig
from peeralign.stages.judge import JudgeConfig

class Parrot:
    def answer(self, requests, sampling):
        return [[Draw(request.text.split()[-1], 1)] * sampling.num_draws for request in requests]

    def judge(self, requests, readout):
        return [
            [parse_verdict(each.form.write([1]), each.form) for _ in each.texts]
            for each in requests
        ]

    def close(self): ...

def late(method):
    def wrapped(*given):
        time.sleep(0.2 * rank())
        return method(*given)
    return wrapped

for module in (recipe, joint):
    module.open_engine = lambda member, mass=0.5: Parrot()
recipe.check_member = lambda member: None
recipe.check_answering = lambda panel, config: None
work = recipe._Evaluation
work.ask, work.ask_together, work.grade = map(late, (work.ask, work.ask_together, work.grade))

charts, vet, rubric, out = sys.argv[1:]
members = tuple(Member(name=name, model=f"none/{name}") for name in ("ada", "ben"))
answering = AnswerConfig(generate=GenerateConfig(num_draws=2), judge=JudgeConfig(rubric=rubric))
who = recipe.Who(
    members,
    (Member(name="eye", model="none/eye"),),
    together=Together(Panel(members), answering, 0),
)
config = recipe.EvalConfig(
    benchmarks=(
        BenchmarkConfig(name="chartqa", data=charts),
        BenchmarkConfig(name="mmvet", data=vet, rubric=rubric),
    ),
    block_size=2,
)
recipe.evaluate(who, Path(out), config, Reporter())
"""


def charts(folder: Path, number: int) -> Path:
    """A file like ChartQA's on the hub."""
    file = folder / "chartqa.parquet"
    row = {"type": "human_test", "image": cell("red")}
    write_shard(file, [{"question": f"say {n}", "answer": str(n), **row} for n in range(number)])
    return file


def test_a_late_process_changes_nothing(tmp_path: Path) -> None:
    vet = standin("mmvet", layouts_of("mmvet")[0], tmp_path / "mmvet")
    rubric = tmp_path / "length.toml"
    rubric.write_text(
        'version = 1\naxes = ["points"]\nscale = [0, 10]\nprompt = "{question}|{answer}"\n'
    )
    given = (charts(tmp_path, 3), vet, rubric)
    figures = []
    # The last time there is nothing left to do.
    for world_size in (1, 2, 2):
        out = tmp_path / f"of-{world_size}"
        ended = together(SCRIPT, world_size, *given, out)
        assert [code for code, *_ in ended] == [0] * world_size, ended
        figures.append(json.loads((out / "figures.json").read_text()))
    assert figures[0] == figures[1] == figures[2]
    assert figures[0]["members"] == ["ada", "ben", "panel", "ada-best-of-2", "ben-best-of-2"]


@pytest.mark.slow
def test_killed_and_resumed_it_gives_the_same(tmp_path: Path) -> None:
    data = str(charts(tmp_path, 12))

    def command(out: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "peeralign.cli", "eval", "--member", "classroom:ada"),
            *("--benchmark", "chartqa", "--data", data, "--max-new-tokens", "4", "--json"),
            *("--set", "block_size=1", "--out", str(out)),
        ]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = subprocess.run(command(whole), check=True, capture_output=True).stdout
    process = subprocess.Popen(command(killed), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(killed.glob("predictions/*/*/part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path: os.stat(path).st_mtime_ns for path in killed.glob("predictions/**/part-*")}
    assert 0 < len(finished) < 12
    done = subprocess.run(command(killed), check=True, capture_output=True)
    assert done.stdout == expected
    assert {path: os.stat(path).st_mtime_ns for path in finished} == finished
    for shard in sorted(whole.glob("predictions/**/part-*")):
        assert pl.read_parquet(shard).equals(pl.read_parquet(killed / shard.relative_to(whole)))
