"""Branches: prompts computed once, and any number of texts that continue them.

`TreeBranches` keeps the keys and values of a prompt once, however many branches continue it. The
branches of a prompt lie behind it in one row, and a mask lets each see the prompt and itself, never
its siblings:

    row r:  [ padding | prompt ][ pass 1: branch 0, branch 1, ... | padding ][ pass 2: ... ]

So a pass costs its own tokens alone, answers of unequal length need no padding among them, and a
fork copies a row of a boolean mask. What siblings do not see of each other is computed and thrown
away, so many or long branches go into several rows, each with a copy of the prompt (`per_row`).

`RowBranches` is for models that cannot do this (attention over the whole prompt, linear attention,
windows): a row for every branch. `sharing.py` checks which one a model can take.

Shapes: B prompts, R rows, K branches, S most branches of one row, L columns of one pass, T columns
in the cache, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

MANY = sys.maxsize


class Branches(Protocol):
    """Continuations of a batch of prompts."""

    def start(self, prompts: Sequence[int], per_row: int = MANY) -> Tensor:
        """Begin afresh with one branch for every entry, at the end of that prompt.

        `per_row` is the most branches that share one copy of a prompt, where they can share.
        Returns the logits of the next token, of shape (K, V), float32.
        """
        ...

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these branches alone; a place given twice is forked."""
        ...

    def feed(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Append tokens to every branch: the logits after its last one, of shape (K, V), float32.

        A branch of a tree may be given none: its row of the result means nothing.
        """
        ...


class GrowingLayer(DynamicLayer):
    """A cache layer with room to grow; `DynamicLayer` copies all it holds for every new token."""

    _key_room: Tensor | None = None
    _value_room: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
            self.values = value_states.new_empty(
                (*value_states.shape[:2], 0, value_states.shape[3])
            )
        assert self.keys is not None
        assert self.values is not None
        self._key_room, self.keys = _grown(self._key_room, self.keys, key_states)
        self._value_room, self.values = _grown(self._value_room, self.values, value_states)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Any) -> None:
        super().reorder_cache(beam_idx)
        self._key_room = self._value_room = None

    def rewind(self, num_columns: int) -> None:
        """Forget all but the first `num_columns`."""
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = self.keys[:, :, :num_columns], self.values[:, :, :num_columns]


def _grown(room: Tensor | None, held: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """(the room, what is held now): `new` written behind `held`, in place if there is room."""
    start, stop = held.shape[2], held.shape[2] + new.shape[2]
    if room is None or room.shape[2] < stop:
        capacity = stop if room is None else stop + max(64, stop // 8)
        room = new.new_empty((*new.shape[:2], capacity, new.shape[3]))
        room[:, :, :start] = held
    room[:, :, start:stop] = new
    return room, room[:, :, :stop]


class _Model:
    """What both layouts ask of a model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        takes = inspect.signature(model.forward).parameters
        self.trims_logits = "logits_to_keep" in takes
        # Three-axis rotary positions: text has one position on all axes, shifted behind an image.
        self.has_mrope = hasattr(getattr(model, "model", None), "rope_deltas")
        self.shift_B1: Tensor | None = None

    def prefill(self, inputs: dict[str, Tensor], cache: Any) -> tuple[Tensor, Any]:
        """(last logits, cache) of left-padded prompts."""
        extra: dict[str, Any] = {"logits_to_keep": 1} if self.trims_logits else {}
        if not self.has_mrope:
            mask = inputs["attention_mask"]
            extra["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        output = self.model(**inputs, **extra, past_key_values=cache, use_cache=True)
        if self.has_mrope:
            # The module keeps them for the prompt it saw last; others may come before this goes on.
            self.shift_B1 = self.model.model.rope_deltas.clone()
        return output.logits[:, -1].float(), output.past_key_values

    def step(
        self, ids: Tensor, mask: Tensor, positions: Tensor, rows: Tensor, cache: Any, keep: int
    ) -> Tensor:
        """Logits of the last `keep` columns; `rows` says which prompt each row continues."""
        extra: dict[str, Any] = {"logits_to_keep": keep} if self.trims_logits else {}
        if self.shift_B1 is not None:
            positions = (positions + self.shift_B1[rows]).expand(3, -1, -1)
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **extra,
        )
        return output.logits[:, -keep:].float()


class TreeBranches:
    """Branches of a prompt side by side in a row, behind one copy of the prompt."""

    def __init__(self, model: Any, inputs: dict[str, Tensor]) -> None:
        self._model = _Model(model)
        self._prompt_mask_BT = inputs["attention_mask"].bool()
        self._length_B = self._prompt_mask_BT.sum(dim=1).cpu().numpy()
        self._logits_BV, self._prompt_cache = self._model.prefill(
            inputs, Cache(layer_class_to_replicate=GrowingLayer)
        )
        text_config = model.config.get_text_config()
        self._is_additive = getattr(text_config, "_attn_implementation", "sdpa") == "eager"

    def start(self, prompts: Sequence[int], per_row: int = MANY) -> Tensor:
        device = self._logits_BV.device
        for layer in self._prompt_cache.layers:
            layer.rewind(self._prompt_mask_BT.shape[1])
        self._row_K, prompt_R = _rows_of(prompts, len(self._length_B), per_row)
        self._prompt_R = torch.from_numpy(prompt_R).to(device)
        self._cache = self._prompt_cache
        if len(prompt_R) > len(self._length_B):
            self._cache = _selected(self._prompt_cache, self._prompt_R)
        self._next_K = self._length_B[list(prompts)]
        prompt_K = torch.tensor(prompts, device=device)
        self._sees_KT = self._prompt_mask_BT[prompt_K]
        return self._logits_BV[prompt_K]

    def keep(self, places: Sequence[int]) -> None:
        self._row_K, self._next_K = self._row_K[list(places)], self._next_K[list(places)]
        self._sees_KT = self._sees_KT[torch.tensor(places, device=self._sees_KT.device)]

    def feed(self, ids: Sequence[Sequence[int]]) -> Tensor:
        device = self._sees_KT.device
        plan = _Layout(ids, self._row_K, self._next_K, len(self._prompt_R))
        self._next_K = self._next_K + np.array([len(some) for some in ids])
        ids_RL, branch_RL, position_RL, row_K, slot_K = (
            torch.from_numpy(array).to(device)
            for array in (plan.ids_RL, plan.branch_RL, plan.position_RL, self._row_K, plan.slot_K)
        )
        # Padding takes any branch's view: its own result is never read, but must be finite.
        old_RLT = self._sees_KT[branch_RL.clamp(min=0)]
        new_RLL = branch_RL[:, :, None] == branch_RL[:, None, :]
        new_RLL = new_RLL & (position_RL[:, None, :] <= position_RL[:, :, None])
        mask = torch.cat([old_RLT, new_RLL], dim=2)[:, None]
        if self._is_additive:
            dtype = self._model.model.dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(
                ~mask, torch.finfo(dtype).min
            )
        logits_RSV = self._model.step(
            ids_RL, mask, position_RL, self._prompt_R, self._cache, plan.num_slots
        )
        own_KL = branch_RL[row_K] == torch.arange(len(ids), device=device)[:, None]
        self._sees_KT = torch.cat([self._sees_KT, own_KL], dim=1)
        return logits_RSV[row_K, slot_K]


def _rows_of(prompts: Sequence[int], num_prompts: int, per_row: int) -> tuple[Any, Any]:
    """(row of each branch, prompt of each row): a prompt's branches dealt out over its rows."""
    counts = np.bincount(prompts, minlength=num_prompts)
    num_rows = np.maximum(1, -(-counts // min(per_row, max(1, counts.max()))))
    first_row = np.concatenate([[0], num_rows.cumsum()[:-1]])
    seen = [0] * num_prompts
    rows = []
    for prompt in prompts:
        rows.append(first_row[prompt] + seen[prompt] % num_rows[prompt])
        seen[prompt] += 1
    return np.array(rows), np.repeat(np.arange(num_prompts), num_rows)


def spread(
    prompts: Sequence[int], lengths: Sequence[int], num_prompts: int, per_row: int
) -> tuple[int, int, int]:
    """Of branches of these lengths: most (rows of a prompt, branches of a row, tokens of a row).

    Every row of a batch is as wide as the widest, so these say what a pass takes.
    """
    if not prompts:
        return 1, 0, 0
    row_K, prompt_R = _rows_of(prompts, num_prompts, per_row)
    most = (np.bincount(prompt_R), np.bincount(row_K), np.bincount(row_K, weights=lengths))
    rows, branches, tokens = (int(counts.max()) for counts in most)
    return rows, branches, tokens


class _Layout:
    """Where a pass puts its tokens: a row's last tokens stand at its end, all others before them.

    So the logits that are wanted are those of the last S columns, in every row.
    """

    def __init__(
        self, ids: Sequence[Sequence[int]], row_K: Any, next_K: Any, num_rows: int
    ) -> None:
        filled = [0] * num_rows
        counts = [0] * num_rows
        self.slot_K = np.zeros(len(ids), dtype=np.int64)
        early: list[int] = []
        for branch, (row, some) in enumerate(zip(row_K.tolist(), ids, strict=True)):
            early.append(filled[row])
            filled[row] += max(len(some) - 1, 0)
            if some:
                self.slot_K[branch] = counts[row]
                counts[row] += 1
        self.num_slots = max(counts)
        first_slot = max(filled)
        shape = (num_rows, first_slot + self.num_slots)
        self.ids_RL = np.zeros(shape, dtype=np.int64)
        self.branch_RL = np.full(shape, -1, dtype=np.int64)
        self.position_RL = np.zeros(shape, dtype=np.int64)
        for branch, (row, some) in enumerate(zip(row_K.tolist(), ids, strict=True)):
            if not some:
                continue
            last, begin = len(some) - 1, early[branch]
            columns = [*range(begin, begin + last), first_slot + int(self.slot_K[branch])]
            self.ids_RL[row, columns] = some
            self.branch_RL[row, columns] = branch
            self.position_RL[row, columns] = np.arange(last + 1) + next_K[branch]


class RowBranches:
    """A row for every branch, each with its own copy of its prompt's cache."""

    def __init__(self, model: Any, inputs: dict[str, Tensor]) -> None:
        self._model = _Model(model)
        self._prompt_mask_BT = inputs["attention_mask"]
        # The model makes the cache itself: windows and linear attention have layers of their own.
        self._logits_BV, self._prompt_cache = self._model.prefill(inputs, None)
        self._cache: Any = None

    def start(self, prompts: Sequence[int], per_row: int = 1) -> Tensor:
        self._row_K = torch.tensor(prompts, device=self._logits_BV.device)
        # First let go of what came before, so that the two do not lie in memory together.
        self._cache = None
        self._cache = _selected(self._prompt_cache, self._row_K)
        self._mask_KT = self._prompt_mask_BT[self._row_K]
        return self._logits_BV[self._row_K]

    def keep(self, places: Sequence[int]) -> None:
        chosen = torch.tensor(places, device=self._row_K.device)
        self._row_K, self._mask_KT = self._row_K[chosen], self._mask_KT[chosen]
        # In place: layer after layer, where a second cache would need all of its memory again.
        self._cache.reorder_cache(chosen)

    def feed(self, ids: Sequence[Sequence[int]]) -> Tensor:
        ids_KL = torch.tensor(ids, device=self._row_K.device)
        self._mask_KT = torch.cat([self._mask_KT, torch.ones_like(ids_KL)], dim=1)
        positions = (self._mask_KT.cumsum(dim=1) - 1)[:, -ids_KL.shape[1] :]
        return self._model.step(ids_KL, self._mask_KT, positions, self._row_K, self._cache, 1)[:, 0]


def _selected(cache: Any, rows: Tensor) -> Any:
    """A cache of these rows; the given one stays as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in chosen.layers:
        # Layers of linear attention keep their states in dictionaries, and know no other selection.
        for name, value in vars(layer).items():
            if isinstance(value, dict):
                setattr(layer, name, dict(value))
    chosen.reorder_cache(rows)
    return chosen
