"""A stand-in for vLLM 0.32, for `tests/engines/test_vllm.py`: same names, fixed rules, no model.

Constructor and method arguments are named as in vLLM, and others are refused as vLLM refuses them.
Every call is written to the file $VLLM_STANDIN_RECORD, one JSON object a line. It prints to stdout
wherever vLLM might, and runs a child process as vLLM runs its engine core.

A prompt decides what becomes of it:
    POISON   is refused, and with it the whole call      OOM    breaks the engine
    DIE      ends the process with exit code 7           HANG   never comes back
    ORPHAN   ends it too, but leaves a fork of it behind
    LONG     is answered with 100 kB                     ABORT  ends early
    DROP     loses the call's last reply                 SILENT is answered with nothing
    "give 4 2", with a schema: the scores 4 and 2; "give 4 -" writes that score as the token " 4"
A model folder's name does too: "slow" takes a minute to load, "deaf" leaves out the label ids.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams

__all__ = ["LLM", "SamplingParams"]
__version__ = "0.32.0"
print("importing vllm: this line goes to stdout")
END = 3_000_000
SPACED = 2_000_000  # SPACED + d is the token " d"


class VLLMValidationError(ValueError):
    pass


def record(call: str, **fields: Any) -> None:
    with open(os.environ["VLLM_STANDIN_RECORD"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"call": call, **fields}) + "\n")


class Tokenizer:
    """One token a character, and the digits behind a space. A text's first space is not decoded."""

    all_special_ids = (END,)

    def get_vocab(self) -> dict[str, int]:
        plain = {chr(number): number for number in range(32, 127)}
        return {**plain, **{f"\u0120{d}": SPACED + d for d in range(10)}, "<end3": END}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        parts = []
        for number in ids:
            if number == END:
                parts.append("" if skip_special_tokens else "3")
            elif number >= SPACED:
                parts.append(f" {number - SPACED}")
            else:
                parts.append(chr(number))
        return "".join(parts).removeprefix(" ")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    request_id: str
    outputs: list[CompletionOutput]


class LLM:
    def __init__(
        self,
        model: str,
        *,
        seed: int = 0,
        dtype: str = "auto",
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.92,
        trust_remote_code: bool = False,
        max_model_len: int | None = None,
        enable_prefix_caching: bool | None = None,
        limit_mm_per_prompt: dict[str, int] | None = None,
        enable_sleep_mode: bool = False,
        load_format: str = "auto",
        enable_lora: bool = False,
        max_loras: int = 1,
        max_lora_rank: int = 16,
    ) -> None:
        options = {name: value for name, value in locals().items() if name != "self"}
        if gpu_memory_utilization < 0.05:
            raise ValueError("No available memory for the cache blocks.")
        child = subprocess.Popen(["sleep", "600"])
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        safe_path = sys.flags.safe_path
        record(
            "LLM", pid=os.getpid(), child=child.pid, visible=visible, safe_path=safe_path, **options
        )
        # A library that asks on stdin must not take the next command for its answer.
        assert sys.stdin.read() == ""
        os.write(1, b"Loading safetensors checkpoint shards: 100%\n")
        self.model = os.path.basename(model)
        if self.model == "slow":
            time.sleep(60)
        self.lora = enable_lora
        self.can_sleep = enable_sleep_mode
        self.asleep = False

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        if not self.can_sleep:
            raise ValueError("Sleep mode is not enabled.")
        self.asleep = True
        record("sleep", level=level)

    def wake_up(self, tags: list[str] | None = None) -> bool:
        self.asleep = False
        record("wake_up")
        return True

    def chat(
        self,
        messages: list[list[dict[str, Any]]],
        sampling_params: list[SamplingParams],
        use_tqdm: bool = True,
        lora_request: LoRARequest | None = None,
    ) -> list[RequestOutput]:
        assert not use_tqdm
        assert not self.asleep, "a sleeping engine was asked"
        assert self.lora == (lora_request is not None)
        assert len(messages) == len(sampling_params)
        prompts = [read_conversation(conversation) for conversation in messages]
        record(
            "chat",
            texts=[text for text, _ in prompts],
            images=[image for _, image in prompts],
            params=[asdict(params) for params in sampling_params],
            lora=lora_request and asdict(lora_request),
        )
        print("Processed prompts: 100%", flush=True)
        for text, _ in prompts:
            obey(text)
        outputs = [
            RequestOutput(str(number), [self.answer(text, params)])
            for number, ((text, _), params) in enumerate(zip(prompts, sampling_params, strict=True))
        ]
        return outputs[:-1] if any("DROP" in text for text, _ in prompts) else outputs

    def answer(self, text: str, params: SamplingParams) -> CompletionOutput:
        finish = "abort" if "ABORT" in text else "stop"
        if params.structured_outputs is not None:
            return self.score(text, params)
        if "LONG" in text:
            reply = "é漢🙂\n" * 12_000
        elif "SILENT" in text:
            reply = " "
        elif given := re.search("write (.*)", text):
            reply = given.group(1)
        else:
            reply = f" {text} by {params.seed} "
        ids = [*map(ord, reply), END]
        return CompletionOutput(0, reply, ids, None, None, finish)

    def score(self, text: str, params: SamplingParams) -> CompletionOutput:
        """A score has 0.6 of the probability, one more (at the top, one less) has the rest."""
        schema = params.structured_outputs.json
        given = re.findall(r"(\d)( -)?", text.partition("give ")[2])
        ids, chosen = [ord("{")], {}
        for (axis, kind), (digit, spaced) in zip(schema["properties"].items(), given, strict=True):
            value = int(digit)
            assert value in kind["enum"]
            ids += map(ord, f'"{axis}":' if spaced else f'"{axis}": ')
            other = value + 1 if value < max(kind["enum"]) else value - 1
            chosen[len(ids)] = {
                ord(str(value)): 0.2 if spaced else 0.4,
                SPACED + value: 0.4 if spaced else 0.2,
                ord(str(other)): 0.4,
            }
            ids += [SPACED + value if spaced else ord(str(value)), ord(","), ord(" ")]
        ids[-2:] = [ord("}"), END]
        logprobs = []
        for place, number in enumerate(ids):
            probs = chosen.get(place, {number: 1.0})
            asked = [] if self.model == "deaf" else params.logprob_token_ids
            logprobs.append(
                {
                    key: Logprob(math.log(probs[key]) if key in probs else -math.inf)
                    for key in [number, *asked]
                }
            )
        reply = Tokenizer().decode(ids, skip_special_tokens=True)
        return CompletionOutput(0, reply, ids, 0.0, logprobs, "stop")


def read_conversation(conversation: list[dict[str, Any]]) -> tuple[str, str]:
    """(text, image as base64) of a conversation that has the form vLLM asks for."""
    ((message),) = conversation
    assert message["role"] == "user"
    image, text = message["content"]
    assert (image["type"], text["type"]) == ("image_url", "text")
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    base64.b64decode(data, validate=True)
    return text["text"], data


def obey(text: str) -> None:
    if "POISON" in text:
        raise VLLMValidationError("The decoder prompt (length 9000) is longer than the maximum")
    if "OOM" in text:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
    if "DIE" in text:
        print("the engine fell over its own feet", file=sys.stderr, flush=True)
        os._exit(7)
    if "ORPHAN" in text:
        fork = os.fork()
        if fork == 0:
            time.sleep(600)
        record("fork", pid=fork)
        os._exit(7)
    if "HANG" in text:
        record("hang")
        time.sleep(600)
