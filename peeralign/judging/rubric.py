"""Rubrics: what a judge is asked, as data. A rubric is a TOML file; any file can be used."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from peeralign.errors import PeeralignError, nearest
from peeralign.records import make_id


class Rubric(BaseModel):
    """Axes, scale and wording. `prompt` holds {question} and {answer}, and may hold {fence}."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    axes: list[str]
    scale: tuple[int, int]
    prompt: str

    @model_validator(mode="after")
    def _usable(self) -> Self:
        names = [axis.casefold() for axis in self.axes]
        if not names or len(set(names)) < len(names):
            raise ValueError("axes: give at least one, each by a name of its own")
        if not 0 <= self.scale[0] < self.scale[1]:
            raise ValueError("scale: give two whole numbers, the lower first")
        return self

    @property
    def labels(self) -> list[int]:
        """The scores one axis can get."""
        return list(range(self.scale[0], self.scale[1] + 1))

    def fill(self, question: str, answer: str) -> str:
        """The text a judge reads: one question and one answer, whose author stays unnamed.

        The fence is a nonce drawn from both texts, so an answer cannot contain its own fence.
        """
        fence = f"==== {make_id('fence', question, answer)} ===="
        # One pass, so that a "{answer}" inside the question is left alone.
        parts = {"{fence}": fence, "{question}": question, "{answer}": answer}
        text, rest = "", self.prompt.strip()
        while rest:
            at, key = min((rest.find(k), k) if k in rest else (len(rest), "") for k in parts)
            text, rest = text + rest[:at] + parts.get(key, ""), rest[at + len(key) :]
        return text

    def verdict(self, scores: list[int]) -> str:
        """The JSON object a judge writes for these axis scores."""
        return json.dumps(dict(zip(self.axes, scores, strict=True)))

    def reward(self, scores: list[float]) -> float:
        """R = sum of the axes over their maximum: in [0.2, 1] for five axes of 1 to 5."""
        return sum(scores) / (self.scale[1] * len(self.axes))


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
    missing = [key for key in ("{question}", "{answer}") if key not in rubric.prompt]
    if missing:
        raise PeeralignError(
            f"rubric '{name}' does not show the judge the {missing[0]}; add it to its prompt"
        )
    return rubric
