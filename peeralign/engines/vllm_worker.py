"""A vLLM process of its own: commands come in on stdin, replies go out on the first stdout.

It runs in an environment that holds vLLM and not peeralign, so it imports neither peeralign nor
anything that is not in the standard library, before it is told to load a model. One JSON object a
line, ASCII, each way; `peeralign/engines/vllm_process.py` is the other end. A command has an `id`
and a `do`; its reply has the same `id` and either `result` or `error`.

Names and behaviour of vLLM are those of version 0.32.
"""

import importlib
import json
import math
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any

# After these the engine itself is gone or in an unknown state, so other prompts would fail too.
FATAL_CLASSES = {"EngineDeadError", "MemoryError", "WrongCount"}
FATAL_TEXTS = ("out of memory", "cuda error", "hip error", "cannot allocate memory")
MAX_LABEL_IDS = 128  # the most `logprob_token_ids` that vLLM takes


class CannotScore(Exception):
    """The model's tokens do not allow reading scores from probabilities."""


class WrongCount(Exception):
    """vLLM gave more or fewer replies than it had prompts, so they cannot be told apart."""


def take_pipes():
    """Keep stdin and stdout for the protocol: (read descriptor, write descriptor).

    vLLM and what it starts print to stdout, and its child processes inherit stdin. Both get
    something harmless instead: stderr, which is a log file, and nothing.
    """
    commands, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, replies


def read_lines(descriptor):
    """Lines of any length. No file object: a thread that holds one blocks Python's exit."""
    parts = []
    while chunk := os.read(descriptor, 1 << 20):
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for other in others:
            yield b"".join(parts)
            parts = [other]


def listen(descriptor, commands):
    """Queue the commands; when the other side is gone, end this process and all it started."""
    for line in read_lines(descriptor):
        commands.put(json.loads(line))
    # The parent may have been killed in the middle of a batch, so nobody waits for a clean end.
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def write_line(descriptor, reply):
    left = memoryview(json.dumps(reply, allow_nan=False).encode("ascii") + b"\n")
    while left:
        left = left[os.write(descriptor, left) :]


def is_fatal(error):
    if any(cls.__name__ in FATAL_CLASSES for cls in type(error).__mro__):
        return True
    # A refusal may quote the prompt, so the text counts only where PyTorch would have raised it.
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in FATAL_TEXTS)


def describe(error):
    kind = "failed"
    if isinstance(error, ModuleNotFoundError) and error.name == "vllm":
        kind = "no vllm"
    elif isinstance(error, CannotScore):
        kind = "no labels"
    return {"kind": kind, "class": type(error).__name__, "text": str(error)[:2000]}


def find_label_ids(tokenizer, labels):
    """Every token that is one of the labels, alone or behind white space: {label: [ids]}."""
    wanted = {str(label): [] for label in labels}
    longest = max(map(len, wanted)) + 4  # a word mark of up to four characters may stand before
    ends = {label[-1] for label in wanted}
    special = set(tokenizer.all_special_ids)
    for token, number in tokenizer.get_vocab().items():
        if len(token) <= longest and token[-1:] in ends and number not in special:
            text = tokenizer.decode([number]).strip()
            if text in wanted:
                wanted[text].append(number)
    if not all(wanted.values()):
        raise CannotScore("this model's tokenizer does not write every score as one token")
    if sum(map(len, wanted.values())) > MAX_LABEL_IDS:
        raise CannotScore(f"the scores are more than {MAX_LABEL_IDS} tokens of this model")
    return wanted


def token_texts(tokenizer, ids):
    """What each token adds to the reply; tokens decoded alone would lose their spaces."""
    texts, shown = [], ""
    for end in range(1, len(ids) + 1):
        full = tokenizer.decode(ids[:end], skip_special_tokens=True)
        if full.endswith("\ufffd"):
            texts.append("")  # the rest of this character is in the next token
            continue
        texts.append(full[len(shown) :])
        shown = full
    return texts


def label_logprobs(position, label_ids):
    """{label: log-probability} at one place of the reply, or None if vLLM left one out."""
    found = {}
    for label, ids in label_ids.items():
        if any(number not in position for number in ids):
            return None
        # The grammar gives what it forbids minus infinity, which JSON cannot carry.
        total = sum(math.exp(position[number].logprob) for number in ids)
        if total > 0:
            found[label] = math.log(total)
    return found


class Engine:
    """The loaded model and what is known of its tokens."""

    def __init__(self, model, options):
        self.vllm = importlib.import_module("vllm")
        self.sampling_params = importlib.import_module("vllm.sampling_params")
        self.lora = importlib.import_module("vllm.lora.request")
        self.llm = self.vllm.LLM(model=model, **options)
        self.label_ids = {}

    def sleep(self):
        self.llm.sleep(level=1)
        return {}

    def wake(self):
        self.llm.wake_up()
        return {}

    def chat(self, images, items, sampling, lora, schema, labels):
        label_ids = self.find_labels(labels) if labels else None

        def params(seed):
            extra = {}
            if schema is not None:
                extra["structured_outputs"] = self.sampling_params.StructuredOutputsParams(
                    json=schema
                )
            if label_ids:
                extra["logprob_token_ids"] = [n for ids in label_ids.values() for n in ids]
            return self.vllm.SamplingParams(n=1, seed=seed, **sampling, **extra)

        # A setting that vLLM refuses is no item's fault: refuse the batch here, before any item.
        params(0)
        request = None
        if lora is not None:
            request = self.lora.LoRARequest(lora["name"], lora["id"], lora["path"])

        def answer(batch):
            # One conversation a draw, each with its own seed, all in one call: vLLM's prefix
            # cache computes their common image and text once. `n` draws of one seed would do the
            # same, but vLLM gives them seed, seed + 1, ...: draws of items with neighbouring
            # seeds would repeat each other.
            conversations, settings = [], []
            for item in batch:
                message = user_message(images[item["image"]], item["text"])
                conversations += [message] * len(item["seeds"])
                settings += map(params, item["seeds"])
            outputs = self.llm.chat(
                conversations, sampling_params=settings, lora_request=request, use_tqdm=False
            )
            if len(outputs) != len(settings):
                raise WrongCount(f"{len(outputs)} replies to {len(settings)} prompts")
            replies = iter([self.read(output.outputs[0], label_ids) for output in outputs])
            return [{"draws": [next(replies) for _ in item["seeds"]]} for item in batch]

        return {"items": answer_apart(answer, items)}

    def find_labels(self, labels):
        key = tuple(labels)
        if key not in self.label_ids:
            self.label_ids[key] = find_label_ids(self.llm.get_tokenizer(), labels)
        return self.label_ids[key]

    def read(self, output, label_ids):
        ids = list(output.token_ids)
        reply = {"text": output.text, "num_tokens": len(ids), "finish": output.finish_reason}
        if label_ids is None:
            return reply
        positions = output.logprobs
        if positions is None or len(positions) < len(ids):
            return {**reply, "tokens": None}
        scored = [label_logprobs(positions[place], label_ids) for place in range(len(ids))]
        if None in scored:
            return {**reply, "tokens": None}
        texts = token_texts(self.llm.get_tokenizer(), ids)
        return {**reply, "tokens": list(zip(texts, scored))}  # noqa: B905


def user_message(image, text):
    content = [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": text},
    ]
    return [{"role": "user", "content": content}]


def answer_apart(answer, items):
    """Answer all at once; one refused prompt fails vLLM's whole call, so then halve and retry."""
    try:
        return answer(items)
    except Exception as error:
        if is_fatal(error):
            raise
        if len(items) == 1:
            return [{"error": f"{type(error).__name__}: {str(error)[:200]}"}]
    half = len(items) // 2
    return answer_apart(answer, items[:half]) + answer_apart(answer, items[half:])


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    # Python puts a script's folder first, where a file beside this one is called vllm.py.
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    read_end, write_end = take_pipes()
    commands = queue.SimpleQueue()
    threading.Thread(target=listen, args=(read_end, commands), daemon=True).start()
    engine: Any = None
    while (command := commands.get())["do"] != "stop":
        number, do = command.pop("id"), command.pop("do")
        try:
            if do == "load":
                engine = Engine(**command)
                result = {}
            else:
                result = getattr(engine, do)(**command)
            reply = {"id": number, "result": result}
        except Exception as error:
            traceback.print_exc()
            reply = {"id": number, "error": describe(error)}
        write_line(write_end, reply)


if __name__ == "__main__":
    main()
