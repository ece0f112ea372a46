"""A member that vLLM runs, in a process and an environment of its own (`vllm_process.py`).

What vLLM promises here is less than the local engine does: a draw depends on its seed, but its
numbers may differ in the last digits with the batch it ran in, so a rare draw differs too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from peeralign.distributed import local_rank, world_size
from peeralign.engines.adapters import Adapter, keep_adapter
from peeralign.engines.base import (
    AnswerRequest,
    Draw,
    JudgeRequest,
    Readout,
    Sampling,
    refuse_noise,
)
from peeralign.engines.vllm_process import Launch, close_worker, open_worker
from peeralign.engines.written import WrittenToken, read_written
from peeralign.errors import PeeralignError
from peeralign.escape import escape_any_controls
from peeralign.images.load import png_data_url
from peeralign.judging.verdict import Form, Verdict, parse_verdict
from peeralign.panel import Member, VllmWorker, check_local_folder


class VllmEngine:
    """A member behind a vLLM worker process. Raises PeeralignError if it cannot be started."""

    def __init__(self, member: Member, min_label_mass: float = 0.5) -> None:
        settings = member.vllm
        if settings is None:
            raise ValueError(f"member '{member.name}' has no vllm settings")
        self.member = member
        self.settings = settings
        self.min_label_mass = min_label_mass
        model = member.checkpoint()
        check_local_folder(model)
        self.adapter = keep_adapter(settings.adapter) if settings.adapter else None
        options = llm_options(member, settings, self.adapter)
        launch = Launch(
            python=os.path.expanduser(settings.python),
            model=model,
            fingerprint=folder_fingerprint(Path(model)),
            options=json.dumps(options, sort_keys=True),
            environment=visible_devices(member.device, settings.tensor_parallel_size),
        )
        self.worker = open_worker(member.name, launch, options, settings.start_seconds)
        self.closed = False

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        refuse_noise(requests)
        if sampling.beam is not None:
            raise PeeralignError(
                f"member '{self.member.name}' runs on vLLM, which has no sentence-level beam "
                "search; drop the beam or the member's vllm settings"
            )
        batch = Batch()
        for request in requests:
            batch.add(request.image, request.text, request.seeds)
        replies = self._chat(batch, "while answering", sampling)
        return [
            [_draw(draw) for draw in reply["draws"]]
            if "draws" in reply
            else [Draw(None, 0, reply["error"]) for _ in request.seeds]
            for request, reply in zip(requests, replies, strict=True)
        ]

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        verdicts: list[list[Verdict]] = [[] for _ in requests]
        # The schema and the labels hold for a whole call, and most calls have one form.
        for form in dict.fromkeys(request.form for request in requests):
            places = [place for place, request in enumerate(requests) if request.form == form]
            batch = Batch()
            for place in places:
                for text in requests[place].texts:
                    batch.add(requests[place].image, text, (0,))
            replies = iter(self._judge_form(batch, form, readout))
            for place in places:
                verdicts[place] = [next(replies) for _ in requests[place].texts]
        return verdicts

    def close(self) -> None:
        # A worker that sleeps may be woken for another engine, which this one must not disturb.
        if not self.closed:
            self.closed = True
            close_worker(self.worker, self.settings.between)

    def _judge_form(self, batch: Batch, form: Form, readout: Readout) -> list[Verdict]:
        # A character is a token at worst, and white space between the parts is the judge's choice.
        longest = 2 * len(form.write([form.labels[-1]] * len(form.axes)))
        sampling = Sampling(max_new_tokens=max(form.max_tokens, longest))
        if readout == "text":
            replies = self._chat(batch, "while judging", sampling)
        else:
            # The probabilities come out after the schema has forbidden everything else: they say
            # how a judge spreads its score, and nothing of whether it wanted to give one, so
            # `min_label_mass` rarely finds anything here.
            replies = self._chat(
                batch, "while judging", sampling, schema=form.schema(), labels=form.labels
            )
        return [self._verdict(reply, form, readout) for reply in replies]

    def _verdict(self, reply: dict[str, Any], form: Form, readout: Readout) -> Verdict:
        if "error" in reply:
            return Verdict(None, reply["error"], "")
        (draw,) = reply["draws"]
        if readout == "text":
            return parse_verdict(draw["text"], form, draw["finish"] == "length")
        if draw["tokens"] is None:
            raise PeeralignError(
                f"member '{self.member.name}': vLLM returned no log-probabilities of the scores; "
                'use vLLM 0.32 or newer there, or set judge.readout = "text"'
            )
        tokens = [WrittenToken(text, logprobs) for text, logprobs in draw["tokens"]]
        return read_written(tokens, form, readout, self.min_label_mass)

    def _chat(
        self,
        batch: Batch,
        doing: str,
        sampling: Sampling,
        schema: dict[str, object] | None = None,
        labels: list[int] | list[str] | None = None,
    ) -> list[dict[str, Any]]:
        if not batch.items:
            return []
        result = self.worker.ask(
            "chat",
            doing,
            images=batch.urls,
            items=batch.items,
            sampling={
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_new_tokens,
            },
            lora=self.adapter.request() if self.adapter else None,
            schema=schema,
            labels=labels,
        )
        return result["items"]


class Batch:
    """Questions and rubrics on their way to the worker. An image they share is sent once."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.items: list[dict[str, Any]] = []
        # The image is kept beside its place, since a freed object's id is given to another.
        self._places: dict[int, tuple[int, Image]] = {}

    def add(self, image: Image, text: str, seeds: Sequence[int]) -> None:
        if id(image) not in self._places:
            self._places[id(image)] = (len(self.urls), image)
            self.urls.append(png_data_url(image))
        place, _ = self._places[id(image)]
        self.items.append({"image": place, "text": escape_any_controls(text), "seeds": list(seeds)})


def _draw(reply: dict[str, Any]) -> Draw:
    if reply["finish"] not in ("stop", "length"):
        return Draw(None, reply["num_tokens"], f"vLLM ended it by {reply['finish']}")
    text = reply["text"].strip()
    return Draw(text or None, reply["num_tokens"], None if text else "empty answer")


def llm_options(member: Member, settings: VllmWorker, adapter: Adapter | None) -> dict[str, Any]:
    """Arguments of vLLM's `LLM`, beside the model."""
    options: dict[str, Any] = {
        "seed": 0,
        "dtype": "bfloat16" if member.dtype == "auto" else member.dtype,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "trust_remote_code": member.trust_remote_code,
        "enable_prefix_caching": True,
        # vLLM reserves memory for the largest prompt it may get, and by default that holds videos.
        "limit_mm_per_prompt": {"image": 1, "video": 0, "audio": 0},
        # By default vLLM takes pickled weights where it finds no others.
        "load_format": "safetensors",
    }
    if settings.max_model_len is not None:
        options["max_model_len"] = settings.max_model_len
    if settings.between == "sleep":
        options["enable_sleep_mode"] = True
    if adapter is not None:
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": adapter.max_lora_rank}
    return options


def folder_fingerprint(folder: Path) -> str:
    """Changes when a checkpoint in this folder is replaced; empty for a hub name."""
    if not folder.is_dir():
        return ""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return json.dumps(stats)


def visible_devices(device: str, count: int) -> tuple[tuple[str, str], ...]:
    """The worker's environment for a member on "cuda:N": N and the next ones are all it sees.

    Of several processes on a machine, each takes the next `count` GPUs for "auto".
    """
    if device == "auto" and world_size() > 1:
        device = f"cuda:{local_rank() * count}"
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number:
        return ()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    first, names = int(number), [name.strip() for name in seen.split(",") if name.strip()]
    wanted = range(first, first + count)
    if names and wanted.stop > len(names):
        raise PeeralignError(
            f"device {device} and vllm.tensor_parallel_size = {count} ask for more GPUs than "
            f"CUDA_VISIBLE_DEVICES={seen} shows; lower one of them"
        )
    chosen = [names[place] if names else str(place) for place in wanted]
    return (("CUDA_VISIBLE_DEVICES", ",".join(chosen)),)
