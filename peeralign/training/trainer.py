"""`PeerTrainer`: a `transformers.Trainer` that learns from trees of answers."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from peeralign.training import losses
from peeralign.training.tree import ROLES, Tree, TreeBatch, TreeCollator, answer_logps

log = logging.getLogger(__name__)
COMPLETE = "complete.json"


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised: `name` on pairs, plus weighted cross-entropy terms."""

    name: str = "simpo"
    beta: float = 2.0
    gamma_beta_ratio: float = 0.5
    nll_weight: float = 0.0
    replay_weight: float = 1.0


class TreeSequence(torch.utils.data.Dataset[Tree]):
    """A fixed order over trees, so that a resumed run sees exactly the same batches."""

    def __init__(self, get: Callable[[int], Tree], order: Sequence[int]) -> None:
        self.get = get
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Tree:
        return self.get(int(self.order[index]))


def takes_logits_to_keep(model: Any) -> bool:
    """Whether the model can compute logits for the last columns only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def can_share_prefix(model: Any, collator: TreeCollator, trees: list[Tree]) -> bool:
    """Whether the tree layout gives this model the log-probabilities of the plain layout.

    Run once per loaded model on a few of its own trees. Models with attention over the whole
    prefix or with three-axis positions fail it and train on the plain layout.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window and window < collator.max_tokens:
        # The tree's mask has no window, which trees shorter than the window do not show.
        log.info("attention window of %d tokens: one row an answer", window)
        return False
    tolerance = 2e-3 if model.dtype == torch.float32 else 5e-2
    keep = takes_logits_to_keep(model)
    # A branch that stands alone, or first, is laid out alike either way and proves nothing.
    trees = [replace(tree, branches=tree.branches * 2) for tree in trees]
    was_training = model.training
    model.eval()
    try:
        logps = []
        for share in (True, False):
            collator.share_prefix = share
            batch = collator(trees).to(model.device)
            with torch.no_grad():
                logp_A, length_A = answer_logps(model, batch, keep)
            logps.append(logp_A / length_A)
        difference = float((logps[0] - logps[1]).abs().max())
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        log.info("prefix sharing refused by %s: %s", type(model).__name__, error)
        return False
    finally:
        model.train(was_training)
    if not difference <= tolerance:
        log.info(
            "prefix sharing differs by %.2g for %s: one row an answer",
            difference,
            type(model).__name__,
        )
    return difference <= tolerance


class PeerTrainer(Trainer):
    """Minimises an `Objective` over trees, in the order in which they are given."""

    def __init__(self, objective: Objective, keep_logits: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objective = objective
        self.keep_logits = keep_logits
        # The loss is a mean over the batch: Trainer then divides by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def _prepare_inputs(self, inputs: Any) -> Any:
        return {"batches": [batch.to(self.args.device) for batch in inputs["batches"]]}

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batches: list[TreeBatch] = inputs["batches"]
        parts = [answer_logps(model, batch, self.keep_logits) for batch in batches]
        loss, metrics = objective_loss(
            self.objective,
            torch.cat([batch.role_A for batch in batches]),
            torch.cat([batch.tree_A for batch in batches]),
            torch.cat([logp_A for logp_A, _ in parts]),
            torch.cat([length_A for _, length_A in parts]),
        )
        if self.state.global_step % max(1, int(self.args.logging_steps)) == 0:
            self._pending_metrics = {name: float(value.detach()) for name, value in metrics.items()}
        return (loss, None) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs = {**logs, **getattr(self, "_pending_metrics", {})}
        super().log(logs, *args, **kwargs)


def objective_loss(
    objective: Objective, role_A: Tensor, tree_A: Tensor, logp_A: Tensor, length_A: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The batch's loss and its parts.

    Answers of one pair have the same number in `tree_A`; a tree has at most one chosen answer.
    """
    chosen = (role_A == ROLES.index("chosen")).nonzero().flatten()
    rejected = (role_A == ROLES.index("rejected")).nonzero().flatten()
    replayed = (role_A == ROLES.index("demonstration")).nonzero().flatten()
    loss = logp_A.sum() * 0.0
    metrics: dict[str, Tensor] = {}
    if len(chosen):
        nll = losses.nll(logp_A[chosen], length_A[chosen]).mean()
        metrics["nll_chosen"] = nll
        weight = 1.0 if objective.name == "sft" else objective.nll_weight
        loss = loss + weight * nll
    if len(rejected) and objective.name == "simpo":
        # chosen_of[tree] = that tree's chosen answer.
        chosen_of = torch.full((int(tree_A.max()) + 1,), -1, device=tree_A.device)
        chosen_of[tree_A[chosen]] = chosen
        paired = chosen_of[tree_A[rejected]]
        pair_loss = losses.simpo(
            logp_A[paired],
            length_A[paired],
            logp_A[rejected],
            length_A[rejected],
            objective.beta,
            objective.gamma_beta_ratio,
        )
        loss = loss + pair_loss.mean()
        margin = logp_A[paired] / length_A[paired] - logp_A[rejected] / length_A[rejected]
        metrics["reward_margin"] = objective.beta * margin.mean()
        metrics["reward_accuracy"] = (margin > 0).float().mean()
    if len(replayed):
        replay = -logp_A[replayed].sum() / length_A[replayed].sum()
        metrics["nll_replay"] = replay
        loss = loss + objective.replay_weight * replay
    return loss, metrics


class MarkComplete(TrainerCallback):
    """Writes a marker into a checkpoint as its last file: only marked ones are resumed from.

    Trainer itself takes the newest checkpoint folder even when it was cut off half-way, and then
    restarts the optimiser in silence.
    """

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        marker = folder / f"{COMPLETE}.part"
        with marker.open("w") as file:
            json.dump({"step": state.global_step}, file)
            file.flush()
            os.fsync(file.fileno())
        marker.rename(folder / COMPLETE)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end, or None."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def training_arguments(folder: Path, **settings: Any) -> TrainingArguments:
    """`TrainingArguments` with what peeralign always wants; `settings` has the rest."""
    return TrainingArguments(
        output_dir=str(folder),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        num_train_epochs=1,
        **settings,
    )
