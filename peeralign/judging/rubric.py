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
from peeralign.judging.verdict import REASON, Form
from peeralign.records import make_id

# One letter an answer, so that a label is one token for every tokenizer.
LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Wording(BaseModel):
    """One way to ask for a comparison: its text, and how the verdict is to be written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    reason: Literal["first", "after", "none"] = "none"
    mark: str | None = None
    labels: tuple[str, str, str] = ("A", "B", "tie")


class Rubric(BaseModel):
    """Wording, axes, scale, and the form of the verdict.

    "absolute": one answer a call, graded on every axis; `prompt` holds {question} and {answer}.
    With one axis this is pointwise scoring, on any `scale` of whole numbers.
    "relative" and "ranking": one call shows several answers by letter and asks for a score of each
    on `scale`, or for its place (1 is best); `prompt` holds {question} and {answers}, and {form}
    becomes the JSON object to write.
    "pairwise": one call shows two answers and asks which is better, by one of three `labels` (the
    first, the second, neither); `prompt` holds {question}, {answer_a} and {answer_b}. Instead of
    one prompt there may be several `wordings`, of which each item draws one.

    Every prompt may hold {fence}; absolute and pairwise ones {reference}, an answer to grade by.
    `reason` says where the judge explains itself ("first", "after", "none"), under the key
    "reason" of its JSON. With a `mark`, such as "Final score:", the verdict stands behind these
    words instead of in JSON; there is then one axis.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    kind: Literal["absolute", "relative", "ranking", "pairwise"] = "absolute"
    axes: list[str] = []
    scale: tuple[int, int] = (1, 5)
    prompt: str = ""
    reason: Literal["first", "after", "none"] = "none"
    mark: str | None = None
    labels: tuple[str, str, str] = ("A", "B", "tie")
    wordings: list[Wording] = []

    @model_validator(mode="after")
    def _usable(self) -> Self:
        names = [axis.casefold() for axis in self.axes]
        if self.kind != "absolute" and names:
            raise ValueError(f"axes: a {self.kind} rubric has none, its axes are the answers")
        if self.kind == "absolute" and (not names or len(set(names)) < len(names)):
            raise ValueError("axes: give at least one, each by a name of its own")
        if REASON in names:
            raise ValueError(f'axes: "{REASON}" is where the judge explains itself')
        if not 0 <= self.scale[0] < self.scale[1]:
            raise ValueError("scale: give two whole numbers, the lower first")
        if self.wordings and (self.kind != "pairwise" or self.prompt):
            raise ValueError("wordings: they stand for the prompt of a pairwise rubric")
        if self.kind in ("relative", "ranking") and (self.mark or self.reason != "none"):
            raise ValueError(f"a {self.kind} rubric has neither mark nor reason")
        for one in self.variants():
            one._check_form(len(names))
        return self

    def _check_form(self, num_axes: int) -> None:
        words = [label.strip().casefold() for label in self.labels]
        if "" in words or len(set(words)) < len(words):
            raise ValueError("labels: give three words, each another")
        if self.mark is not None and (num_axes > 1 or not self.mark.strip().endswith(":")):
            raise ValueError('mark: give words that end in ":", for a verdict of one axis')

    def variants(self) -> list[Rubric]:
        """A rubric of one prompt for each of the wordings; the rubric itself if it has none."""
        return [
            self.model_copy(update={**wording.model_dump(), "wordings": []})
            for wording in self.wordings
        ] or [self]

    @property
    def needs_reference(self) -> bool:
        """Whether the judge is to see a reference answer."""
        return any("{reference}" in one.prompt for one in self.variants())

    def form(self, num_answers: int = 1) -> Form:
        """What the judge writes; of `num_answers` answers, if one call shows several."""
        if self.kind == "absolute":
            return Form(tuple(self.axes), self.scale, reason=self.reason, mark=self.mark)
        if self.kind == "pairwise":
            return Form(
                ("better",), (0, 1), choices=self.labels, reason=self.reason, mark=self.mark
            )
        labels = tuple(LABELS[:num_answers])
        if self.kind == "relative":
            return Form(labels, self.scale)
        return Form(labels, (1, num_answers), distinct=True)

    def fill(
        self, question: str, answers: Sequence[str], reference: str | None = None
    ) -> list[str]:
        """What a judge reads of each answer (absolute); the authors stay unnamed.

        All texts are equal up to the answer, so that engines can compute that part once.
        """
        parts = self._parts(question, answers, reference)
        return [_replace(self.prompt.strip(), {**parts, "{answer}": a}) for a in answers]

    def fill_pairs(
        self, question: str, pairs: Sequence[tuple[str, str]], reference: str | None = None
    ) -> list[str]:
        """What a judge reads of each (first, second) pair of answers to a question (pairwise)."""
        parts = self._parts(question, [text for pair in pairs for text in pair], reference)
        return [
            _replace(self.prompt.strip(), {**parts, "{answer_a}": a, "{answer_b}": b})
            for a, b in pairs
        ]

    def fill_together(self, question: str, answers: Sequence[str]) -> str:
        """The one text that shows all `answers` (relative, ranking)."""
        parts = self._parts(question, answers)
        fence = parts["{fence}"]
        shown = [
            f"Answer {label}\n{fence}\n{answer}\n{fence}"
            for label, answer in zip(LABELS, answers, strict=False)
        ]
        form = ", ".join(f'"{label}": n' for label in LABELS[: len(answers)])
        parts |= {"{answers}": "\n\n".join(shown), "{form}": "{" + form + "}"}
        return _replace(self.prompt.strip(), parts)

    def example(self, question: str, first: str, second: str) -> tuple[list[str], Form]:
        """One call's texts about two answers (absolute: about the first), and the form it asks."""
        reference = first if self.needs_reference else None
        if self.kind == "absolute":
            return self.fill(question, [first], reference), self.form()
        if self.kind == "pairwise":
            one = self.variants()[0]
            return one.fill_pairs(question, [(first, second)], reference), one.form()
        return [self.fill_together(question, [first, second])], self.form(2)

    def _parts(
        self, question: str, answers: Sequence[str], reference: str | None = None
    ) -> dict[str, str]:
        """What takes the place of the placeholders that all kinds have."""
        if reference is None:
            return {"{fence}": _fence(question, answers), "{question}": question}
        fence = _fence(question, [*answers, reference])
        return {"{fence}": fence, "{question}": question, "{reference}": reference}

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
    _check_prompts(rubric, name)
    return rubric


_SHOWN = {
    "absolute": ("{answer}",),
    "relative": ("{answers}",),
    "ranking": ("{answers}",),
    "pairwise": ("{answer_a}", "{answer_b}"),
}


def _check_prompts(rubric: Rubric, name: str) -> None:
    for number, one in enumerate(rubric.variants()):
        where = f"wording {number} of it" if rubric.wordings else "its prompt"
        for key in ("{question}", *_SHOWN[rubric.kind]):
            if key not in one.prompt:
                raise PeeralignError(
                    f"rubric '{name}' does not show the judge the {key}; add it to {where}"
                )
        if one.mark and one.mark.strip() not in one.prompt:
            raise PeeralignError(
                f"rubric '{name}' does not tell the judge to write '{one.mark}'; say so in {where}"
            )
