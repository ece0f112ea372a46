"""Drawing tokens: by probability, by seed; and whole texts, by sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from peeralign.engines.base import Sampling, SentenceBeam
from peeralign.engines.branches import TreeBranches
from peeralign.engines.decode import draw_by_sentence, sample
from peeralign.images.load import open_image

PROBABILITIES = [0.4, 0.05, 0.25, 0.0, 0.2, 0.1]


def drawn(uniforms: Any, temperature: float = 1.0, top_p: float = 1.0) -> np.ndarray:
    logits = torch.tensor(PROBABILITIES).log().expand(len(uniforms), -1)
    tokens = sample(logits, torch.as_tensor(uniforms), temperature, top_p)
    return np.bincount(tokens.numpy(), minlength=6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_are_drawn_with_their_probabilities(temperature: float) -> None:
    powered = np.array(PROBABILITIES) ** (1 / temperature)
    expected = powered / powered.sum()
    # Evenly spaced numbers leave a token at most one draw off.
    even = drawn((np.arange(10_000) + 0.5) / 10_000, temperature)
    assert np.abs(even - 10_000 * expected).max() <= 1
    counts = drawn(np.random.default_rng(0).random(20_000), temperature)
    assert counts[3] == 0
    possible = expected > 0
    assert chisquare(counts[possible], 20_000 * expected[possible]).pvalue > 0.001


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1.0, {0, 1, 2, 4, 5}),
        (0.96, {0, 1, 2, 4, 5}),
        (0.94, {0, 2, 4, 5}),
        (0.86, {0, 2, 4, 5}),
        (0.84, {0, 2, 4}),
        (0.5, {0, 2}),
        (0.41, {0, 2}),
        (0.39, {0}),
        (1e-9, {0}),
    ],
)
def test_top_p_keeps_the_fewest_likeliest_tokens(top_p: float, kept: set[int]) -> None:
    counts = drawn((np.arange(5000) + 0.5) / 5000, top_p=top_p)
    assert set(np.flatnonzero(counts).tolist()) == kept
    masses = np.array([p if token in kept else 0.0 for token, p in enumerate(PROBABILITIES)])
    assert np.abs(counts - 5000 * masses / masses.sum()).max() <= 1


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-53])
def test_the_ends_of_the_range_draw_possible_tokens(uniform: float) -> None:
    logits = torch.tensor([[0.0, 0.7, 0.0, 0.3, 0.0]]).log()
    token = sample(logits, torch.tensor([uniform], dtype=torch.float64), 1.0, 1.0)
    assert token.tolist() == [1 if uniform == 0.0 else 3]


def test_every_row_is_drawn_by_its_own_number() -> None:
    logits = torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.9, 0.1]]).log()
    uniforms = torch.tensor([0.6, 0.05, 0.95], dtype=torch.float64)
    assert sample(logits, uniforms, 1.0, 1.0).tolist() == [1, 0, 1]
    assert sample(logits, uniforms, 0.0, 1.0).tolist() == [0, 1, 0]


class Bench:
    """An untrained peer with prompts, and summed log-probabilities by whole forward passes."""

    def __init__(self, model: Any, chat: Any, scenes: list[dict[str, Any]]) -> None:
        self.model, self.chat = model, chat
        texts = [chat.prompt(scene["question"]) for scene in scenes]
        self.inputs = chat.encode(texts, [open_image(scene["image"]) for scene in scenes])

    def search(
        self, seeds: list[int], prompts: list[int], decode: Any = None, **settings: Any
    ) -> list[Any]:
        beam = {"num_continuations": 4, "max_sentence_tokens": 5, **settings}
        sampling = Sampling(
            beam.pop("num_draws", 99),
            1.0,
            1.0,
            beam.pop("max_new_tokens", 14),
            SentenceBeam(**beam),
        )
        inputs = {name: value[prompts] for name, value in self.inputs.items()}
        with torch.no_grad():
            branches = TreeBranches(self.model, inputs)
            decode = decode or self.chat.tokenizer.decode
            return draw_by_sentence(branches, seeds, sampling, {1}, decode)

    @torch.no_grad()
    def logp(self, prompt: int, ids: list[int]) -> float:
        own = self.inputs["attention_mask"][prompt].bool()
        whole = torch.cat([self.inputs["input_ids"][prompt][own], torch.tensor(ids)])[None]
        pixels = self.inputs["pixel_values"][prompt : prompt + 1]
        logits = self.model(input_ids=whole, pixel_values=pixels, use_cache=False).logits[0]
        logps = logits[-len(ids) - 1 : -1].log_softmax(dim=-1)
        return float(logps[torch.arange(len(ids)), ids].sum())


@pytest.fixture(scope="module")
def bench(untrained: dict[str, Any], chat: Any, scenes: list[dict[str, Any]]) -> Bench:
    return Bench(untrained["llama"], chat, scenes[:4])


def test_beams_are_seeded_and_do_not_depend_on_the_batch(bench: Bench) -> None:
    found = bench.search([11, 12, 13], [0, 1, 2])
    assert all(len(answers) > 8 for answers in found)
    assert bench.search([12], [1]) == [found[1]]
    assert bench.search([13, 11], [2, 0]) == [found[2], found[0]]
    assert bench.search([21], [1]) != [found[1]]


def test_the_best_and_the_worst_live_on(bench: Bench) -> None:
    (found,) = bench.search([3], [0], keep_best=1, keep_worst=1, max_new_tokens=10)
    # Two levels of five tokens: all that are left grew from at most two of the first level's four.
    whole = [ids for ids in found if len(ids) == 10]
    assert len({tuple(ids[:5]) for ids in whole}) == 2
    # The same seed with every first sentence kept shows what there was to choose from.
    (every,) = bench.search([3], [0], keep_best=4, keep_worst=0, max_new_tokens=10)
    firsts = {tuple(ids[:5]) for ids in every if len(ids) == 10}
    ranked = sorted(firsts, key=lambda ids: bench.logp(0, list(ids)))
    assert len(ranked) > 2
    assert {tuple(ids[:5]) for ids in whole} == {ranked[0], ranked[-1]}


def test_more_than_asked_are_taken_from_both_ends(bench: Bench) -> None:
    (every,) = bench.search([5], [1])
    ranked = sorted(every, key=lambda ids: -bench.logp(1, ids))
    (four,) = bench.search([5], [1], num_draws=4)
    assert four == [ranked[0], ranked[-1], ranked[1], ranked[-2]]
    assert bench.search([5], [1], num_draws=1) == [[ranked[0]]]


def test_a_sentence_ends_where_it_ends(bench: Bench) -> None:
    def decode(ids: list[int]) -> str:
        return "Done." if ids[-1] % 3 == 0 else "not yet"

    (found,) = bench.search([7], [2], decode, keep_best=1, keep_worst=0, max_sentence_tokens=9)
    shared = [ids for ids in found if len(ids) > 9]
    assert shared
    # One lives on, so all that are left share its first sentence, up to the first end.
    for ids in shared:
        end = next((n for n, token in enumerate(ids[:9]) if token % 3 == 0), 8) + 1
        assert ids[:end] == shared[0][:end]


@pytest.mark.parametrize("penalty", [0.0, 50.0])
def test_siblings_keep_off_each_other_s_tokens(bench: Bench, penalty: float) -> None:
    firsts = []
    for seed in range(80):
        (found,) = bench.search(
            [seed], [seed % 4], max_sentence_tokens=1, max_new_tokens=1, diversity_penalty=penalty
        )
        firsts.append(len({ids[0] for ids in found}))
    if penalty:
        assert firsts == [4] * 80
    else:
        assert sum(firsts) < 4 * 80


def test_answers_end_at_the_longest_length(bench: Bench) -> None:
    for ids in bench.search([1], [3], max_new_tokens=7, max_sentence_tokens=3)[0]:
        assert len(ids) == 7 or ids[-1] == 1
