"""Supervised training of any checkpoint: LLaVA-1.5's two stages, and critics.

Stage I (`align`) trains the projector on captions; stage II (`sft`) trains projector and language
model on instructions (Panel of Peers, Table A.1). `critic` trains the whole model on judgements and
reasons (LLaVA-Critic, section 4.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import polars as pl
from pydantic import model_validator

from peeralign.chat import ChatFormat
from peeralign.distributed import meet, on_main
from peeralign.engines.loading import load_processor
from peeralign.errors import PeeralignError
from peeralign.panel import check_local_folder, checkpoint_of
from peeralign.progress import Reporter
from peeralign.records import seed_of
from peeralign.stages.train import demonstration_tree, training_order
from peeralign.store.demonstrations import read_demonstrations
from peeralign.store.run import Run
from peeralign.training.config import HOW_NOT_WHAT, TrainConfig
from peeralign.training.fit import fit
from peeralign.training.objective import Objective
from peeralign.training.prepare import job_alone
from peeralign.training.tree import TreeSequence


class SftConfig(TrainConfig):
    """Training settings, plus the seed of the order, and what is replayed."""

    seed: int = 0
    """Seed of the order of the rows."""
    replay: str | None = None
    """Further instruction data (Parquet, JSONL) for replay_share, against forgetting."""

    @model_validator(mode="after")
    def _replay_has_effect(self) -> Self:
        if (self.replay is None) != (self.replay_share == 0):
            raise ValueError("give both replay and replay_share, or neither")
        return self


ALIGN: dict[str, Any] = {
    "learning_rate": 2e-3,
    "batch_size": 16,
    "epochs": 1,
    "train_parts": ["projector"],
}
SFT: dict[str, Any] = {
    "learning_rate": 2e-5,
    "batch_size": 8,
    "epochs": 1,
    "train_parts": ["projector", "language"],
}
CRITIC: dict[str, Any] = {
    "learning_rate": 2e-6,
    "batch_size": 32,
    "epochs": 1,
    "train_parts": ["vision", "projector", "language"],
}


def train_on_demonstrations(
    model: str, data: str, out: Path, config: SftConfig, reporter: Reporter, label: str = "training"
) -> Path:
    """Cross-entropy on the responses of `data`; writes a checkpoint to `out`/checkpoint.

    Interrupted training goes on with the same call. Returns the checkpoint's folder.
    """
    Run.check_usable(out)
    with meet(out):
        return _train(model, data, out, config, reporter, label)


def _train(
    model: str, data: str, out: Path, config: SftConfig, reporter: Reporter, label: str
) -> Path:
    final = out / "checkpoint"
    check_local_folder(checkpoint_of(model))
    asked = config.model_dump(mode="json", exclude=HOW_NOT_WHAT)
    settings = {"model": model, "data": data, **asked}

    def is_there() -> bool:
        Run.open(out, "sft", settings, config.seed)
        return final.is_dir()

    if on_main("beginning", is_there):
        return final
    if config.nll_weight or config.objective == "sft":
        raise PeeralignError("supervised training has no objective; leave it unset")
    chat = ChatFormat(load_processor(checkpoint_of(model)))
    table, replay = (
        read_demonstrations(path, one_exchange_a_row=not chat.image_first) if path else None
        for path in (data, config.replay)
    )
    assert table is not None
    num_replay = 0 if replay is None else len(replay)
    seed = seed_of("sft", config.seed)
    order = training_order(len(table), num_replay, config.epochs, config.replay_share, seed)
    if replay is not None:
        table = pl.concat([table, replay])
    job = job_alone(model, out, config, seed, label, method="sft")
    trees = TreeSequence(
        lambda index: demonstration_tree(chat, table.row(index, named=True)), order.tolist()
    )
    fit(job, trees, config, Objective(), reporter)
    return final
