"""Trees: one image (and question) computed once, every answer a branch that continues it.

A batch of trees lies in memory as two blocks of columns:

    [ padding | prefix: image (+ question) ][ branch 0 | branch 1 | ... | padding ]
      0 ......................... P-1         P ........................... P+R-1

A branch sees its own prefix and itself, never its siblings, and its position ids continue the
prefix's. So log-probabilities equal those of one row per answer, at a cost of P + K*R tokens
instead of K*(P + R). Models whose attention or positions do not allow this take the plain layout:
the same collator with one branch a row. `training/trainer.py` checks which one a model can do.

Shapes: B rows, T = P + R columns, A answers (branches) in the batch, S supervised tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from peeralign.chat import ChatFormat

Role = Literal["chosen", "rejected", "demonstration"]
ROLES: tuple[Role, ...] = ("chosen", "rejected", "demonstration")


@dataclass(frozen=True, slots=True)
class Branch:
    """Text that continues a tree's prefix: prompt (not learnt), then response (learnt)."""

    prompt: str
    response: str
    role: Role


@dataclass(frozen=True, slots=True)
class Tree:
    """What one training row holds: an image, the prompt all branches share, the branches."""

    image: dict[str, bytes | str | None]
    prefix: str
    branches: tuple[Branch, ...]


@dataclass(slots=True)
class TreeBatch:
    """Model inputs, and where the supervised tokens lie.

    `token_row_S`, `token_column_S`: where each supervised token is; `source_column_S`: the column
    whose logits predict it; `token_id_S`: the token; `token_answer_S`: its answer, 0..A-1.
    `role_A` indexes ROLES; `tree_A` says which tree of the batch an answer belongs to.
    """

    model_inputs: dict[str, Tensor]
    num_prefix_columns: int
    token_row_S: Tensor
    source_column_S: Tensor
    token_id_S: Tensor
    token_answer_S: Tensor
    role_A: Tensor
    tree_A: Tensor

    def to(self, device: torch.device) -> TreeBatch:
        inputs = {name: value.to(device) for name, value in self.model_inputs.items()}
        tensors = {
            name: getattr(self, name).to(device)
            for name in self.__slots__
            if name.endswith(("_S", "_A"))
        }
        return replace(self, model_inputs=inputs, **tensors)


class TreeCollator:
    """Turns trees into a `TreeBatch`. `share_prefix` False gives the plain layout."""

    def __init__(
        self,
        chat: ChatFormat,
        open_image: Callable[[dict[str, bytes | str | None]], Any],
        max_tokens: int,
        share_prefix: bool,
    ) -> None:
        self.chat = chat
        self.open_image = open_image
        self.max_tokens = max_tokens
        self.share_prefix = share_prefix

    def by_role(self, trees: list[Tree]) -> list[TreeBatch]:
        """Pairs and demonstrations apart: they differ in length, and padding costs as much as text.

        `tree_A` counts through all batches.
        """
        replayed = [tree.branches[0].role == "demonstration" for tree in trees]
        pairs = [tree for tree, is_replay in zip(trees, replayed, strict=True) if not is_replay]
        others = [tree for tree, is_replay in zip(trees, replayed, strict=True) if is_replay]
        batches = [self(pairs)] if pairs else []
        return [*batches, self(others, first_tree=len(pairs))] if others else batches

    def __call__(self, trees: list[Tree], first_tree: int = 0) -> TreeBatch:
        rows: list[tuple[str, Any, list[tuple[int, Branch]]]] = []
        roles, tree_of_answer = [], []
        for index, tree in enumerate(trees):
            image = self.open_image(tree.image)
            numbered = []
            for branch in tree.branches:
                numbered.append((len(roles), branch))
                roles.append(ROLES.index(branch.role))
                tree_of_answer.append(first_tree + index)
            if self.share_prefix:
                rows.append((tree.prefix, image, numbered))
            else:
                for answer, branch in numbered:
                    whole = tree.prefix + branch.prompt
                    rows.append((whole, image, [(answer, replace(branch, prompt=""))]))
        inputs = self.chat.encode([row[0] for row in rows], [row[1] for row in rows])
        return self._lay_out(inputs, [row[2] for row in rows], roles, tree_of_answer)

    def _lay_out(
        self,
        inputs: dict[str, Tensor],
        rows: list[list[tuple[int, Branch]]],
        roles: list[int],
        tree_of_answer: list[int],
    ) -> TreeBatch:
        prefix_BP, prefix_mask_BP = inputs["input_ids"], inputs["attention_mask"]
        num_rows, num_prefix = prefix_BP.shape
        # Each row's own prefix counts, not the padding its neighbours bring.
        rooms = (self.max_tokens - prefix_mask_BP.sum(dim=1)).tolist()
        encoded = [
            [(answer, *self._branch_ids(branch, room)) for answer, branch in row]
            for room, row in zip(rooms, rows, strict=True)
        ]
        width = max(sum(len(p) + len(r) for _, p, r in row) for row in encoded)
        tail_BR = torch.full((num_rows, width), self.chat.tokenizer.pad_token_id or 0)
        # Which branch a column belongs to; -1 is padding.
        branch_BR = torch.full((num_rows, width), -1)
        offset_BR = torch.zeros((num_rows, width), dtype=torch.long)
        tokens: list[tuple[int, int, int, int]] = []
        for row, branches in enumerate(encoded):
            start = 0
            for number, (answer, prompt_ids, response_ids) in enumerate(branches):
                ids = prompt_ids + response_ids
                stop = start + len(ids)
                tail_BR[row, start:stop] = torch.tensor(ids)
                branch_BR[row, start:stop] = number
                offset_BR[row, start:stop] = torch.arange(len(ids))
                for place in range(len(prompt_ids), len(ids)):
                    # The first token of a branch is predicted by the prefix's last column.
                    source = num_prefix + start + place - 1 if place else num_prefix - 1
                    tokens.append((row, source, ids[place], answer))
                start = stop
        model_inputs = dict(inputs)
        model_inputs["input_ids"] = torch.cat([prefix_BP, tail_BR], dim=1)
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                model_inputs[name] = _with_types(inputs[name], tail_BR)
        if self.share_prefix:
            length_B1 = prefix_mask_BP.sum(dim=1, keepdim=True)
            prefix_positions_BP = (prefix_mask_BP.cumsum(dim=1) - 1).clamp(min=0)
            model_inputs["position_ids"] = torch.cat(
                [prefix_positions_BP, length_B1 + offset_BR], dim=1
            )
            model_inputs["attention_mask"] = _tree_mask(prefix_mask_BP, branch_BR)
        else:
            tail_mask_BR = (branch_BR >= 0).to(prefix_mask_BP.dtype)
            model_inputs["attention_mask"] = torch.cat([prefix_mask_BP, tail_mask_BR], dim=1)
        row_S, source_S, id_S, answer_S = torch.tensor(tokens).unbind(dim=1)
        return TreeBatch(
            model_inputs=model_inputs,
            num_prefix_columns=num_prefix,
            token_row_S=row_S,
            source_column_S=source_S,
            token_id_S=id_S,
            token_answer_S=answer_S,
            role_A=torch.tensor(roles),
            tree_A=torch.tensor(tree_of_answer),
        )

    def _branch_ids(self, branch: Branch, room: int) -> tuple[list[int], list[int]]:
        prompt = self.chat.prompt_ids(branch.prompt) if branch.prompt else []
        response = self.chat.response_ids(branch.response)
        return prompt, response[: max(1, room - len(prompt))]


def _with_types(types_BP: Tensor, tail_BR: Tensor) -> Tensor:
    """The prefix's token types, and those of its branches behind them.

    Gemma 3 and Qwen mark image tokens with 1, all else with 0. PaliGemma marks the prompt, image
    included, with 0 and the answer with 1: with 0 an answer would see its own future.
    """
    tail_type = 0 if types_BP.any() else 1
    return torch.cat([types_BP, torch.full_like(tail_BR, tail_type)], dim=1)


def _tree_mask(prefix_mask_BP: Tensor, branch_BR: Tensor) -> Tensor:
    """Additive float mask (B, 1, T, T): causal, prefix seen by all, branches apart."""
    # The prefix counts as branch -2; padding on either side as -1.
    prefix_group_BP = torch.where(prefix_mask_BP.bool(), -2, -1)
    group_BT = torch.cat([prefix_group_BP, branch_BR], dim=1)
    same = group_BT[:, :, None] == group_BT[:, None, :]
    seen = same | (group_BT[:, None, :] == -2)
    causal = torch.ones(group_BT.shape[1], group_BT.shape[1], dtype=torch.bool).tril()
    allowed = seen & causal & (group_BT[:, None, :] != -1)
    mask = torch.zeros(allowed.shape, dtype=torch.float32)
    return mask.masked_fill_(~allowed, torch.finfo(torch.float32).min)[:, None]


def answer_logps(model: Any, batch: TreeBatch, keep_logits: bool) -> tuple[Tensor, Tensor]:
    """Summed log-probability and token count of every answer, each of shape A (float32).

    `keep_logits` says that the model takes `logits_to_keep`, so that logits are computed for the
    branch columns only.
    """
    inputs = dict(batch.model_inputs)
    mask = inputs["attention_mask"]
    if mask.dim() == 4:
        low = torch.finfo(model.dtype).min
        inputs["attention_mask"] = mask.clamp(min=low).to(model.dtype)
    first = 0
    options: dict[str, Any] = {"use_cache": False}
    if keep_logits:
        first = batch.num_prefix_columns - 1
        options["logits_to_keep"] = inputs["input_ids"].shape[1] - first
    logits_BTV = model(**inputs, **options).logits
    logits_SV = logits_BTV[batch.token_row_S, batch.source_column_S - first]
    logp_S = -torch.nn.functional.cross_entropy(
        logits_SV.float(), batch.token_id_S, reduction="none"
    )
    zeros_A = torch.zeros(len(batch.role_A), dtype=logp_S.dtype, device=logp_S.device)
    logp_A = zeros_A.index_add(0, batch.token_answer_S, logp_S)
    length_A = zeros_A.index_add(0, batch.token_answer_S, torch.ones_like(logp_S))
    return logp_A, length_A
