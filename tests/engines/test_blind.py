"""An engine that sees nothing: what it is shown instead, and that all else is the other's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from PIL import Image

from peeralign.classroom.peers import shipped_peer
from peeralign.engines.base import AnswerRequest, Draw, JudgeRequest, Readout, Sampling
from peeralign.engines.blind import BlindEngine
from peeralign.engines.local import LocalEngine
from peeralign.images.load import open_image
from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import Verdict


class Shown:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.is_closed = False

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        self.requests += requests
        return [[Draw("yes", 1)] for _ in requests]

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        self.requests += requests
        return [[Verdict([1.0], None, readout)] for _ in requests]

    def close(self) -> None:
        self.is_closed = True


def test_every_image_is_black_and_of_its_size() -> None:
    shown = Shown()
    blind = BlindEngine(shown)
    form = load_rubric("visual_chat").form()
    sizes = [(3, 5), (20, 10)]
    images = [Image.new("RGB", size, "red") for size in sizes]
    asked = [JudgeRequest(image, ("text",), form) for image in images]
    assert [v.raw for (v,) in blind.judge(asked, "greedy")] == ["greedy"] * 2
    assert blind.answer([AnswerRequest(images[0], "what?", (7,))], Sampling()) == [[Draw("yes", 1)]]
    assert [request.image.size for request in shown.requests] == [*sizes, sizes[0]]
    assert not any(np.asarray(request.image).any() for request in shown.requests)
    assert [request.texts for request in shown.requests[:2]] == [("text",)] * 2
    assert (shown.requests[2].text, shown.requests[2].seeds) == ("what?", (7,))
    # What was asked stays as it was.
    assert np.asarray(asked[0].image).any()
    blind.close()
    assert shown.is_closed


def test_a_model_answers_alike_of_a_black_image_and_blindly(scenes: list[dict[str, Any]]) -> None:
    scene = next(s for s in scenes if "colour" in s["question"] or "color" in s["question"])
    image = open_image(scene["image"])
    asked = AnswerRequest(image, scene["question"], (0,))
    black = AnswerRequest(Image.new("RGB", image.size), scene["question"], (0,))
    with closing(LocalEngine(str(shipped_peer("ada")))) as engine:
        blind = BlindEngine(engine).answer([asked], Sampling())
        assert blind == engine.answer([black], Sampling())
