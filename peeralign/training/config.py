"""Training settings; the defaults are the paper's (Panel of Peers, Table A.1, stage III)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainConfig(BaseModel):
    """How every learner is trained on the round's pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    objective: Literal["simpo", "sft"] = "simpo"
    """"simpo" on pairs (paper), or "sft": cross-entropy on the chosen answers alone."""
    beta: float = Field(default=2.0, gt=0)
    """SimPO's beta, the scale of the length-normalised log-probabilities. The paper prints none."""
    gamma_beta_ratio: float = Field(default=0.5, ge=0)
    """SimPO's target margin over beta: gamma = beta x gamma_beta_ratio. The paper prints none."""
    nll_weight: float = Field(default=0.0, ge=0)
    """Stabiliser, not in the paper: weight of the chosen answer's cross-entropy beside SimPO."""
    replay_share: float = Field(default=0.0, ge=0, lt=1)
    """Stabiliser, not in the paper: the share of training rows drawn from the member's own
    instruction data (members.replay)."""
    keep_pairs: bool = False
    """Stabiliser, not in the paper: train on the pairs of all rounds so far."""
    learning_rate: float = Field(default=6e-5, gt=0)
    """Peak learning rate of AdamW (paper: 6e-5)."""
    learning_rate_decay: float = Field(default=1.0, gt=0, le=1)
    """Stabiliser, not in the paper: each further round multiplies the learning rate by this."""
    epochs: int = Field(default=2, ge=1)
    """Passes over the round's pairs (paper: 2)."""
    batch_size: int = Field(default=8, ge=1)
    """Rows a device and step (paper: 8)."""
    gradient_accumulation: int = Field(default=1, ge=1)
    """Steps whose gradients are added up before one update."""
    warmup_share: float = Field(default=0.003, ge=0, lt=1)
    """Share of the updates that warm the learning rate up (paper: 0.003)."""
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """Learning-rate schedule (paper: cosine)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay (paper: 0)."""
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    """AdamW's decay of the squared gradients."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    max_tokens: int = Field(default=2048, ge=8)
    """Longest row in tokens, image included; longer answers are cut (paper: 2048)."""
    train_parts: list[Literal["vision", "projector", "language"]] = ["projector", "language"]
    """Which parts learn; the rest is frozen. LLaVA's second stage, and so the paper's, keeps the
    vision tower frozen."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto" is bfloat16 mixed precision on an accelerator, float32 on the CPU."""
    gradient_checkpointing: bool = False
    """Trade time for memory."""
    save_every_steps: int = Field(default=500, ge=1)
    """Updates between checkpoints; an interrupted run repeats at most as many."""
    log_every_steps: int = Field(default=10, ge=1)
    """Updates between log lines (TensorBoard, when it is installed)."""
