"""Training objectives as pure functions of sequence log-probabilities.

Shapes: N pairs. `logp` is the summed log-probability of an answer's tokens, `length` their number
|y|, end of turn included.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def simpo(
    chosen_logp_N: Tensor,
    chosen_length_N: Tensor,
    rejected_logp_N: Tensor,
    rejected_length_N: Tensor,
    beta: float,
    gamma_beta_ratio: float,
) -> Tensor:
    """SimPO loss per pair (Panel of Peers, section 3.3; Meng et al., 2024, Eq. 6). Returns shape N.

    ``L = -log sigmoid(beta/|y_w| log pi(y_w|I,x) - beta/|y_l| log pi(y_l|I,x) - gamma)``
    with gamma = beta * gamma_beta_ratio; no reference model.
    """
    chosen_N = chosen_logp_N / chosen_length_N
    rejected_N = rejected_logp_N / rejected_length_N
    return -F.logsigmoid(beta * (chosen_N - rejected_N - gamma_beta_ratio))


def nll(logp_N: Tensor, length_N: Tensor) -> Tensor:
    """Cross-entropy per token of each answer. Returns shape N."""
    return -logp_N / length_N
