"""Train one checkpoint on a fixed sequence of trees; interrupted training goes on exactly."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback

from peeralign.chat import ChatFormat
from peeralign.engines.loading import load_checkpoint, pick_device
from peeralign.errors import PeeralignError
from peeralign.images.load import open_image
from peeralign.progress import Reporter
from peeralign.store.run import disk_errors, replace_folder
from peeralign.training.config import TrainConfig
from peeralign.training.trainer import (
    MarkComplete,
    Objective,
    PeerTrainer,
    TreeSequence,
    can_share_prefix,
    last_complete_checkpoint,
    takes_logits_to_keep,
    training_arguments,
)
from peeralign.training.tree import TreeCollator

log = logging.getLogger(__name__)
# How the parts are called across the families of transformers.
_VISION_NAMES = ("vision_tower", "vision_model", "visual", "vision_embed_tokens", "image_tower")
_PROJECTOR_NAMES = ("projector", "connector", "merger", "image_newline", "mm_proj", "aligner")


def part_of(parameter_name: str) -> str:
    """Which part a parameter belongs to: "vision", "projector" or "language"."""
    if any(name in parameter_name for name in _PROJECTOR_NAMES):
        return "projector"
    if any(name in parameter_name for name in _VISION_NAMES):
        return "vision"
    return "language"


def freeze_all_but(model: Any, parts: list[str]) -> None:
    """Leave gradients on for the named parts only. Raises PeeralignError if none is left."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in parts)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise PeeralignError(
            f"train_parts = {parts} leaves nothing to train in {type(model).__name__}; add a part"
        )


class _ShowProgress(TrainerCallback):
    def __init__(self, tick: Callable[[int], None]) -> None:
        self.tick = tick

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tick(1)


@dataclass(frozen=True, slots=True)
class Job:
    """One training: where it starts, where it goes, and what it is called on the screen."""

    checkpoint: str
    scratch: Path
    final: Path
    learning_rate: float
    seed: int
    label: str
    device: str = "auto"
    trust_remote_code: bool = False


def fit(
    job: Job, trees: TreeSequence, config: TrainConfig, objective: Objective, reporter: Reporter
) -> dict[str, Any]:
    """Train `job.checkpoint` on `trees`, in their order, and write the result to `job.final`.

    Checkpoints go to `job.scratch`; a newer call with the same arguments resumes from the last
    whole one, bit for bit, and the folder is removed at the end. TensorBoard files, when it is
    installed, stay in `job.final`/tensorboard. Returns the last logged metrics.
    """
    set_seed(job.seed % 2**32)
    resume_from = last_complete_checkpoint(job.scratch)
    # Trainer's own resume leaves the weights of most vision-language models as they were built,
    # with a warning only, so the weights are loaded here and Trainer restores the rest.
    model, processor = load_checkpoint(
        str(resume_from or job.checkpoint),
        pick_device(job.device),
        "float32",
        job.trust_remote_code,
    )
    freeze_all_but(model, list(config.train_parts))
    collator = TreeCollator(ChatFormat(processor), open_image, config.max_tokens, share_prefix=True)
    # Pairs and demonstrations branch at different places; both lie among the first rows.
    first = [trees[index] for index in range(min(len(trees), 16))]
    probes = {tree.branches[0].role: tree for tree in first}.values()
    collator.share_prefix = all(can_share_prefix(model, collator, [probe]) for probe in probes)
    trainer = PeerTrainer(
        objective=objective,
        keep_logits=takes_logits_to_keep(model),
        model=model,
        args=_arguments(job, config, pick_device(job.device)),
        train_dataset=trees,
        data_collator=lambda rows: {"batches": collator.by_role(rows)},
        processing_class=processor,
    )
    per_step = config.batch_size * config.gradient_accumulation * trainer.args.world_size
    done = int(resume_from.name.split("-")[1]) if resume_from else 0
    logs = job.scratch / "tensorboard"
    with reporter.bar(job.label, -(-len(trees) // per_step), done) as tick:
        trainer.add_callback(_ShowProgress(tick))
        trainer.add_callback(MarkComplete())
        trainer.remove_callback(PrinterCallback)
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard.writer import SummaryWriter

            trainer.add_callback(TensorBoardCallback(SummaryWriter(str(logs))))
        with disk_errors(job.scratch):
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    aside = job.scratch / "final"
    with disk_errors(aside):
        shutil.rmtree(aside, ignore_errors=True)
        model.save_pretrained(aside)
        processor.save_pretrained(aside)
        if logs.is_dir():
            logs.rename(aside / "tensorboard")
    replace_folder(aside, job.final)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    shutil.rmtree(job.scratch, ignore_errors=True)
    return dict(entries[-1]) if entries else {}


def _arguments(job: Job, config: TrainConfig, device: torch.device) -> TrainingArguments:
    bf16 = config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")
    checkpointing = {"gradient_checkpointing": True} if config.gradient_checkpointing else {}
    return training_arguments(
        job.scratch,
        seed=job.seed % 2**32,
        learning_rate=job.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        lr_scheduler_type=config.scheduler,
        warmup_steps=config.warmup_share,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        bf16=bf16,
        use_cpu=device.type == "cpu",
        save_steps=config.save_every_steps,
        save_total_limit=2,
        logging_steps=config.log_every_steps,
        report_to=[],
        disable_tqdm=True,
        **checkpointing,
    )
