"""How much fits into memory: bytes of caches and activations, estimated before they are made.

The estimates need only be of the right size: what does not fit after all is met by halving the
limit and trying again.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any

import torch

from peeralign.errors import PeeralignError

log = logging.getLogger(__name__)
GIB = 2**30
CPU_GIB = 2.0
# Of what is free: the rest is for the vision tower, fragments, and other processes' growth.
FREE_SHARE = 0.8
MIN_BYTES = 2**24
# What one logit takes while a token is drawn: the logits twice, and in double precision their
# softmax, sorted with its order, and the sum. While the likeliest is taken, the logits alone.
DRAW_BYTES = 44
READ_BYTES = 16
# A mask of bools, the two it is made of, and the additive one some kernels turn it into.
MASK_BYTES = 7
# Room a growing cache keeps, and the copy of one layer while it moves.
CACHE_SLACK = 1.2


class TooBig(Exception):
    """A batch of requests does not fit; fewer may."""


class Memory:
    """The memory that one engine may use, and what its model takes of it."""

    def __init__(self, model: Any, device: torch.device, gib: float | None) -> None:
        self.limit = int(gib * GIB) if gib is not None else _free_bytes(device)
        self.device = device
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        size = model.dtype.itemsize
        self.cache_bytes = 2 * config.num_hidden_layers * kv_heads * head_dim * size
        # Masked attention gets one layer's keys and values again, once for every query head.
        self.repeat_bytes = 2 * heads * head_dim * size if kv_heads < heads else 0
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        # The residual stream, its norm in float32, queries, keys and values, or the MLP's three.
        self.compute_bytes = size * (4 * config.hidden_size + 3 * inner) + 8 * config.hidden_size
        self.vocabulary = config.vocab_size
        self.context_tokens = getattr(config, "max_position_embeddings", None) or sys.maxsize
        self.batch_hint = 1

    def tree(
        self, prompt: int, rows: int, branches: int, tail: int, fed: int, logit_bytes: int
    ) -> int:
        """Bytes of one prompt's tree: `rows` of `tail` columns each, `fed` of them in one pass."""
        copies = rows + 1 if rows > 1 else 1
        cached = copies * prompt + rows * tail
        mask = MASK_BYTES * rows * fed * (prompt + tail)
        attended = rows * (prompt + tail) * self.repeat_bytes + mask
        return self._peak(prompt, cached, rows * fed, attended, branches * logit_bytes)

    def rows(self, prompt: int, branches: int, tail: int, fed: int, logit_bytes: int) -> int:
        """Bytes of one prompt and a row of its own for each branch."""
        own = branches * (prompt + tail)
        attended = own * self.repeat_bytes
        return self._peak(prompt, prompt + own, branches * fed, attended, branches * logit_bytes)

    def _peak(self, prompt: int, cached: int, fed: int, attended: int, logit_bytes: int) -> int:
        """The most of what does not lie there at once: the prompt's pass, a later one, its logits.

        `cached` and `fed` are tokens, `attended` bytes, `logit_bytes` bytes a vocabulary entry.
        """
        first = prompt * (CACHE_SLACK * self.cache_bytes + self.repeat_bytes + self.compute_bytes)
        later = max(fed * self.compute_bytes + attended, self.vocabulary * logit_bytes)
        return int(max(first, CACHE_SLACK * cached * self.cache_bytes + later))

    def expect(self, bytes_per_prompt: int) -> None:
        """Say what a prompt takes, so that the next batch is as large as fits."""
        self.batch_hint = max(1, self.limit // max(1, bytes_per_prompt))

    def halve(self, error: RuntimeError) -> None:
        """Go on with half the memory. Raises PeeralignError when that is next to nothing."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.limit //= 2
        if self.limit < MIN_BYTES:
            raise PeeralignError(
                f"out of memory on {self.device} even with a single answer at a time; free memory "
                "there or use another device; the same command goes on where this run stopped"
            ) from error
        log.warning("out of memory: going on with %.2f GiB for batches", self.limit / GIB)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * FREE_SHARE)
    return int(CPU_GIB * GIB)


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch ran out of memory, on any device."""
    text = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in signs)
    )
