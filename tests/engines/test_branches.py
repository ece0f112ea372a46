"""Branches against whole forward passes without a cache, after every kind of step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from peeralign.engines.branches import MANY, GrowingLayer, RowBranches, TreeBranches
from peeralign.images.load import open_image


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen2"])
def model(request: pytest.FixtureRequest, untrained: dict[str, Any]) -> Any:
    return untrained[request.param]


@pytest.fixture(scope="module")
def inputs(chat: Any, scenes: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Three prompts of different lengths, left-padded."""
    texts = ["what?", "which shape is left of the red circle?", "how many?"]
    images = [open_image(scene["image"]) for scene in scenes[:3]]
    encoded = chat.encode([chat.prompt(text) for text in texts], images)
    assert len(set(encoded["attention_mask"].sum(dim=1).tolist())) == 3
    return encoded


class Reference:
    """The texts of branches, and their logits by one whole forward pass each."""

    def __init__(self, model: Any, inputs: dict[str, Tensor], prompts: Sequence[int]) -> None:
        self.model, self.inputs = model, inputs
        self.branches: list[tuple[int, list[int]]] = [(prompt, []) for prompt in prompts]

    def keep(self, places: Sequence[int]) -> None:
        self.branches = [(self.branches[p][0], list(self.branches[p][1])) for p in places]

    def feed(self, ids: Sequence[Sequence[int]]) -> None:
        for (_, held), new in zip(self.branches, ids, strict=True):
            held.extend(new)

    @torch.no_grad()
    def logits(self) -> Tensor:
        rows = []
        for prompt, held in self.branches:
            is_prompt = self.inputs["attention_mask"][prompt].bool()
            ids = torch.cat([self.inputs["input_ids"][prompt][is_prompt], torch.tensor(held)])
            pixels = self.inputs["pixel_values"][prompt : prompt + 1]
            output = self.model(input_ids=ids[None].long(), pixel_values=pixels, use_cache=False)
            rows.append(output.logits[0, -1].float())
        return torch.stack(rows)


def some_ids(rng: np.random.Generator, lengths: Sequence[int]) -> list[list[int]]:
    return [rng.integers(6, 60, length).tolist() for length in lengths]


@pytest.mark.parametrize("per_row", [1, 2, 3, MANY])
@pytest.mark.parametrize("prompts", [[0, 1, 2], [1, 1, 0, 1, 2, 0, 1], [2, 2], [0]])
@torch.no_grad()
def test_trees_are_whole_forward_passes(
    model: Any, inputs: dict[str, Tensor], per_row: int, prompts: list[int]
) -> None:
    rng = np.random.default_rng(0)
    tree = TreeBranches(model, inputs)
    # Once to leave something behind: a start forgets all of it.
    tree.start([0, 1, 2, 2])
    tree.feed(some_ids(rng, [3, 1, 9, 2]))
    expected = Reference(model, inputs, prompts)
    torch.testing.assert_close(tree.start(prompts, per_row), expected.logits(), atol=1e-4, rtol=0)
    num = len(prompts)
    for keep, lengths in (
        (range(num), rng.integers(1, 9, num).tolist()),
        (range(num), [1] * num),
        ([*range(num)][::-1], rng.integers(1, 4, num).tolist()),
        ([0, 0, *range(num - 1)], rng.integers(1, 6, num + 1).tolist()),
        ([num], [2]),
    ):
        places = list(keep)
        tree.keep(places)
        expected.keep(places)
        ids = some_ids(rng, lengths)
        expected.feed(ids)
        torch.testing.assert_close(tree.feed(ids), expected.logits(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_branch_of_a_tree_may_wait(model: Any, inputs: dict[str, Tensor]) -> None:
    rng = np.random.default_rng(1)
    tree = TreeBranches(model, inputs)
    tree.start([0, 0, 1, 2])
    expected = Reference(model, inputs, [0, 0, 1, 2])
    for lengths in ([2, 0, 3, 0], [0, 4, 0, 1], [1, 0, 0, 0]):
        ids = some_ids(rng, lengths)
        expected.feed(ids)
        found, wanted = tree.feed(ids), expected.logits()
        fed = [place for place, length in enumerate(lengths) if length]
        torch.testing.assert_close(found[fed], wanted[fed], atol=1e-4, rtol=0)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("prompts", [[0, 1, 2], [1, 1, 0, 2, 1]])
@torch.no_grad()
def test_rows_are_whole_forward_passes(
    model: Any, inputs: dict[str, Tensor], prompts: list[int]
) -> None:
    rng = np.random.default_rng(2)
    rows = RowBranches(model, inputs)
    rows.start([2, 0])
    rows.feed(some_ids(rng, [4, 4]))
    expected = Reference(model, inputs, prompts)
    torch.testing.assert_close(rows.start(prompts), expected.logits(), atol=1e-4, rtol=0)
    for keep, length in ((range(len(prompts)), 3), ([2, 0, 0], 1), ([1, 2], 5)):
        rows.keep(list(keep))
        expected.keep(list(keep))
        ids = some_ids(rng, [length] * len(expected.branches))
        expected.feed(ids)
        torch.testing.assert_close(rows.feed(ids), expected.logits(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_eager_attention_sees_the_same(untrained: dict[str, Any], inputs: Any) -> None:
    model = untrained["llama"]
    text_config = model.config.get_text_config()
    found = []
    for attention in ("sdpa", "eager"):
        previous = text_config._attn_implementation
        model.set_attn_implementation(attention)
        try:
            tree = TreeBranches(model, inputs)
            tree.start([0, 0, 1, 2, 2, 2])
            found.append(tree.feed(some_ids(np.random.default_rng(3), [2, 5, 1, 3, 3, 2])))
        finally:
            model.set_attn_implementation(previous)
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)


def test_a_growing_layer_holds_what_a_dynamic_one_does() -> None:
    rng = torch.Generator().manual_seed(0)
    growing, plain = GrowingLayer(), DynamicLayer()
    for length in (50, 1, 1, 7, 200, 1, 3):
        keys, values = (torch.randn(2, 3, length, 4, generator=rng) for _ in range(2))
        found, expected = growing.update(keys, values), plain.update(keys, values)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    growing.rewind(57)
    keys, values = (torch.randn(2, 3, 5, 4, generator=rng) for _ in range(2))
    found = growing.update(keys, values)
    assert torch.equal(found[0], torch.cat([plain.keys[:, :, :57], keys], dim=2))
    growing.reorder_cache(torch.tensor([1, 1, 0]))
    keys, values = (torch.randn(3, 3, 1, 4, generator=rng) for _ in range(2))
    grown = growing.update(keys, values)[1]
    assert torch.equal(grown, torch.cat([found[1][[1, 1, 0]], values], dim=2))


def test_a_growing_layer_seldom_moves() -> None:
    layer = GrowingLayer()
    layer.update(torch.zeros(1, 1, 900, 4), torch.zeros(1, 1, 900, 4))
    places = set()
    for _ in range(200):
        keys, _ = layer.update(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4))
        places.add(keys.data_ptr())
    assert len(places) <= 2
