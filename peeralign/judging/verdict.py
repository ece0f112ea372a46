"""From a judge's reply to axis scores, or to the reason why there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from peeralign.judging.rubric import Rubric


@dataclass(frozen=True, slots=True)
class Verdict:
    """Axis scores in the rubric's order, or a reason; never both. `raw` is the reply."""

    axes: list[float] | None
    reason: str | None
    raw: str
    label_mass: float | None = None


def _objects(text: str) -> Iterator[dict[str, object]]:
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        else:
            if isinstance(value, dict):
                yield value
        at = text.find("{", end)


def _axis(value: object, rubric: Rubric) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high = rubric.scale
    return float(value) if value == int(value) and low <= value <= high else None


def parse_verdict(raw: str, rubric: Rubric) -> Verdict:
    """Read the JSON object a judge was asked for. Nothing is guessed.

    The reply may have text around the object. Several objects must agree; every axis must be there
    with a whole number on the scale (keys in any case); anything else is unscored, with a reason.
    """
    wanted = [axis.casefold() for axis in rubric.axes]
    found: list[list[float]] = []
    reason = "no JSON object in the reply"
    for value in _objects(raw):
        folded = {str(key).casefold(): item for key, item in value.items()}
        missing = [axis for axis in wanted if axis not in folded]
        if missing:
            reason = f"the reply has no score for {missing[0]}"
            continue
        axes: list[float] = []
        for axis in wanted:
            score = _axis(folded[axis], rubric)
            if score is None:
                shown = str(folded[axis])[:40]
                low, high = rubric.scale
                reason = f"{axis} is {shown}, not a whole number from {low} to {high}"
                break
            axes.append(score)
        else:
            found.append(axes)
    if not found:
        return Verdict(None, reason, raw)
    if any(axes != found[0] for axes in found):
        return Verdict(None, "the reply holds several verdicts that differ", raw)
    return Verdict(found[0], None, raw)
