"""`peeralign train`, killed in the middle of an epoch: the same weights as if nothing happened."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from peeralign.classroom.demo import draw_pool

# What has just appeared when the process is killed, one after the other.
MOMENTS = ("reference/key.json", "training/checkpoint-3", "training/checkpoint-6/complete.json")
SHARED = {
    "objective": "dpo",
    "beta": 0.5,
    "batch_size": 2,
    "epochs": 2,
    "learning_rate": 1e-3,
    "save_every_steps": 3,
    "log_every_steps": 1,
    "nll_sum_weight": 0.001,
}
LORA = {"lora": '{rank = 4, alpha = 8.0, dropout = 0.1, train_fully = ["projector"]}'}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve questions with one or two rejected answers; six steps an epoch."""
    sides = [("red", ["green"]), ("2", ["a blue cross", "5"]), ("circle", ["square"])]
    rows = [
        {
            "image": row["image"],
            "question": row["question"],
            "chosen": sides[n % 3][0],
            "rejected": sides[n % 3][1],
        }
        for n, row in enumerate(draw_pool(seed=9, num_questions=12).iter_rows(named=True))
    ]
    path = tmp_path_factory.mktemp("data") / "pairs.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


def arguments(data: Path, out: Path, **settings: Any) -> list[str]:
    assigned = [f"--set={name}={value}" for name, value in (SHARED | settings).items()]
    return ["train", "classroom:ada", str(data), "--out", str(out), *assigned]


def kill_when(workplace: Any, command: list[str], appears: Path) -> None:
    process = workplace.start(*command)
    deadline = time.monotonic() + 120
    while not appears.exists():
        assert process.poll() is None, f"the training ended before {appears} was there"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, LORA], ids=["full", "lora"])
def test_killed_in_the_middle_of_an_epoch(
    workplace: Any, data: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = workplace.run(*arguments(data, tmp_path / "whole", **settings))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    out = tmp_path / "killed"
    command = arguments(data, out, **settings)
    for moment in MOMENTS:
        kill_when(workplace, command, out / moment)
        assert not (out / "checkpoint").exists()
    done = workplace.run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    weights = "checkpoint/model.safetensors"
    assert (out / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    tables = [
        pl.concat(pl.read_parquet(p) for p in sorted((folder / "reference").glob("part-*")))
        for folder in (out, tmp_path / "whole")
    ]
    assert tables[0].equals(tables[1])
    card = (out / "checkpoint" / "README.md").read_text()
    assert "objective" in card
    assert not (out / "training").exists()


@pytest.mark.slow
def test_an_adapter_lies_beside_the_merged_weights(
    workplace: Any, data: Path, tmp_path: Path
) -> None:
    done = workplace.run(*arguments(data, tmp_path / "out", epochs=1, **LORA))
    assert done.returncode == 0, done.stdout + done.stderr
    config = json.loads((tmp_path / "out/checkpoint/adapter/adapter_config.json").read_text())
    assert config["r"] == 4
    assert (tmp_path / "out/checkpoint/config.json").is_file()
    # A second round starts from the merged weights, which are its reference too.
    command = arguments(data, tmp_path / "next", epochs=1, **LORA)
    command[1] = str(tmp_path / "out" / "checkpoint")
    again = workplace.run(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    first, second = (
        json.loads((tmp_path / name / "reference/key.json").read_text()) for name in ("out", "next")
    )
    assert first["data"] == second["data"]
    assert first["weights"] != second["weights"]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"sharding": '{kind = "fsdp2"}'}, "train.sharding"),
        ({"lora": '{quantize = "4bit"}'}, "4bit"),
        ({"objective": '"dpp"'}, "objective"),
        ({"lora": '{targets = ["nothing"]}'}, "nothing"),
        ({"trackers": '["wandb"]'}, "wandb"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    workplace: Any, data: Path, tmp_path: Path, setting: dict[str, str], says: str
) -> None:
    if says == "wandb":
        shutil.which("wandb") and pytest.skip("wandb is installed here")
    refused = workplace.here(*arguments(data, tmp_path / "out", **setting))
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr
