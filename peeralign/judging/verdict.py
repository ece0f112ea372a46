"""From a judge's reply to axis scores, or to the reason why there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """The JSON object a judge is to write: one whole number of `scale` for each of `axes`.

    With `distinct`, no number may be given twice: the axes are answers, the numbers their places.
    """

    axes: tuple[str, ...]
    scale: tuple[int, int]
    distinct: bool = False

    @property
    def labels(self) -> list[int]:
        """The numbers one axis can get."""
        return list(range(self.scale[0], self.scale[1] + 1))

    def write(self, scores: list[int]) -> str:
        """The JSON object for these numbers."""
        return json.dumps(dict(zip(self.axes, scores, strict=True)))

    def schema(self) -> dict[str, object]:
        """The object's JSON schema, for servers that constrain what a model writes."""
        number = {"type": "integer", "enum": self.labels}
        return {
            "type": "object",
            "properties": dict.fromkeys(self.axes, number),
            "required": list(self.axes),
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Axis scores in the form's order, or a reason; never both. `raw` is the reply."""

    axes: list[float] | None
    reason: str | None
    raw: str
    label_mass: float | None = None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Keys in any case; a key given twice has all its values, which no scale holds."""
    folded: dict[str, object] = {}
    for key, value in pairs:
        name = key.casefold()
        folded[name] = (folded[name], value) if name in folded else value
    return folded


def _objects(text: str) -> Iterator[dict[str, object]]:
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):  # ValueError: also a number of too many digits
            end = at + 1
        else:
            if isinstance(value, dict):
                yield value
        at = text.find("{", end)


def _axis(value: object, form: Form) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high = form.scale
    # In this order: NaN and infinity are on no scale, and have no whole number.
    return float(value) if low <= value <= high and value == int(value) else None


def parse_verdict(raw: str, form: Form) -> Verdict:
    """Read the JSON object a judge was asked for. Nothing is guessed.

    The reply may have text around the object. Several objects must agree; every axis must be there
    with a whole number on the scale (keys in any case); anything else is unscored, with a reason.
    """
    wanted = [axis.casefold() for axis in form.axes]
    found: list[list[float]] = []
    reason = "no JSON object in the reply"
    for value in _objects(raw):
        missing = [axis for axis in wanted if axis not in value]
        if missing:
            reason = f"the reply has no score for {missing[0]}"
            continue
        axes: list[float] = []
        for axis in wanted:
            score = _axis(value[axis], form)
            if score is None:
                shown = str(value[axis])[:40]
                low, high = form.scale
                reason = f"{axis} is {shown}, not a whole number from {low} to {high}"
                break
            axes.append(score)
        else:
            if form.distinct and len(set(axes)) < len(axes):
                reason = "two answers got the same place"
                continue
            found.append(axes)
    if not found:
        return Verdict(None, reason, raw)
    if any(axes != found[0] for axes in found):
        return Verdict(None, "the reply holds several verdicts that differ", raw)
    return Verdict(found[0], None, raw)
