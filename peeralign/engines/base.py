"""What every engine does: answer and judge. Recipes and stages know nothing else of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL.Image import Image

from peeralign.judging.rubric import Rubric
from peeralign.judging.verdict import Verdict

Readout = Literal["text", "greedy", "expected"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn. `temperature` 0 is greedy."""

    num_draws: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """One question to answer. Draw n is sampled with the n-th of `seeds`."""

    image: Image
    text: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One answer to grade: the filled rubric, and the image it is about."""

    image: Image
    text: str


@dataclass(frozen=True, slots=True)
class Draw:
    """One sampled answer. `text` is None when there was nothing usable, for `reason`."""

    text: str | None
    num_tokens: int
    reason: str | None = None


class Engine(Protocol):
    """A loaded model, local or behind a server."""

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        """Draw `sampling.num_draws` answers to each request, in order."""
        ...

    def judge(
        self, requests: Sequence[JudgeRequest], rubric: Rubric, readout: Readout
    ) -> list[Verdict]:
        """Grade each request, in order. What cannot be read comes back unscored."""
        ...

    def close(self) -> None:
        """Release the model's memory."""
        ...
