"""Rubrics: what a judge is asked, as data. A rubric is a TOML file; any file can be used."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from peeralign.errors import PeeralignError, nearest
from peeralign.judging.verdict import Form
from peeralign.records import make_id

# One letter an answer, so that a label is one token for every tokenizer.
LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Rubric(BaseModel):
    """Wording, axes and scale.

    "absolute": one answer a call, graded on every axis; `prompt` holds {question} and {answer}.
    "relative" and "ranking": one call shows several answers by letter and asks for a score of each
    on `scale`, or for its place (1 is best); `prompt` holds {question} and {answers}, and {form}
    becomes the JSON object to write. Every prompt may hold {fence}.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    kind: Literal["absolute", "relative", "ranking"] = "absolute"
    axes: list[str] = []
    scale: tuple[int, int] = (1, 5)
    prompt: str

    @model_validator(mode="after")
    def _usable(self) -> Self:
        names = [axis.casefold() for axis in self.axes]
        if self.kind != "absolute" and names:
            raise ValueError(f"axes: a {self.kind} rubric has none, its axes are the answers")
        if self.kind == "absolute" and (not names or len(set(names)) < len(names)):
            raise ValueError("axes: give at least one, each by a name of its own")
        if not 0 <= self.scale[0] < self.scale[1]:
            raise ValueError("scale: give two whole numbers, the lower first")
        return self

    def form(self, num_answers: int = 1) -> Form:
        """What the judge writes; of `num_answers` answers, if one call shows several."""
        if self.kind == "absolute":
            return Form(tuple(self.axes), self.scale)
        labels = tuple(LABELS[:num_answers])
        if self.kind == "relative":
            return Form(labels, self.scale)
        return Form(labels, (1, num_answers), distinct=True)

    def fill(self, question: str, answers: Sequence[str]) -> list[str]:
        """What a judge reads of each answer (absolute); the authors stay unnamed.

        All texts are equal up to the answer, so that engines can compute that part once.
        """
        fence = _fence(question, answers)
        parts = {"{fence}": fence, "{question}": question}
        return [_replace(self.prompt.strip(), {**parts, "{answer}": a}) for a in answers]

    def fill_together(self, question: str, answers: Sequence[str]) -> str:
        """The one text that shows all `answers` (relative, ranking)."""
        fence = _fence(question, answers)
        shown = [
            f"Answer {label}\n{fence}\n{answer}\n{fence}"
            for label, answer in zip(LABELS, answers, strict=False)
        ]
        form = ", ".join(f'"{label}": n' for label in LABELS[: len(answers)])
        parts = {"{fence}": fence, "{question}": question, "{answers}": "\n\n".join(shown)}
        return _replace(self.prompt.strip(), {**parts, "{form}": "{" + form + "}"})

    def reward(self, scores: list[float]) -> float:
        """R = sum of the axes over their maximum: in [0.2, 1] for five axes of 1 to 5."""
        return sum(scores) / (self.scale[1] * len(scores))


def _fence(question: str, answers: Sequence[str]) -> str:
    """A line that neither the question nor any answer holds, so none can close its own fence.

    It depends on the answers only if one of them tries, so answers do not change each other's
    prompts.
    """
    for number in itertools.count():
        # Short: it is read again behind every answer.
        nonce = make_id("fence", question, number)[:6]
        if not any(nonce in text for text in (question, *answers)):
            return f"=== {nonce}"
    raise AssertionError("unreachable")


def _replace(template: str, parts: dict[str, str]) -> str:
    """Fill the placeholders in one pass, so that a "{answer}" inside the question is left alone."""
    text, rest = "", template
    while rest:
        at, key = min((rest.find(k), k) if k in rest else (len(rest), "") for k in parts)
        text, rest = text + rest[:at] + parts.get(key, ""), rest[at + len(key) :]
    return text


def shipped_rubrics() -> list[str]:
    """Names of the rubrics in the package."""
    folder = resources.files("peeralign.judging") / "rubrics"
    return sorted(entry.name[: -len(".toml")] for entry in folder.iterdir())


def load_rubric(name: str) -> Rubric:
    """Load a shipped rubric by name, or any rubric by the path of its TOML file."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise PeeralignError(f"no rubric file at {path}; give the path of a rubric's TOML file")
        data = path.read_bytes()
    elif name in shipped_rubrics():
        data = (resources.files("peeralign.judging") / "rubrics" / f"{name}.toml").read_bytes()
    else:
        raise PeeralignError(
            f"no rubric named '{name}'; give the path of a TOML file, or one of "
            f"{', '.join(shipped_rubrics())}{nearest(name, shipped_rubrics())}"
        )
    try:
        rubric = Rubric(**tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeeralignError(f"rubric '{name}' is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PeeralignError(f"rubric '{name}': '{where}': {first['msg']}") from error
    shown = "{answer}" if rubric.kind == "absolute" else "{answers}"
    missing = [key for key in ("{question}", shown) if key not in rubric.prompt]
    if missing:
        raise PeeralignError(
            f"rubric '{name}' does not show the judge the {missing[0]}; add it to its prompt"
        )
    return rubric
