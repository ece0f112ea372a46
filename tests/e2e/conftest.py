"""A small real run: the shipped peers, a few questions, everything else as for a user."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from peeralign.classroom.demo import draw_exam, draw_pool
from peeralign.cli import app, guarded

SETTINGS = """
rounds = 1
questions_per_round = 24

[[members]]
name = "ada"
model = "classroom:ada"

[[members]]
name = "ben"
model = "classroom:ben"

[pool]
path = "pool.parquet"

[exam]
path = "exam.parquet"
max_new_tokens = 6

[generate]
num_draws = 3
max_new_tokens = 6
block_size = 4

[judge]
rubric = "classroom"
readout = "expected"
block_size = 4

[curate]
min_chosen_reward = 0.5
min_margin = 0.05

[train]
train_parts = ["vision", "projector", "language"]
learning_rate = 1e-4
batch_size = 2
epochs = 4
save_every_steps = 3
"""


@dataclass(frozen=True)
class Workplace:
    """A folder with a recipe, a pool and an exam."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "peeralign.cli", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`run` in this process, which is faster: for commands that end before their work."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
            code = guarded(lambda: app(list(arguments), standalone_mode=False))
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("workplace")
    draw_pool(seed=5, num_questions=36).write_parquet(folder / "pool.parquet")
    draw_exam(seed=5, per_skill=3).write_parquet(folder / "exam.parquet")
    (folder / "recipe.toml").write_text(SETTINGS)
    return Workplace(folder)


@pytest.fixture(scope="session")
def finished(workplace: Workplace) -> Path:
    """The folder of an uninterrupted run of the recipe."""
    done = workplace.run("run", "recipe.toml", "--out", "finished")
    assert done.returncode == 0, done.stdout + done.stderr
    return workplace.folder / "finished"
