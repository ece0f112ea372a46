"""The trainer: its objective by hand, which layout it trusts, which checkpoint it resumes from."""

from __future__ import annotations

import copy
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peeralign.chat import ChatFormat
from peeralign.images.load import open_image
from peeralign.training.trainer import (
    COMPLETE,
    MarkComplete,
    Objective,
    PeerTrainer,
    TreeSequence,
    can_share_prefix,
    last_complete_checkpoint,
    objective_loss,
    takes_logits_to_keep,
    training_arguments,
)
from peeralign.training.tree import ROLES, Branch, Tree, TreeCollator, answer_logps

Answers = tuple[Tensor, Tensor]


def batch_of(*answers: tuple[str, int]) -> Answers:
    """Roles and tree numbers of answers given as (role, tree)."""
    roles: tuple[str, ...] = ROLES
    return (
        torch.tensor([roles.index(role) for role, _ in answers]),
        torch.tensor([tree for _, tree in answers]),
    )


def loss_of(
    objective: Objective, batch: Answers, logp: list[float], length: list[float]
) -> tuple[float, dict[str, float]]:
    loss, metrics = objective_loss(objective, *batch, torch.tensor(logp), torch.tensor(length))
    return loss.item(), {name: value.item() for name, value in metrics.items()}


def minus_log_sigmoid(z: float) -> float:
    return math.log1p(math.exp(-z))


# Two pairs (trees 0 and 2, the second with its rejected answer first), an anchor (tree 1), and a
# demonstration with two exchanges (tree 3).
BATCH = batch_of(
    ("chosen", 0),
    ("rejected", 0),
    ("chosen", 1),
    ("rejected", 2),
    ("chosen", 2),
    ("demonstration", 3),
    ("demonstration", 3),
)
LOGP = [-6.0, -8.0, -1.0, -3.0, -10.0, -4.0, -5.0]
LENGTH = [3.0, 2.0, 2.0, 3.0, 4.0, 1.0, 5.0]
# Means: -2, -4, -0.5, -1, -2.5. Pairs: 2 * (-2 + 4 - 0.5) = 3 and 2 * (-2.5 + 1 - 0.5) = -4.
PAIRS = (minus_log_sigmoid(3.0) + minus_log_sigmoid(-4.0)) / 2
CHOSEN = (2.0 + 0.5 + 2.5) / 3
# Over all tokens of all exchanges, as in supervised training.
REPLAYED = (4.0 + 5.0) / 6


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective(), PAIRS + REPLAYED),
        (Objective(nll_weight=0.3), PAIRS + 0.3 * CHOSEN + REPLAYED),
        (Objective(replay_weight=0.25), PAIRS + 0.25 * REPLAYED),
        (Objective("sft"), CHOSEN + REPLAYED),
        (Objective("sft", nll_weight=9.0), CHOSEN + REPLAYED),
        (
            Objective(beta=1.0, gamma_beta_ratio=1.0),
            (minus_log_sigmoid(1.0) + minus_log_sigmoid(-2.5)) / 2 + REPLAYED,
        ),
    ],
)
def test_the_objective_by_hand(objective: Objective, expected: float) -> None:
    loss, _ = loss_of(objective, BATCH, LOGP, LENGTH)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_the_metrics_by_hand() -> None:
    _, metrics = loss_of(Objective(), BATCH, LOGP, LENGTH)
    assert metrics == pytest.approx(
        {
            "nll_chosen": CHOSEN,
            # beta times the mean of 2 and -1.5; one pair of two is in order.
            "reward_margin": 2.0 * (2.0 - 1.5) / 2,
            "reward_accuracy": 0.5,
            "nll_replay": REPLAYED,
        }
    )


def test_anchors_alone_are_learnt_by_cross_entropy_only() -> None:
    batch = batch_of(("chosen", 0), ("chosen", 1))
    assert loss_of(Objective(nll_weight=0.5), batch, [-6.0, -1.0], [3.0, 1.0])[0] == 0.75
    loss, metrics = loss_of(Objective(), batch, [-6.0, -1.0], [3.0, 1.0])
    assert loss == 0.0
    assert set(metrics) == {"nll_chosen"}


def test_demonstrations_alone() -> None:
    batch = batch_of(("demonstration", 0))
    assert loss_of(Objective(), batch, [-6.0], [3.0]) == (2.0, {"nll_replay": 2.0})


def test_a_loss_without_a_part_still_has_a_gradient() -> None:
    logp = torch.tensor([-6.0], requires_grad=True)
    loss, _ = objective_loss(Objective(), *batch_of(("chosen", 0)), logp, torch.ones(1))
    loss.backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == [0.0]


def test_gradients_raise_chosen_and_replayed_and_lower_rejected() -> None:
    logp = torch.tensor(LOGP, requires_grad=True)
    objective_loss(Objective(nll_weight=1.0), *BATCH, logp, torch.tensor(LENGTH))[0].backward()
    assert logp.grad is not None
    signs = [-1 if value < 0 else 1 for value in logp.grad.tolist()]
    assert signs == [-1, 1, -1, 1, -1, -1, -1]


@pytest.fixture
def pair(chat: ChatFormat, scenes: list[dict[str, Any]]) -> Tree:
    branches = (Branch("", "red", "chosen"), Branch("", "blue green", "rejected"))
    return Tree(scenes[0]["image"], chat.prompt(scenes[0]["question"]), branches)


@pytest.fixture
def collator(chat: ChatFormat) -> TreeCollator:
    return TreeCollator(chat, open_image, 512, share_prefix=True)


@pytest.mark.parametrize("share", [True, False])
def test_batches_by_role_have_the_loss_of_one_batch(
    untrained: dict[str, Any], collator: TreeCollator, pair: Tree, share: bool
) -> None:
    model, collator.share_prefix = untrained["llama"], share
    exchanges = (Branch("", "circle", "demonstration"), Branch("", "2 cross", "demonstration"))
    replay = Tree(pair.image, pair.prefix, exchanges)
    anchor = Tree(pair.image, pair.prefix, (Branch("", "green", "chosen"),))
    turned = Tree(pair.image, pair.prefix, pair.branches[::-1])
    trees = [replay, pair, anchor, replay, turned]
    batches = collator.by_role(trees)
    assert [batch.tree_A.tolist() for batch in batches] == [[0, 0, 1, 2, 2], [3, 3, 4, 4]]
    losses = []
    for parts in (batches, [collator(trees)]):
        with torch.no_grad():
            logps = [answer_logps(model, batch, True) for batch in parts]
        loss, _ = objective_loss(
            Objective(nll_weight=0.5),
            torch.cat([batch.role_A for batch in parts]),
            torch.cat([batch.tree_A for batch in parts]),
            torch.cat([logp for logp, _ in logps]),
            torch.cat([length for _, length in logps]),
        )
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_one_role_is_one_batch(collator: TreeCollator, pair: Tree) -> None:
    replay = Tree(pair.image, pair.prefix, (Branch("", "circle", "demonstration"),))
    for trees in ([pair, pair], [replay, replay]):
        (batch,) = collator.by_role(trees)
        assert batch.tree_A.max() == 1


def without(model: Any, name: str) -> Any:
    """The same model, deaf to one of its inputs."""
    deaf = copy.deepcopy(model)
    forward = deaf.forward

    @functools.wraps(forward)
    def partly(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop(name, None)
        return forward(*args, **kwargs)

    deaf.forward = partly
    return deaf


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2"])
def test_the_classroom_s_models_can_share_a_prefix(
    untrained: dict[str, Any], collator: TreeCollator, pair: Tree, architecture: str
) -> None:
    assert can_share_prefix(untrained[architecture], collator, [pair])


def as_an_anchor(tree: Tree) -> Tree:
    return Tree(tree.image, tree.prefix, tree.branches[:1])


@pytest.mark.parametrize("sample", ["a pair", "an anchor"])
@pytest.mark.parametrize("name", ["attention_mask", "position_ids"])
def test_a_model_that_ignores_the_layout_cannot_share(
    untrained: dict[str, Any], collator: TreeCollator, pair: Tree, name: str, sample: str
) -> None:
    """Whatever tree a run starts with: an anchor's single branch must not pass for a proof."""
    tree = pair if sample == "a pair" else as_an_anchor(pair)
    assert not can_share_prefix(without(untrained["llama"], name), collator, [tree])


def test_a_model_that_refuses_the_layout_cannot_share(
    untrained: dict[str, Any], collator: TreeCollator, pair: Tree
) -> None:
    model = copy.deepcopy(untrained["llama"])
    forward = model.forward

    @functools.wraps(forward)
    def strict(*args: Any, attention_mask: Tensor, **kwargs: Any) -> Any:
        if attention_mask.dim() != 2:
            raise ValueError("attention_mask must have two dimensions")
        return forward(*args, attention_mask=attention_mask, **kwargs)

    model.forward = strict
    assert not can_share_prefix(model, collator, [pair])


@pytest.mark.parametrize("training", [True, False])
def test_the_check_leaves_the_model_as_it_was(
    untrained: dict[str, Any], collator: TreeCollator, pair: Tree, training: bool
) -> None:
    model = copy.deepcopy(untrained["llama"]).train(training)
    can_share_prefix(model, collator, [pair])
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_which_models_take_logits_to_keep(untrained: dict[str, Any]) -> None:
    assert takes_logits_to_keep(untrained["qwen2"])
    assert not takes_logits_to_keep(torch.nn.Linear(1, 1))


def test_a_sequence_keeps_its_order() -> None:
    sequence = TreeSequence(lambda index: index * 10, [3, 1, 1, 2])  # type: ignore[arg-type]
    assert len(sequence) == 4
    assert [sequence[place] for place in range(4)] == [30, 10, 10, 20]


def checkpoint(folder: Path, step: int, complete: bool) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    if complete:
        (path / COMPLETE).write_text(f'{{"step": {step}}}')
    return path


def test_only_a_whole_checkpoint_is_resumed_from(tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path / "nowhere") is None
    checkpoint(tmp_path, 50, complete=False)
    assert last_complete_checkpoint(tmp_path) is None
    expected = checkpoint(tmp_path, 100, complete=True)
    # Steps count as numbers: 90 < 100 < 1000.
    checkpoint(tmp_path, 90, complete=True)
    newest = checkpoint(tmp_path, 1000, complete=False)
    (newest / f"{COMPLETE}.part").write_text("{")
    assert last_complete_checkpoint(tmp_path) == expected


@pytest.fixture
def trained(
    untrained: dict[str, Any], collator: TreeCollator, pair: Tree, tmp_path: Path
) -> PeerTrainer:
    """Six steps on one pair, with a checkpoint after every third."""
    trainer = PeerTrainer(
        objective=Objective(nll_weight=0.5),
        keep_logits=True,
        model=copy.deepcopy(untrained["llama"]),
        args=training_arguments(
            tmp_path,
            seed=0,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            per_device_train_batch_size=2,
            use_cpu=True,
            save_steps=3,
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=TreeSequence(lambda index: pair, [0] * 12),
        data_collator=lambda rows: {"batches": collator.by_role(rows)},
    )
    trainer.add_callback(MarkComplete())
    trainer.train()
    return trainer


def test_training_brings_the_pair_in_order(trained: PeerTrainer) -> None:
    logs = [entry for entry in trained.state.log_history if "loss" in entry]
    assert len(logs) == 6
    for name in ("loss", "nll_chosen"):
        assert logs[-1][name] < logs[0][name]
    assert logs[-1]["reward_margin"] > logs[0]["reward_margin"]
    assert logs[-1]["reward_accuracy"] == 1.0


def test_training_marks_its_checkpoints(trained: PeerTrainer, tmp_path: Path) -> None:
    for step in (3, 6):
        assert (tmp_path / f"checkpoint-{step}" / COMPLETE).is_file()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-6"
