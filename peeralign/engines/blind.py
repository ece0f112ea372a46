"""An engine that sees nothing: every image it is shown becomes a black one of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from peeralign.engines.base import AnswerRequest, Draw, Engine, JudgeRequest, Readout, Sampling
from peeralign.judging.verdict import Verdict


class BlindEngine:
    """Another engine, with black images. What it still says, it says from the words alone."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        """As the other engine, of black images."""
        return self.engine.answer([replace(r, image=_black(r.image)) for r in requests], sampling)

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        """As the other engine, of black images."""
        return self.engine.judge([replace(r, image=_black(r.image)) for r in requests], readout)

    def close(self) -> None:
        """Release the other engine's memory."""
        self.engine.close()


def _black(image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size)
