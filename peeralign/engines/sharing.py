"""What several texts about one image share, and whether a model can compute it once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from peeralign.chat import ChatFormat
from peeralign.engines.branches import TreeBranches
from peeralign.engines.memory import is_out_of_memory
from peeralign.errors import PeeralignError

log = logging.getLogger(__name__)
Encode = Callable[[list[str], list[Image.Image]], dict[str, Tensor]]
PROBE = ("Which of these is larger?", ("The first one is.", "The second, by far, I would say."))
# Largest difference of log-probabilities, of those tokens that matter.
TOLERANCE = {torch.float32: 2e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
NUM_COMPARED = 32


def split_texts(chat: ChatFormat, texts: Sequence[str]) -> tuple[str, list[int], list[list[int]]]:
    """(the prompt up to the image, ids that all texts share behind it, the rest of each)."""
    heads, rests = zip(*(chat.split_prompt(text) for text in texts), strict=True)
    ids = [chat.prompt_ids(rest) for rest in rests]
    # Every branch needs a token of its own.
    longest = max(0, min(len(some) for some in ids) - 1)
    first = ids[0]
    shared = next((n for n in range(longest) if any(some[n] != first[n] for some in ids)), longest)
    return heads[0], first[:shared], [some[shared:] for some in ids]


def lengthened(inputs: dict[str, Tensor], ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Left-padded model inputs with `ids` behind each prompt, left-padded again.

    Whatever has the shape of the token ids (masks, token types) gets 1 in a mask and 0 elsewhere:
    in every family that has types, 0 is the type of text.
    """
    shape = inputs["input_ids"].shape
    mask = inputs["attention_mask"].bool()
    width = max(int(mask[row].sum()) + len(some) for row, some in enumerate(ids))
    longer = dict(inputs)
    for name, value in inputs.items():
        if value.shape != shape or value.is_floating_point():
            continue
        grown = value.new_zeros((shape[0], width))
        for row, some in enumerate(ids):
            new = {"input_ids": some, "attention_mask": [1] * len(some)}.get(name, [0] * len(some))
            whole = torch.cat([value[row][mask[row]], value.new_tensor(new)])
            grown[row, width - len(whole) :] = whole
        longer[name] = grown
    return longer


def window_of(model: Any) -> int:
    """Tokens that attention looks back, where some layers have a window or look at chunks."""
    config = model.config.get_text_config()
    sizes = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((size for size in sizes if size), default=sys.maxsize)


@torch.inference_mode()
def can_share_prefix(model: Any, chat: ChatFormat, encode: Encode) -> bool:
    """Whether branches behind a shared prompt get the logits of whole prompts of their own.

    Run once per loaded model on a probe. Models whose attention looks at the whole prompt, or whose
    layers carry a state, fail it; one line of log says so.
    """
    name = type(model).__name__
    try:
        difference = _difference(model, chat, encode)
    except (ValueError, RuntimeError, TypeError, IndexError, KeyError, AttributeError) as error:
        if is_out_of_memory(error):
            raise PeeralignError(
                f"{name} is loaded, and too little memory is left on {model.device} to run it; "
                "free memory there or use another device"
            ) from error
        log.warning("%s cannot share a prompt between answers (%s)", name, error)
        return False
    tolerance = TOLERANCE.get(model.dtype, 0.25)
    if not difference <= tolerance:
        log.warning("%s: answers that share a prompt differ by %.2g", name, difference)
        return False
    return True


def _difference(model: Any, chat: ChatFormat, encode: Encode) -> float:
    pixels = np.random.default_rng(0).integers(0, 256, (336, 336, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    texts = [f"{PROBE[0]} {answer}" for answer in PROBE[1]]
    head, shared, tails = split_texts(chat, texts)
    prompt = lengthened(encode([head], [image]), [shared])
    whole = [encode([chat.prompt(text)], [image]) for text in texts]
    for tail, inputs in zip(tails, whole, strict=True):
        if prompt["input_ids"][0].tolist() + tail != inputs["input_ids"][0].tolist():
            raise ValueError("its processor writes a prompt of its own")
    branches = TreeBranches(model, prompt)
    branches.start([0, 0])
    after = branches.feed(tails)
    gaps = [_gap(after[n], _full(model, inputs)) for n, inputs in enumerate(whole)]
    # Once more behind a fork and a new order, as in decoding.
    branches.keep([1, 0, 1])
    token = tails[0][0]
    after = branches.feed([[token]] * 3)
    for row, number in enumerate((1, 0, 1)):
        gaps.append(_gap(after[row], _full(model, lengthened(whole[number], [[token]]))))
    # Unlike Python's, this maximum of numbers and a NaN is NaN.
    return float(np.max(gaps))


def _full(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs, use_cache=False).logits[0, -1].float()


def _gap(found_V: Tensor, expected_V: Tensor) -> float:
    expected_V = expected_V.log_softmax(dim=-1)
    top = expected_V.topk(min(NUM_COMPARED, len(expected_V))).indices
    return float((found_V.log_softmax(dim=-1)[top] - expected_V[top]).abs().max())
