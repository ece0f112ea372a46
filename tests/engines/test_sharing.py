"""What texts share, and the check that finds out whether a model may share it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families.offered import save_family

from peeralign.engines.local import LocalEngine
from peeralign.engines.sharing import can_share_prefix, lengthened, split_texts, window_of
from peeralign.errors import PeeralignError
from peeralign.images.load import open_image
from peeralign.judging.rubric import load_rubric

# PaliGemma's processor, on its own tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    "answers",
    [
        ["red", "red square", "blue"],
        ["red"],
        ["same", "same"],
        ["", "red"],
        ["no"] * 5,
    ],
)
def test_a_split_text_is_the_whole_prompt(
    chat: Any, scenes: list[dict[str, Any]], answers: list[str]
) -> None:
    texts = load_rubric("classroom").fill("what is the digit?", answers)
    image = open_image(scenes[0]["image"])
    head, shared, tails = split_texts(chat, texts)
    prompt = lengthened(chat.encode([head], [image]), [shared])
    for text, tail in zip(texts, tails, strict=True):
        assert tail
        whole = chat.encode([chat.prompt(text)], [image])["input_ids"][0].tolist()
        assert prompt["input_ids"][0].tolist() + tail == whole
    if len(set(answers)) > 1:
        assert len({tail[0] for tail in tails}) > 1


def test_lengthened_prompts_are_padded_on_the_left() -> None:
    inputs = {
        "input_ids": torch.tensor([[0, 5, 6], [7, 8, 9]]),
        "attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]),
        "token_type_ids": torch.tensor([[0, 1, 0], [1, 1, 0]]),
        "pixel_values": torch.zeros(2, 3),
    }
    longer = lengthened(inputs, [[1, 2, 3, 4], [1]])
    assert longer["input_ids"].tolist() == [[5, 6, 1, 2, 3, 4], [0, 0, 7, 8, 9, 1]]
    assert longer["attention_mask"].tolist() == [[1] * 6, [0, 0, 1, 1, 1, 1]]
    assert longer["token_type_ids"].tolist() == [[1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]
    assert longer["pixel_values"] is inputs["pixel_values"]
    assert inputs["input_ids"].shape == (2, 3)


def test_a_causal_model_shares(peer_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "peeralign"):
        assert LocalEngine(str(peer_folder), "cpu").shares_prefix
        assert LocalEngine(str(peer_folder), "cpu", "bfloat16").shares_prefix
    assert not caplog.records


def test_attention_over_the_whole_prompt_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_family("paligemma", tmp_path / "paligemma")
    with caplog.at_level(logging.INFO, "peeralign"):
        assert not LocalEngine(str(folder), "cpu").shares_prefix
    assert len(caplog.records) == 1
    assert "PaliGemmaForConditionalGeneration" in caplog.text


@pytest.mark.parametrize("fault", ["raises", "no mask", "not finite", "second not finite"])
def test_a_model_that_mistreats_branches_does_not(
    peer_folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    engine = LocalEngine(str(peer_folder), "cpu")
    real = engine.model.forward

    def forward(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() == 4:
            if fault == "raises":
                raise ValueError("4-D masks are not supported")
            if fault == "no mask":
                attention_mask = None
        output = real(*args, attention_mask=attention_mask, **kwargs)
        is_tree = attention_mask is not None and attention_mask.dim() == 4
        if fault == "second not finite" and is_tree:
            output.logits[:, 1:] = float("nan")
        if fault == "not finite" and kwargs.get("past_key_values") is not None:
            output.logits = output.logits * float("nan")
        return output

    forward.__signature__ = __import__("inspect").signature(real)  # type: ignore[attr-defined]
    monkeypatch.setattr(engine.model, "forward", forward)
    assert not can_share_prefix(engine.model, engine.chat, engine._encode)


def test_windows(untrained: dict[str, Any]) -> None:
    assert window_of(untrained["llama"]) == sys.maxsize
    config = untrained["mistral"].config.get_text_config()
    assert window_of(untrained["mistral"]) == (config.sliding_window or sys.maxsize)


def test_no_memory_for_the_probe_is_no_answer(
    peer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(str(peer_folder), "cpu")

    def forward(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    forward.__signature__ = __import__("inspect").signature(engine.model.forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(engine.model, "forward", forward)
    with pytest.raises(PeeralignError, match="too little memory is left on cpu to run it"):
        can_share_prefix(engine.model, engine.chat, engine._encode)
