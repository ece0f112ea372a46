"""The local engine: any `AutoModelForImageTextToText` checkpoint, run by `transformers`.

An image, and the text that several continuations share, are computed once: all draws of a question
continue from one prompt, all answers to grade from one image, rubric and question. Questions are
batched as far as `memory_gib` allows.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from peeralign.chat import ChatFormat
from peeralign.engines.base import (
    AnswerRequest,
    Draw,
    JudgeRequest,
    PixelNoise,
    Readout,
    Sampling,
)
from peeralign.engines.branches import Branches, RowBranches, TreeBranches, spread
from peeralign.engines.decode import draw, draw_by_sentence
from peeralign.engines.loading import load_checkpoint, pick_device
from peeralign.engines.memory import (
    DRAW_BYTES,
    GIB,
    READ_BYTES,
    Memory,
    TooBig,
    is_out_of_memory,
)
from peeralign.engines.noise import add_noise
from peeralign.engines.readout import VerdictSkeleton, read_scores
from peeralign.engines.sharing import can_share_prefix, lengthened, split_texts, window_of
from peeralign.errors import PeeralignError
from peeralign.judging.verdict import Form, Verdict, parse_verdict

log = logging.getLogger(__name__)
# Draws that share one copy of their prompt. In decoding, reading the prompt is what takes time.
DRAWS_PER_ROW = 16
# Answers to grade share a copy while they are together shorter than the prompt times this (or than
# the longest of them): in one long pass, masked attention between siblings is what takes time.
TAIL_SHARE = 1.0
Request = TypeVar("Request")
Result = TypeVar("Result")


class LocalEngine:
    """A checkpoint in this process.

    `memory_gib` bounds caches and activations beside the weights (None: 80 % of what the device has
    free, 2 GiB on the CPU). `share_prefix` None finds out whether branches of one prompt may share
    it; False computes every answer's prompt by itself.
    """

    def __init__(
        self,
        model: str,
        device: str = "auto",
        dtype: str = "auto",
        memory_gib: float | None = None,
        trust_remote_code: bool = False,
        min_label_mass: float = 0.5,
        share_prefix: bool | None = None,
    ) -> None:
        self.device = pick_device(device)
        self.model, self.processor = load_checkpoint(model, self.device, dtype, trust_remote_code)
        self.chat = ChatFormat(self.processor)
        self.min_label_mass = min_label_mass
        self.memory = Memory(self.model, self.device, memory_gib)
        eos = self.model.generation_config.eos_token_id
        ends = eos if isinstance(eos, list) else [eos]
        self.end_ids = {
            i for i in (*ends, self.chat.tokenizer.eos_token_id, self.chat.end_id) if i is not None
        }
        self._skeletons: dict[Form, VerdictSkeleton] = {}
        self.window = window_of(self.model)
        if share_prefix is None:
            share_prefix = can_share_prefix(self.model, self.chat, self._encode)
        self.shares_prefix = share_prefix

    def close(self) -> None:
        del self.model
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        if sampling.beam is not None and not self.shares_prefix:
            raise PeeralignError(
                "sentence-level beam search needs a model whose answers can share their prompt, "
                f'and {type(self.model).__name__} cannot; set generate.sampler = "sampling"'
            )
        return self._in_batches(requests, lambda some: self._answer(some, sampling))

    @torch.inference_mode()
    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        # Texts of one length side by side, so that little of a batch is padding.
        order = sorted(range(len(requests)), key=lambda place: len("".join(requests[place].texts)))
        verdicts: list[list[Verdict]] = [[] for _ in requests]
        for form in dict.fromkeys(request.form for request in requests):
            places = [place for place in order if requests[place].form == form]
            some = [requests[place] for place in places]
            if self.shares_prefix:
                found = self._in_batches(
                    some, lambda few, form=form: self._judge(few, form, readout)
                )
            else:
                found = self._judge_singly(some, form, readout)
            for place, row in zip(places, found, strict=True):
                verdicts[place] = row
        return verdicts

    def _judge_singly(
        self, requests: Sequence[JudgeRequest], form: Form, readout: Readout
    ) -> list[list[Verdict]]:
        """Every text with a prompt of its own."""
        singles = [replace(r, texts=(text,)) for r in requests for text in r.texts]
        found = iter(self._in_batches(singles, lambda few: self._judge_rows(few, form, readout)))
        return [[next(found) for _ in request.texts] for request in requests]

    def _in_batches(
        self, requests: Sequence[Request], work: Callable[[Sequence[Request]], list[Result]]
    ) -> list[Result]:
        """`work` on as many requests at a time as fit into memory."""
        # From scratch in every call: what a resumed run computes must not hang on what came before.
        self.memory.batch_hint = 1
        results: list[Result] = []
        while len(results) < len(requests):
            batch = requests[len(results) : len(results) + self.memory.batch_hint]
            try:
                results += work(batch)
            except TooBig:
                self.memory.batch_hint = min(self.memory.batch_hint, len(batch) // 2)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                # The frames of the traceback hold what has just not fitted.
                error.__traceback__ = None
                self.memory.halve(error)
                self.memory.batch_hint = max(1, len(batch) // 2)
        return results

    def _answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        prompts = [self.chat.prompt(r.text) for r in requests]
        inputs = self._encode(prompts, [r.image for r in requests], [r.noise for r in requests])
        width, longest, beam = inputs["input_ids"].shape[1], sampling.max_new_tokens, sampling.beam
        is_tree = self.shares_prefix and width + longest <= self.window
        logit_bytes = DRAW_BYTES if sampling.temperature else READ_BYTES

        def cost(branches: Sequence[int]) -> int:
            num = len(branches)
            if beam is not None:
                live = beam.keep_best + beam.keep_worst
                forks = live * beam.num_continuations
                tail = live * longest + forks * beam.max_sentence_tokens
                return self.memory.tree(width, 1, forks, tail, live * longest, logit_bytes)
            if is_tree:
                rows, most, _ = spread([0] * num, [1] * num, 1, DRAWS_PER_ROW)
                return self.memory.tree(width, rows, num, most * longest, most, logit_bytes)
            return self.memory.rows(width, num, longest, 1, logit_bytes)

        fits = width + longest <= self.memory.context_tokens
        numbers = list(range(1 if beam else sampling.num_draws))
        groups = self._groups(len(requests), numbers, cost) if fits else []
        if not groups:
            if len(requests) > 1:
                raise TooBig
            return [[Draw(None, 0, self._refusal(width + longest))] * sampling.num_draws]
        branches = (TreeBranches if is_tree else RowBranches)(self.model, inputs)
        if beam is not None:
            if not is_tree:
                raise ValueError("sentence-level beam search cannot go beyond the model's window")
            seeds = [r.seeds[0] for r in requests]
            found = draw_by_sentence(branches, seeds, sampling, self.end_ids, self._text)
            return [[self._draw(ids) for ids in rows] for rows in found]
        draws: list[list[Draw]] = [[] for _ in requests]
        for group in groups:
            of_branch = [place for place in range(len(requests)) for _ in group]
            seeds = [r.seeds[number] for r in requests for number in group]
            logits_KV = branches.start(of_branch, DRAWS_PER_ROW)
            rows = draw(branches, logits_KV, seeds, sampling, self.end_ids)
            for place, ids in zip(of_branch, rows, strict=True):
                draws[place].append(self._draw(ids))
        return draws

    def _judge(
        self, requests: Sequence[JudgeRequest], form: Form, readout: Readout
    ) -> list[list[Verdict]]:
        skeleton = None if readout == "text" else self._skeleton(form)
        start = skeleton.pieces[0] if skeleton else []
        written = skeleton.num_tokens if skeleton else form.max_tokens
        split = [split_texts(self.chat, request.texts) for request in requests]
        inputs = self._encode([head for head, _, _ in split], [r.image for r in requests])
        inputs = lengthened(inputs, [shared for _, shared, _ in split])
        width = inputs["input_ids"].shape[1]
        tails = [[[*tail, *start] for tail in found] for _, _, found in split]
        lengths = [len(tail) for found in tails for tail in found]
        room = self.memory.context_tokens - width - written
        if len(requests) > 1 and max(lengths) > room:
            # The width is that of the longest prompt: one too long must not cost the others theirs.
            raise TooBig
        longest = max((length for length in lengths if length <= room), default=1)
        if width + longest + written > self.window:
            return self._judge_singly(requests, form, readout)

        def deal(group: Sequence[tuple[int, int]]) -> tuple[list[int], list[int], int]:
            """(prompt of each branch, its length, branches that share a copy of a prompt)."""
            lengths = [len(tails[place][number]) for place, number in group]
            capacity = max([int(width * TAIL_SHARE), *lengths])
            per_row = max(1, capacity * len(lengths) // max(1, sum(lengths)))
            return [place for place, _ in group], lengths, per_row

        def cost(group: Sequence[tuple[int, int]]) -> int:
            places, lengths, per_row = deal(group)
            rows, most, fed = spread(places, lengths, len(requests), per_row)
            return self.memory.tree(width, rows, rows * most, fed + most * written, fed, READ_BYTES)

        asked = [
            (place, number)
            for place, found in enumerate(tails)
            for number, tail in enumerate(found)
            if len(tail) <= room
        ]
        # Long answers last, so that one of them is not a burden to the others.
        asked.sort(key=lambda branch: len(tails[branch[0]][branch[1]]))
        groups = self._groups(len(requests), asked, cost)
        branches = TreeBranches(self.model, inputs) if groups else None
        graded: dict[tuple[int, int], Verdict] = {}
        for group in groups:
            assert branches is not None
            places, _, per_row = deal(group)
            branches.start(places, per_row)
            logits_KV = branches.feed([tails[place][number] for place, number in group])
            read = self._read(branches, logits_KV, skeleton, form, readout)
            graded.update(zip(group, read, strict=True))
        return [
            [
                graded.get((place, number)) or self._unread(width + len(tail) + written)
                for number, tail in enumerate(found)
            ]
            for place, found in enumerate(tails)
        ]

    def _judge_rows(
        self, requests: Sequence[JudgeRequest], form: Form, readout: Readout
    ) -> list[Verdict]:
        skeleton = None if readout == "text" else self._skeleton(form)
        written = skeleton.num_tokens if skeleton else form.max_tokens
        prompts = [self.chat.prompt(request.texts[0]) for request in requests]
        inputs = self._encode(prompts, [request.image for request in requests])
        width = inputs["input_ids"].shape[1]
        fits = width + written <= self.memory.context_tokens
        whole = self.memory.rows(width, 1, written, 1, READ_BYTES)
        if not fits or not self._groups(len(requests), [0], lambda _: whole):
            if len(requests) > 1:
                raise TooBig
            return [self._unread(width + written)]
        branches = RowBranches(self.model, inputs)
        logits_KV = branches.start(range(len(requests)))
        if skeleton and skeleton.pieces[0]:
            logits_KV = branches.feed([skeleton.pieces[0]] * len(requests))
        return self._read(branches, logits_KV, skeleton, form, readout)

    def _read(
        self,
        branches: Branches,
        logits_KV: Tensor,
        skeleton: VerdictSkeleton | None,
        form: Form,
        readout: Readout,
    ) -> list[Verdict]:
        if skeleton is not None:
            return read_scores(branches, logits_KV, skeleton, readout, self.min_label_mass)
        sampling = Sampling(max_new_tokens=form.max_tokens)
        rows = draw(branches, logits_KV, [0] * len(logits_KV), sampling, self.end_ids)
        return [parse_verdict(self._text(ids), form, len(ids) >= form.max_tokens) for ids in rows]

    def _groups(
        self,
        num_prompts: int,
        branches: Sequence[Request],
        cost: Callable[[Sequence[Request]], int],
    ) -> list[Sequence[Request]]:
        """Branches of a batch of prompts, split until each part fits; one alone that does not is
        left out. Raises TooBig if fewer prompts may do without a split."""
        self.memory.expect(cost(branches))
        if num_prompts > self.memory.batch_hint:
            raise TooBig
        return self._halves(num_prompts, branches, cost)

    def _halves(
        self,
        num_prompts: int,
        branches: Sequence[Request],
        cost: Callable[[Sequence[Request]], int],
    ) -> list[Sequence[Request]]:
        if not branches:
            return []
        if num_prompts * cost(branches) <= self.memory.limit:
            return [branches]
        if len(branches) == 1:
            return []
        middle = len(branches) // 2
        halves = (branches[:middle], branches[middle:])
        return [part for half in halves for part in self._halves(num_prompts, half, cost)]

    def _encode(
        self,
        prompts: list[str],
        images: list[Image.Image],
        noises: Sequence[PixelNoise | None] = (),
    ) -> dict[str, Tensor]:
        inputs = self.chat.encode(prompts, images)
        if any(noises):
            add_noise(inputs, noises, self.processor)
        for name, value in inputs.items():
            if value.is_floating_point():
                value = value.to(self.model.dtype)
            inputs[name] = value.to(self.device)
        return inputs

    def _skeleton(self, form: Form) -> VerdictSkeleton:
        if form not in self._skeletons:
            self._skeletons[form] = VerdictSkeleton(self.chat, form)
        return self._skeletons[form]

    def _text(self, ids: list[int]) -> str:
        return self.chat.tokenizer.decode(ids, skip_special_tokens=True)

    def _draw(self, ids: list[int]) -> Draw:
        text = self._text(ids).strip()
        return Draw(text, len(ids)) if text else Draw(None, len(ids), "empty answer")

    def _unread(self, num_tokens: int) -> Verdict:
        return Verdict(None, self._refusal(num_tokens), "")

    def _refusal(self, num_tokens: int) -> str:
        if num_tokens > self.memory.context_tokens:
            return f"{num_tokens} tokens, more than the model's {self.memory.context_tokens}"
        gib = self.memory.limit / GIB
        return f"{num_tokens} tokens, more than fit into {gib:.3g} GiB (memory_gib)"
