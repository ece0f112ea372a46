"""Scores of a verdict that a server wrote, from the probabilities beside its tokens."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peeralign.engines.base import Readout
from peeralign.judging.verdict import Form, Verdict, json_objects, marked, parse_verdict

# A digit that may begin another label, too, spoils an expectation if it is likelier than this.
MAX_AMBIGUOUS_SHARE = 0.01
_DIGITS = "score in several tokens, so its first digit"


@dataclass(frozen=True, slots=True)
class WrittenToken:
    """One token of a reply, and the log-probabilities of what could have stood in its place.

    `logprobs` holds the token itself and its alternatives; a server gives the likeliest few.
    """

    text: str
    logprobs: Mapping[str, float]


def read_written(
    tokens: Sequence[WrittenToken], form: Form, readout: Readout, min_label_mass: float
) -> Verdict:
    """The verdict of a written reply: "greedy" its labels, "expected" their expectation.

    It is read as any reply is; then each score is looked up where it was written, and its
    alternatives are weighed by the probabilities the server gave them. With less than
    `min_label_mass` of the probability on scores a verdict is unscored. If a score is not one
    token, "expected" is unscored and "greedy" stands as it was written, without a label mass.
    """
    raw = "".join(token.text for token in tokens)
    verdict = parse_verdict(raw, form)
    if verdict.axes is None or readout == "text":
        return verdict
    places = _score_places(tokens, raw, form, verdict.axes)
    if places is None:
        if readout == "greedy":
            return verdict
        return Verdict(None, "a score is not one token of the reply", raw)
    expected: list[float] = []
    masses: list[float] = []
    shares = None
    for place in places:
        weights = [_weight(tokens[place].logprobs, str(label)) for label in form.labels]
        masses.append(sum(weights))
        if masses[-1] > 0:
            total = sum(s * w for s, w in zip(form.values, weights, strict=True))
            expected.append(total / masses[-1])
            shares = [w / masses[-1] for w in weights] if form.choices else None
    mass = min(masses)
    if not mass >= min_label_mass or len(expected) < len(places):
        reason = f"less than {min_label_mass:g} of the probability lies on scores"
        return Verdict(None, reason, raw, mass)
    if readout == "greedy":
        return Verdict(verdict.axes, None, raw, mass, shares)
    if _is_ambiguous([tokens[place].logprobs for place in places], form):
        what = "label in several tokens, so its beginning" if form.choices else _DIGITS
        reason = f"the judge writes a {what} has two meanings"
        return Verdict(None, reason, raw, mass)
    return Verdict(expected, None, raw, mass, shares)


def _bare(text: str) -> str:
    """A token without what may stand around a label: white space, quotes, emphasis."""
    return text.strip(" \t\r\n\"'*_").casefold()


def _weight(logprobs: Mapping[str, float], label: str) -> float:
    """Probability of a label, with or without what may stand around it."""
    # Rounding puts some servers' certain tokens a little above probability 1.
    wanted = label.casefold()
    return sum(math.exp(min(lp, 0.0)) for text, lp in logprobs.items() if _bare(text) == wanted)


def _is_ambiguous(alternatives: Sequence[Mapping[str, float]], form: Form) -> bool:
    """Whether a token such as "1" may stand for 10 as well, and weighs enough to matter.

    A tokenizer that has "10" in one piece shows it among the alternatives, if it is at all likely.
    A token that only begins a label ("t" of "tie") takes that label's weight away.
    """
    labels = [str(label).casefold() for label in form.labels]
    seen = {_bare(text) for logprobs in alternatives for text in logprobs}
    for short in sorted(seen - {""}):
        longer = {other for other in labels if other != short and other.startswith(short)}
        if not longer or seen & longer or (short not in labels and not form.choices):
            continue
        for logprobs in alternatives:
            mass = sum(_weight(logprobs, label) for label in labels)
            if _weight(logprobs, short) > MAX_AMBIGUOUS_SHARE * mass:
                return True
    return False


def _verdict_span(raw: str, form: Form, axes: list[float]) -> tuple[int, int] | None:
    """Where in the reply the object with these scores stands."""
    for _, start, end in json_objects(raw):
        if parse_verdict(raw[start:end], form).axes == axes:
            return start, end
    return None


def _score_places(
    tokens: Sequence[WrittenToken], raw: str, form: Form, axes: list[float]
) -> list[int] | None:
    """Which token wrote each axis score, or None if one is not a token of its own."""
    ends, end = [], 0
    for token in tokens:
        end += len(token.text)
        ends.append(end)
    places = []
    spans = _label_spans(raw, form, axes)
    for start, stop in spans or []:
        place = next(number for number, end in enumerate(ends) if end > start)
        if _bare(tokens[place].text) != raw[start:stop].casefold():
            return None
        places.append(place)
    return places or None


def _label_spans(raw: str, form: Form, axes: list[float]) -> list[tuple[int, int]] | None:
    """Start and end of each axis's label: what follows the axis's name, or the mark."""
    if behind := marked(raw, form):
        return [(behind[-1].start, behind[-1].end)]
    span = _verdict_span(raw, form, axes)
    if span is None:
        return None
    labels = {value: str(label) for value, label in zip(form.values, form.labels, strict=True)}
    spans = []
    for axis, score in zip(form.axes, axes, strict=True):
        name = re.escape(json.dumps(axis, ensure_ascii=False))
        label = re.escape(labels[score])
        value = rf'"\s*({label})\s*"' if form.choices else rf"({label})(?!\d)"
        found = re.compile(rf"{name}\s*:\s*{value}", re.IGNORECASE).search(raw, *span)
        if found is None:
            return None
        spans.append(found.span(1))
    return spans
