"""Two processes (torchrun, gloo) learn what one learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training.two_processes import in_two, last_lines, train

LORA = {"rank": 4, "alpha": 8.0, "train_fully": ["projector"]}


@pytest.mark.parametrize(
    "lora",
    [pytest.param(None, id="full"), pytest.param(LORA, id="lora", marks=pytest.mark.slow)],
)
def test_two_processes_learn_what_one_learns(
    peer_folder: Path, pairs: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    """Reference, passes, idle shares, sums for the log: all of it shared between them."""
    settings: dict[str, Any] = {
        "objective": "dpo",
        "beta": 0.5,
        "negatives": "softmax",
        "nll_weight": 0.5,
        "epochs": 2,
        "log_every_steps": 1,
        "max_pass_tokens": 256,
        "train_parts": ["vision", "projector", "language"],
        "lora": lora,
    }
    one = train(peer_folder, pairs, tmp_path / "one", {**settings, "batch_size": 4})
    done = in_two(
        "two_processes.py",
        *(peer_folder, pairs, tmp_path / "two", json.dumps({**settings, "batch_size": 2})),
    )
    two = last_lines(done)
    for name in ("loss", "grad_norm", "rewards/margins", "nll_chosen", "lengths/rejected"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
    start = load_file(peer_folder / "model.safetensors")
    found = load_file(tmp_path / "two" / "final" / "model.safetensors")
    moved = 0.0
    for name, weight in load_file(tmp_path / "one" / "final" / "model.safetensors").items():
        moved = max(moved, float((weight - start[name]).abs().max()))
        # AdamW divides by tiny gradients, which makes much of rounding.
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)
    assert moved > 1e-3
