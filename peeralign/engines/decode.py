"""Draw texts from branches: sampling, greedy decoding, sentence-level beam search.

Sampling is by inverse transform from numbers that belong to the item, so a draw depends on its
seed and not on the batch it was computed in.

Shapes: K branches, V vocabulary, T new tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peeralign.engines.base import Sampling
from peeralign.engines.branches import Branches

# The end of a sentence, with what may close it; also a line's end. Without a word in it, such as
# an empty line, it is none.
_SENTENCE_END = re.compile(r"\w.*([.!?…。！？][\"'”’)\]]*\s*|\n)$", re.DOTALL)  # noqa: RUF001


def sample(logits_KV: Tensor, uniform_K: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw one token a row by inverse transform of `uniform_K`; greedy at temperature 0."""
    if temperature == 0:
        return logits_KV.argmax(dim=-1)
    probs_KV = (logits_KV.double() / temperature).softmax(dim=-1)
    if top_p < 1:
        sorted_KV, order_KV = probs_KV.sort(dim=-1, descending=True)
        outside_KV = sorted_KV.cumsum(dim=-1).sub_(sorted_KV) >= top_p
        probs_KV.masked_fill_(outside_KV.scatter(-1, order_KV, outside_KV), 0.0)
    cumulative_KV = probs_KV.cumsum(dim=-1)
    target_K1 = uniform_K[:, None] * cumulative_KV[:, -1:]
    return torch.searchsorted(cumulative_KV, target_K1, right=True)[:, 0].clamp(
        max=logits_KV.shape[-1] - 1
    )


def uniforms(seeds: Sequence[int], num: int, device: torch.device) -> Tensor:
    """Numbers in [0, 1) of shape (len(seeds), num), each row from its own seed."""
    rows = [np.random.Generator(np.random.Philox(seed)).random(num) for seed in seeds]
    return torch.from_numpy(np.stack(rows)).to(device)


def draw(
    branches: Branches,
    logits_KV: Tensor,
    seeds: Sequence[int],
    sampling: Sampling,
    end_ids: set[int],
) -> list[list[int]]:
    """Continue every branch until an end token (which is kept) or `sampling.max_new_tokens`.

    A branch that has ended is dropped, so it costs nothing while the others go on.
    """
    numbers_KT = uniforms(seeds, sampling.max_new_tokens, logits_KV.device)
    rows: list[list[int]] = [[] for _ in seeds]
    live = list(range(len(seeds)))
    for step in range(sampling.max_new_tokens):
        uniform_K = numbers_KT[:, step]
        tokens = sample(logits_KV, uniform_K, sampling.temperature, sampling.top_p).tolist()
        for row, token in zip(live, tokens, strict=True):
            rows[row].append(token)
        going = [place for place, token in enumerate(tokens) if token not in end_ids]
        if not going or step + 1 == sampling.max_new_tokens:
            break
        if len(going) < len(live):
            branches.keep(going)
            live = [live[place] for place in going]
            numbers_KT = numbers_KT[torch.tensor(going, device=numbers_KT.device)]
        logits_KV = branches.feed([[tokens[place]] for place in going])
    return rows


@dataclass(slots=True)
class _Beam:
    """A growing answer: its tokens, their summed log-probability, whether it has ended."""

    question: int
    seed: int
    ids: list[int]
    logp: float = 0.0
    ended: bool = False


def draw_by_sentence(
    branches: Branches,
    seeds: Sequence[int],
    sampling: Sampling,
    end_ids: set[int],
    decode: Callable[[list[int]], str],
) -> list[list[list[int]]]:
    """Sentence-level beam search for one seed a question: the answers of each question.

    Level by level, each live answer of a question gets `num_continuations` sampled sentences. Of
    those that go on, the `keep_best` and `keep_worst` by summed log-probability live on (CSR, Zhou
    et al., 2024, section 4.1, with log-probabilities for its calibrated reward). All answers that
    ended, and those cut at `max_new_tokens`, are candidates; more than `num_draws` of them are
    thinned from both ends in turn (best, worst, next best, ...), so both stay. Fewer come back if
    fewer were found. Duplicates are left to the caller.
    """
    beam = sampling.beam
    assert beam is not None
    pool: list[list[_Beam]] = [[] for _ in seeds]
    live = [_Beam(question, seed, []) for question, seed in enumerate(seeds)]
    while live:
        # From the prompt again, so that the dead branches of earlier levels hold no memory.
        logits_KV = branches.start([b.question for b in live])
        if live[0].ids:
            logits_KV = branches.feed([b.ids for b in live])
        forks = [place for place in range(len(live)) for _ in range(beam.num_continuations)]
        branches.keep(forks)
        grown = [
            _Beam(
                live[p].question,
                _fork_seed(live[p].seed, n % beam.num_continuations),
                list(live[p].ids),
                live[p].logp,
            )
            for n, p in enumerate(forks)
        ]
        logits_KV = logits_KV[torch.tensor(forks, device=logits_KV.device)]
        _grow(branches, logits_KV, grown, sampling, end_ids, decode)
        live = []
        for question in range(len(seeds)):
            mine = sorted((b for b in grown if b.question == question), key=lambda b: -b.logp)
            pool[question] += [b for b in mine if b.ended]
            going = [b for b in mine if not b.ended]
            worst = going[beam.keep_best :][-beam.keep_worst :] if beam.keep_worst else []
            live += going[: beam.keep_best] + worst
    return [[b.ids for b in _both_ends(found, sampling.num_draws)] for found in pool]


def _fork_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def _grow(
    branches: Branches,
    logits_KV: Tensor,
    grown: list[_Beam],
    sampling: Sampling,
    end_ids: set[int],
    decode: Callable[[list[int]], str],
) -> None:
    """One sentence more for every beam."""
    beam = sampling.beam
    assert beam is not None
    numbers_KT = uniforms([b.seed for b in grown], beam.max_sentence_tokens, logits_KV.device)
    starts = [len(b.ids) for b in grown]
    open_places = list(range(len(grown)))
    for step in range(beam.max_sentence_tokens):
        tokens = _diverse(logits_KV, numbers_KT[:, step], grown, open_places, sampling)
        fed: list[list[int]] = [[] for _ in grown]
        for place, (token, logp) in tokens.items():
            b = grown[place]
            b.ids.append(token)
            b.logp += logp
            b.ended = token in end_ids or len(b.ids) >= sampling.max_new_tokens
            if not b.ended:
                fed[place] = [token]
        if not any(fed):
            break
        logits_KV = branches.feed(fed)
        open_places = [
            place
            for place in open_places
            if fed[place] and not _SENTENCE_END.search(decode(grown[place].ids[starts[place] :]))
        ]
        if not open_places:
            break


def _diverse(
    logits_KV: Tensor,
    uniform_K: Tensor,
    grown: list[_Beam],
    open_places: list[int],
    sampling: Sampling,
) -> dict[int, tuple[int, float]]:
    """{place: (token, its log-probability)}; siblings that chose a token first make it unlikelier.

    The penalty shapes the choice alone (Vijayakumar et al., 2018, Hamming diversity); scores use
    the model's own log-probabilities.
    """
    beam = sampling.beam
    assert beam is not None
    group = beam.num_continuations
    logp_KV = logits_KV.log_softmax(dim=-1)
    chosen: dict[int, tuple[int, float]] = {}
    for sibling in range(group):
        places = [p for p in open_places if p % group == sibling]
        if not places:
            continue
        rows = torch.tensor(places, device=logits_KV.device)
        penalised = logits_KV[rows].clone()
        for row, place in enumerate(places):
            first = place - sibling
            for other in range(first, place):
                if other in chosen:
                    penalised[row, chosen[other][0]] -= beam.diversity_penalty
        tokens_K = sample(penalised, uniform_K[rows], sampling.temperature, sampling.top_p)
        logps = logp_KV[rows, tokens_K].tolist()
        for place, token, logp in zip(places, tokens_K.tolist(), logps, strict=True):
            chosen[place] = (token, logp)
    return chosen


def _both_ends(found: list[_Beam], num: int) -> list[_Beam]:
    """At most `num`, taken in turn from the best and from the worst."""
    ranked = sorted(found, key=lambda b: -b.logp)
    turns: list[_Beam] = []
    while ranked and len(turns) < num:
        turns.append(ranked.pop(0 if len(turns) % 2 == 0 else -1))
    return turns
