"""From a judge's reply to axis scores, or to the reason why there are none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

# The key under which a judge gives its reason, in a JSON verdict.
REASON = "reason"
# What the choices of a comparison count: the first answer is better, the second is, neither is.
CHOICE_VALUES = (1.0, 0.0, 0.5)
# A verdict alone, and one with a reason beside it.
SHORT_REPLY_TOKENS = 128
LONG_REPLY_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Form:
    """What a judge is to write: for each of `axes` a whole number of `scale`, as a JSON object.

    With `distinct`, no number may be given twice: the axes are answers, the numbers their places.
    With `choices` (first, second, tie) the one axis gets one of these words instead. With a `mark`
    the one axis stands behind these words, not in JSON. `reason` says where the judge explains
    itself: before the verdict, behind it, or nowhere.
    """

    axes: tuple[str, ...]
    scale: tuple[int, int]
    distinct: bool = False
    choices: tuple[str, ...] = ()
    reason: Literal["first", "after", "none"] = "none"
    mark: str | None = None

    @property
    def labels(self) -> list[int] | list[str]:
        """What one axis can get."""
        return list(self.choices) or list(range(self.scale[0], self.scale[1] + 1))

    @property
    def values(self) -> list[float]:
        """The number that each label stands for; a choice is 1 (first), 0 (second) or 0.5 (tie)."""
        return list(CHOICE_VALUES) if self.choices else [float(label) for label in self.labels]

    @property
    def max_tokens(self) -> int:
        """Room for a reply in free text."""
        return SHORT_REPLY_TOKENS if self.reason == "none" else LONG_REPLY_TOKENS

    def write(self, labels: Sequence[int | str], explanation: str | None = None) -> str:
        """The verdict with these labels, and the explanation where the form has one.

        Raises ValueError for an explanation that the form has no place for.
        """
        if explanation is not None and self.reason == "none":
            raise ValueError("this verdict has no place for a reason")
        is_first = self.reason == "first"
        if self.mark:
            verdict = f"{self.mark} {labels[0]}"
            parts = [explanation, verdict] if is_first else [verdict, explanation]
            return "\n".join(part for part in parts if part is not None)
        scores = dict(zip(self.axes, labels, strict=True))
        if explanation is None:
            return json.dumps(scores)
        reason = {REASON: explanation}
        return json.dumps(reason | scores if is_first else scores | reason, ensure_ascii=False)

    def schema(self) -> dict[str, object]:
        """The object's JSON schema, for servers that constrain what a model writes.

        They write the keys in its order.
        """
        kind = "string" if self.choices else "integer"
        label = {"type": kind, "enum": self.labels}
        properties: dict[str, object] = {axis: label for axis in self.axes}  # noqa: C420
        if self.reason == "first":
            properties = {REASON: {"type": "string"}, **properties}
        elif self.reason == "after":
            properties = {**properties, REASON: {"type": "string"}}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Axis scores in the form's order, or a reason; never both. `raw` is the reply.

    `label_mass` is the probability on labels, `shares` how it is spread over the choices.
    """

    axes: list[float] | None
    reason: str | None
    raw: str
    label_mass: float | None = None
    shares: list[float] | None = None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Keys in any case; a key given twice has all its values, which no scale holds."""
    folded: dict[str, object] = {}
    for key, value in pairs:
        name = key.casefold()
        folded[name] = (folded[name], value) if name in folded else value
    return folded


def json_objects(text: str) -> Iterator[tuple[dict[str, object], int, int]]:
    """Every JSON object of a text, with its start and end. Strings may hold bare line ends."""
    decoder = json.JSONDecoder(object_pairs_hook=_object, strict=False)
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):  # ValueError: also a number of too many digits
            end = at + 1
        else:
            if isinstance(value, dict):
                yield value, at, end
        at = text.find("{", end)


def _axis(value: object, form: Form) -> float | None:
    if form.choices:
        return _choice(value, form) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high = form.scale
    # In this order: NaN and infinity are on no scale, and have no whole number.
    return float(value) if low <= value <= high and value == int(value) else None


def _choice(text: str, form: Form) -> float | None:
    given = dict(zip((label.casefold() for label in form.choices), form.values, strict=True))
    return given.get(text.strip().casefold())


def _allowed(form: Form) -> str:
    if form.choices:
        *most, last = form.choices
        return f"{', '.join(most)} or {last}"
    return f"a whole number from {form.scale[0]} to {form.scale[1]}"


def _read_objects(raw: str, form: Form) -> tuple[list[list[float]], str | None]:
    """The verdicts in JSON that a reply holds, and what is wrong with the last other object."""
    wanted = [axis.casefold() for axis in form.axes]
    found: list[list[float]] = []
    reason = None
    for value, _, _ in json_objects(raw):
        missing = [axis for axis in wanted if axis not in value]
        if missing:
            reason = f"the reply has no score for {missing[0]}"
            continue
        axes: list[float] = []
        for axis in wanted:
            score = _axis(value[axis], form)
            if score is None:
                reason = f"{axis} is {str(value[axis])[:40]}, not {_allowed(form)}"
                break
            axes.append(score)
        else:
            if form.distinct and len(set(axes)) < len(axes):
                reason = "two answers got the same place"
                continue
            found.append(axes)
    return found, reason


@dataclass(frozen=True, slots=True)
class Marked:
    """A mark and what stands behind it: its value, or None if that is not on the scale.

    The mark begins at `begin`; the label or number is the reply's `start` to `end`.
    """

    value: float | None
    begin: int
    start: int
    end: int
    text: str


# "8/10" says which scale is meant; "8 to 9", "8-9" and "85%" are no number of a scale.
_NUMBER = (
    r"([+-]?\d+(?:[.,]\d+)*)(?![\w%]|[.,]\d)"
    r"(?:\s*(?:/|out of)\s*(\d+))?(?!\d|\s*(?:[-–—/]|to|or)\s*\d)"  # noqa: RUF001
)


def marked(raw: str, form: Form) -> list[Marked]:
    """Every label or number that stands behind the form's mark, in any case, emphasised or not.

    A label must end its sentence or its line: "A or B" is none, nor is "A is no better".
    """
    if not form.mark:
        return []
    name = r"\s+".join(re.escape(word) for word in form.mark.rstrip(": ").split())
    start = rf"(?<!\w){name}[*_]*\s*:[\s*_\"'(\[]*"
    if form.choices:
        words = "|".join(sorted(map(re.escape, form.choices), key=len, reverse=True))
        found = re.finditer(
            rf"{start}({words})(?=[ \t*_\"')\]]*(?:[.;:\r\n]|$))", raw, re.IGNORECASE
        )
        return [Marked(_choice(m[1], form), m.start(), *m.span(1), m[0]) for m in found]
    found = re.finditer(start + _NUMBER, raw, re.IGNORECASE)
    return [Marked(_marked_number(m, form), m.start(), *m.span(1), m[0]) for m in found]


def _marked_number(match: re.Match[str], form: Form) -> float | None:
    text, most = match[1], match[2]
    if most is not None and int(most[:9]) != form.scale[1]:
        return None
    try:
        return _axis(float(text), form)
    except ValueError:
        return None


def parse_verdict(raw: str, form: Form, was_cut: bool = False) -> Verdict:
    """Read the verdict a judge was asked for. Nothing is guessed.

    A JSON object may have text around it; every axis must be there with a whole number on the scale
    or one of the choices (keys in any case). With a mark, what stands behind it is read too.
    Several verdicts must agree; anything else is unscored, with a reason. If a reply `was_cut` at
    its longest before a verdict that comes last, a mark in it may be one that the reason quotes.
    """
    if was_cut and form.mark and form.reason == "first":
        return Verdict(None, "the reply was cut before it came to an end", raw)
    found, reason = _read_objects(raw, form)
    behind = marked(raw, form)
    found += [[mark.value] for mark in behind if mark.value is not None]
    off = next((mark for mark in behind if mark.value is None), None)
    if off is not None:
        shown = " ".join(off.text.split())[:60]
        return Verdict(None, f"'{shown}' is not {_allowed(form)}", raw)
    if not found:
        missing = (
            f"no {_allowed(form).removeprefix('a ')} behind '{form.mark}' in the reply"
            if form.mark
            else "no JSON object in the reply"
        )
        return Verdict(None, reason or missing, raw)
    if any(axes != found[0] for axes in found):
        return Verdict(None, "the reply holds several verdicts that differ", raw)
    return Verdict(found[0], None, raw)


def explanation_of(raw: str, form: Form) -> str | None:
    """The reason that a judge gave beside its verdict; None if it gave none or was not asked."""
    if form.reason == "none":
        return None
    for value, _, _ in json_objects(raw):
        given = value.get(REASON)
        if form.axes[0].casefold() in value and isinstance(given, str) and given.strip():
            return given.strip()
    behind = marked(raw, form)
    if not behind or form.mark is None:
        return None
    if form.reason == "after":
        text = raw[behind[0].end :].lstrip(" \t\r\n.;:*_\"')]")
    else:
        text = raw[: behind[-1].begin].rstrip(" \t\r\n*_\"'([")
    text = re.sub(r"^[*_]*(reason|explanation)[*_]*\s*:[*_]*\s*", "", text.strip(), flags=re.I)
    return text.strip() or None
