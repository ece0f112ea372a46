"""Losses: against the papers' formulas, written out with Python's math module."""

from __future__ import annotations

import math

import pytest
import torch

from peeralign.training.losses import nll, simpo


def formula(chosen: float, rejected: float, beta: float, ratio: float) -> float:
    """Panel of Peers, Eq. 5, on the mean log-probabilities of two answers."""
    margin = beta * chosen - beta * rejected - beta * ratio
    return -math.log(1.0 / (1.0 + math.exp(-margin)))


@pytest.mark.parametrize(
    ("chosen", "rejected", "beta", "ratio"),
    [
        ((-6.0, 3), (-8.0, 2), 2.0, 0.5),
        ((-6.0, 3), (-8.0, 2), 2.5, 0.3),
        ((-40.0, 20), (-1.0, 1), 2.0, 0.5),
        ((-1.0, 5), (-1.0, 5), 2.0, 0.0),
        ((-0.5, 1), (-12.0, 4), 10.0, 1.0),
    ],
)
def test_simpo_is_the_formula(
    chosen: tuple[float, int], rejected: tuple[float, int], beta: float, ratio: float
) -> None:
    loss = simpo(
        *(torch.tensor([float(value)], dtype=torch.float64) for value in (*chosen, *rejected)),
        beta,
        ratio,
    )
    expected = formula(chosen[0] / chosen[1], rejected[0] / rejected[1], beta, ratio)
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_simpo_by_hand() -> None:
    # Means -2 and -4: 2 * (-2 + 4) - 2 * 0.5 = 3, and -log sigmoid(3) = 0.0485873516.
    loss = simpo(*(torch.tensor([x]) for x in (-6.0, 3.0, -8.0, 2.0)), 2.0, 0.5)
    assert loss.item() == pytest.approx(0.0485873516, rel=1e-5)


def test_the_loss_of_a_pair_does_not_depend_on_its_batch() -> None:
    columns = [torch.tensor(x) for x in ([-6.0, -3.0], [3.0, 2.0], [-8.0, -2.0], [2.0, 4.0])]
    together = simpo(*columns, 2.0, 0.5)
    apart = [simpo(*(column[i : i + 1] for column in columns), 2.0, 0.5) for i in range(2)]
    assert together.tolist() == [loss.item() for loss in apart]


def test_gradients_raise_the_chosen_and_lower_the_rejected() -> None:
    chosen = torch.tensor([-6.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-8.0], dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3.0]), torch.tensor([2.0])
    simpo(chosen, lengths[0], rejected, lengths[1], 2.0, 0.5).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    # d/dz of -log sigmoid(z) is -sigmoid(-z), here at z = 3; z grows by beta / |y| per logp.
    slope = 1.0 / (1.0 + math.exp(3.0))
    assert chosen.grad.item() == pytest.approx(-slope * 2.0 / 3.0)
    assert rejected.grad.item() == pytest.approx(slope * 2.0 / 2.0)


@pytest.mark.parametrize(("chosen", "expected"), [(-2000.0, 3999.0), (2000.0, 0.0)])
def test_extreme_margins_stay_finite(chosen: float, expected: float) -> None:
    one = torch.ones(1)
    logp = torch.tensor([chosen], requires_grad=True)
    loss = simpo(logp, one, torch.zeros(1), one, 2.0, -0.5)
    loss.sum().backward()
    assert loss.item() == pytest.approx(expected)
    assert logp.grad is not None
    assert torch.isfinite(logp.grad).all()


def test_nll_is_per_token() -> None:
    losses = nll(torch.tensor([-6.0, -1.0]), torch.tensor([3.0, 4.0]))
    assert losses.tolist() == [2.0, 0.25]
