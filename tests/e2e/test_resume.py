"""kill -9 at any moment, the same command again: the same tables and the same weights."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = ("run", "recipe.toml", "--out")
# What has just appeared on disk when the process is killed, and what must not be there yet.
MOMENTS = {
    "in generation": ("round-1/candidates/ada/part-00001.parquet", "round-1/judgments"),
    "in judging": ("round-1/judgments/ada/part-00001.parquet", "round-1/rewards/done.json"),
    "between stages": ("round-1/pairs/done.json", "round-1/members/ada"),
    "in training": ("round-1/training/ben/checkpoint-6/complete.json", "round-1/members/ben"),
    "in the exam": ("round-1/exam/ada/part-00000.parquet", "summary.json"),
}


def _kill_when(workplace, folder: Path, appears: str, absent: str) -> None:
    process = workplace.start(*COMMAND, str(folder))
    deadline = time.monotonic() + 120
    while not (folder / appears).exists():
        assert process.poll() is None, f"the run ended before {appears} was there"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / absent).exists(), f"killed too late: {absent} is there"


@pytest.mark.slow
def test_killed_in_every_stage_gives_the_uninterrupted_result(
    workplace, finished: Path, tmp_path: Path, assert_same_result: Callable[[Path, Path], None]
) -> None:
    folder = tmp_path / "killed"
    for appears, absent in MOMENTS.values():
        _kill_when(workplace, folder, appears, absent)
    done = workplace.run(*COMMAND, str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_result(finished, folder)


def test_a_finished_run_run_again_changes_nothing(
    workplace, finished: Path, tmp_path: Path, assert_same_result: Callable[[Path, Path], None]
) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    before = {path: path.stat().st_mtime_ns for path in again.rglob("part-*.parquet")}
    done = workplace.here(*COMMAND, str(again))
    assert done.returncode == 0, done.stdout + done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in again.rglob("part-*.parquet")}
    assert_same_result(finished, again)


def test_other_settings_are_refused_by_name(workplace, finished: Path) -> None:
    refused = workplace.here(*COMMAND, str(finished), "--set", "train.learning_rate=2e-4")
    assert refused.returncode == 2
    assert "train.learning_rate" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_killed_at_ten_random_moments(
    workplace, finished: Path, tmp_path: Path, assert_same_result: Callable[[Path, Path], None]
) -> None:
    folder = tmp_path / "killed"
    moments = random.Random(7)
    kills = 0
    while kills < 10:
        process = workplace.start(*COMMAND, str(folder))
        time.sleep(moments.uniform(4, 14))
        if process.poll() is not None:
            # It got to the end: start afresh, so that all ten kills hit a live run.
            shutil.rmtree(folder)
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    done = workplace.run(*COMMAND, str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_result(finished, folder)
