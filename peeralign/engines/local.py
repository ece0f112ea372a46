"""The local engine: any `AutoModelForImageTextToText` checkpoint, run by `transformers`.

The prompt (image and text) is computed once for all draws of a question: its cache is repeated
and every draw continues from it. Sampling is by inverse transform from numbers that belong to the
item, so a draw depends on its seed and not on the batch it was computed in.

Shapes: B prompts, R = B * draws rows, V vocabulary, A axes, S labels of the scale.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from peeralign.chat import ChatFormat
from peeralign.engines.base import AnswerRequest, Draw, JudgeRequest, Readout, Sampling
from peeralign.errors import PeeralignError
from peeralign.judging.rubric import Rubric
from peeralign.judging.verdict import Verdict, parse_verdict
from peeralign.panel import check_local_folder

MAX_VERDICT_TOKENS = 128


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first CUDA device, else Apple's, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load_processor(model: str, trust_remote_code: bool = False) -> Any:
    """Load a checkpoint's processor. Raises PeeralignError if there is none that takes images."""
    from transformers import AutoProcessor

    check_local_folder(model)
    try:
        processor = AutoProcessor.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise PeeralignError(
            f"member {model} has no processor that loads: {_short(error)}"
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise PeeralignError(
            f"member {model} has no image processor (found {type(processor).__name__}); "
            "give a vision-language checkpoint with its preprocessor_config.json"
        )
    return processor


def load_checkpoint(
    model: str, device: torch.device, dtype: str = "auto", trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Load (model, processor) from a local folder or a hub name; safetensors only.

    `dtype` "auto" is bfloat16 on an accelerator and float32 on the CPU. Raises PeeralignError when
    the folder holds no model, or none that takes images.
    """
    from transformers import AutoModelForImageTextToText

    processor = load_processor(model, trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" else "bfloat16"
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            model,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise PeeralignError(f"member {model} does not load: {_short(error)}") from error
    network, report = loaded
    if report["missing_keys"]:
        # transformers fills them with random numbers and only warns.
        raise PeeralignError(
            f"member {model} is incomplete: its weights lack {min(report['missing_keys'])} and "
            f"{len(report['missing_keys']) - 1} others; copy the checkpoint again"
        )
    return network.to(device).eval(), processor


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


class LocalEngine:
    """A checkpoint in this process. `batch_size` bounds the rows of one forward pass."""

    def __init__(
        self,
        model: str,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 64,
        trust_remote_code: bool = False,
        min_label_mass: float = 0.5,
    ) -> None:
        self.device = pick_device(device)
        self.model, self.processor = load_checkpoint(model, self.device, dtype, trust_remote_code)
        self.chat = ChatFormat(self.processor)
        self.batch_size = batch_size
        self.min_label_mass = min_label_mass
        text_config = self.model.config.get_text_config()
        # Three-axis rotary positions are the model's own business: it derives them itself.
        self.plain_positions = "mrope_section" not in str(
            getattr(text_config, "rope_parameters", "")
        )
        keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self.last_only = {"logits_to_keep": 1} if keeps else {}
        eos = self.model.generation_config.eos_token_id
        ends = eos if isinstance(eos, list) else [eos]
        self.end_ids = {
            i for i in (*ends, self.chat.tokenizer.eos_token_id, self.chat.end_id) if i is not None
        }

    def close(self) -> None:
        del self.model
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        results: list[list[Draw]] = []
        per_batch = max(1, self.batch_size // sampling.num_draws)
        for batch in _chunks(requests, per_batch):
            inputs = self._encode(
                [self.chat.prompt(r.text) for r in batch], [r.image for r in batch]
            )
            uniforms_RT = np.stack(
                [_uniforms(seed, sampling.max_new_tokens) for r in batch for seed in r.seeds]
            )
            ids = self._decode(inputs, sampling, torch.from_numpy(uniforms_RT).to(self.device))
            draws = [self._draw(row, sampling.max_new_tokens) for row in ids]
            for start in range(0, len(draws), sampling.num_draws):
                results.append(draws[start : start + sampling.num_draws])
        return results

    def judge(
        self, requests: Sequence[JudgeRequest], rubric: Rubric, readout: Readout
    ) -> list[Verdict]:
        if readout == "text":
            asked = [AnswerRequest(r.image, r.text, (0,)) for r in requests]
            replies = self.answer(asked, Sampling(max_new_tokens=MAX_VERDICT_TOKENS))
            return [parse_verdict(draws[0].text or "", rubric) for draws in replies]
        verdicts: list[Verdict] = []
        skeleton = VerdictSkeleton(self.chat, rubric)
        for batch in _chunks(requests, self.batch_size):
            verdicts += self._read_scores(batch, rubric, skeleton, readout)
        return verdicts

    def _encode(self, prompts: list[str], images: list[Any]) -> dict[str, Tensor]:
        inputs = self.chat.encode(prompts, images)
        for name, value in inputs.items():
            if value.is_floating_point():
                value = value.to(self.model.dtype)
            inputs[name] = value.to(self.device)
        return inputs

    def _prefill(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        extra = {}
        if self.plain_positions:
            extra["position_ids"] = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        output = self.model(**inputs, **extra, **self.last_only, use_cache=True)
        return output.logits[:, -1].float(), output.past_key_values

    def _step(self, ids_RL: Tensor, mask_RT: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        """Feed L more tokens to every row: (last logits, the mask grown by L)."""
        mask_RT = torch.cat([mask_RT, torch.ones_like(ids_RL)], dim=1)
        extra = {}
        if self.plain_positions:
            extra["position_ids"] = (mask_RT.cumsum(dim=1) - 1)[:, -ids_RL.shape[1] :]
        output = self.model(
            input_ids=ids_RL,
            attention_mask=mask_RT,
            past_key_values=cache,
            use_cache=True,
            **self.last_only,
            **extra,
        )
        return output.logits[:, -1].float(), mask_RT

    def _decode(
        self, inputs: dict[str, Tensor], sampling: Sampling, uniforms_RT: Tensor
    ) -> list[list[int]]:
        logits_RV, cache = self._prefill(inputs)
        mask_RT = inputs["attention_mask"]
        if sampling.num_draws > 1:
            cache.batch_repeat_interleave(sampling.num_draws)
            logits_RV = logits_RV.repeat_interleave(sampling.num_draws, dim=0)
            mask_RT = mask_RT.repeat_interleave(sampling.num_draws, dim=0)
        rows: list[list[int]] = [[] for _ in range(len(logits_RV))]
        running = set(range(len(rows)))
        for step in range(sampling.max_new_tokens):
            next_R = sample(logits_RV, uniforms_RT[:, step], sampling.temperature, sampling.top_p)
            for row, token in enumerate(next_R.tolist()):
                if row in running:
                    rows[row].append(token)
                    if token in self.end_ids:
                        running.discard(row)
            if not running or step + 1 == sampling.max_new_tokens:
                break
            logits_RV, mask_RT = self._step(next_R[:, None], mask_RT, cache)
        return rows

    def _draw(self, ids: list[int], max_new_tokens: int) -> Draw:
        text = self.chat.tokenizer.decode(ids, skip_special_tokens=True).strip()
        if not text:
            return Draw(None, len(ids), "empty answer")
        return Draw(text, len(ids))

    @torch.inference_mode()
    def _read_scores(
        self,
        requests: Sequence[JudgeRequest],
        rubric: Rubric,
        skeleton: VerdictSkeleton,
        readout: Readout,
    ) -> list[Verdict]:
        inputs = self._encode(
            [self.chat.prompt(r.text) for r in requests], [r.image for r in requests]
        )
        logits_RV, cache = self._prefill(inputs)
        mask_RT = inputs["attention_mask"]
        scores_RA, mass_RA, digits_RA = [], [], []
        labels_S = torch.tensor(rubric.labels, dtype=torch.float32, device=self.device)
        previous: Tensor | None = None
        for piece, label_ids in zip(skeleton.pieces, skeleton.label_ids, strict=True):
            fed = torch.tensor(piece, device=self.device).expand(len(requests), -1)
            if previous is not None:
                fed = torch.cat([previous[:, None], fed], dim=1)
            if fed.shape[1]:
                logits_RV, mask_RT = self._step(fed, mask_RT, cache)
            ids_S = torch.tensor(label_ids, device=self.device)
            probs_RS = logits_RV.softmax(dim=-1)[:, ids_S]
            mass_R = probs_RS.sum(dim=-1)
            best_R = probs_RS.argmax(dim=-1)
            expected_R = (probs_RS @ labels_S) / mass_R.clamp(min=1e-9)
            scores_RA.append(expected_R if readout == "expected" else labels_S[best_R])
            mass_RA.append(mass_R)
            digits_RA.append(labels_S[best_R])
            previous = ids_S[best_R]
        scores = torch.stack(scores_RA, dim=1).tolist()
        masses = torch.stack(mass_RA, dim=1).min(dim=1).values.tolist()
        digits = torch.stack(digits_RA, dim=1).tolist()
        return [
            self._verdict(axes, mass, rubric.verdict([int(d) for d in digit]))
            for axes, mass, digit in zip(scores, masses, digits, strict=True)
        ]

    def _verdict(self, axes: list[float], mass: float, raw: str) -> Verdict:
        if not mass >= self.min_label_mass:
            reason = f"less than {self.min_label_mass:g} of the probability lies on scores"
            return Verdict(None, reason, raw, mass)
        return Verdict(axes, None, raw, mass)


class VerdictSkeleton:
    """The known text of a verdict as token ids: pieces[i] comes before the i-th axis score.

    Found by tokenising the verdict with every label on every axis and comparing, so it holds for
    any tokenizer. Raises PeeralignError where a score is not one token in a fixed place.
    """

    def __init__(self, chat: ChatFormat, rubric: Rubric) -> None:
        rows = [chat.text_ids(rubric.verdict([s] * len(rubric.axes))) for s in rubric.labels]
        places = [i for i, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1]
        if len({len(row) for row in rows}) > 1 or len(places) != len(rubric.axes):
            raise PeeralignError(
                "this judge's tokenizer does not write every score as one token, so the readouts "
                "'greedy' and 'expected' cannot be used; set judge.readout = \"text\""
            )
        starts = [0, *(place + 1 for place in places)]
        self.pieces = [rows[0][start:place] for start, place in zip(starts, places, strict=False)]
        self.label_ids = [[row[place] for row in rows] for place in places]


def sample(logits_RV: Tensor, uniform_R: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw one token a row by inverse transform of `uniform_R`; greedy at temperature 0."""
    if temperature == 0:
        return logits_RV.argmax(dim=-1)
    probs_RV = (logits_RV.double() / temperature).softmax(dim=-1)
    if top_p < 1:
        sorted_RV, order_RV = probs_RV.sort(dim=-1, descending=True)
        outside_RV = sorted_RV.cumsum(dim=-1) - sorted_RV >= top_p
        probs_RV = probs_RV.masked_fill(outside_RV.gather(-1, order_RV.argsort(dim=-1)), 0.0)
    cumulative_RV = probs_RV.cumsum(dim=-1)
    target_R1 = uniform_R[:, None] * cumulative_RV[:, -1:]
    return torch.searchsorted(cumulative_RV, target_R1, right=True)[:, 0].clamp(
        max=logits_RV.shape[-1] - 1
    )


def _uniforms(seed: int, num: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).random(num)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
