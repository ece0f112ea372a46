"""Scores of a verdict that a server wrote, from the probabilities beside its tokens."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peeralign.engines.base import Readout
from peeralign.judging.verdict import Form, Verdict, parse_verdict

# A digit that may begin another label, too, spoils an expectation if it is likelier than this.
MAX_AMBIGUOUS_SHARE = 0.01


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
    """The verdict of a written JSON object: "greedy" its digits, "expected" their expectation.

    The object is read as any reply is; then each score is looked up where it was written, and its
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
    for place in places:
        weights = [_weight(tokens[place].logprobs, label) for label in form.labels]
        masses.append(sum(weights))
        if masses[-1] > 0:
            total = sum(s * w for s, w in zip(form.labels, weights, strict=True))
            expected.append(total / masses[-1])
    mass = min(masses)
    if not mass >= min_label_mass or len(expected) < len(places):
        reason = f"less than {min_label_mass:g} of the probability lies on scores"
        return Verdict(None, reason, raw, mass)
    if readout == "greedy":
        return Verdict(verdict.axes, None, raw, mass)
    if _is_ambiguous([tokens[place].logprobs for place in places], form):
        reason = "the judge writes a score in several tokens, so its first digit has two meanings"
        return Verdict(None, reason, raw, mass)
    return Verdict(expected, None, raw, mass)


def _weight(logprobs: Mapping[str, float], label: int) -> float:
    """Probability of a label, with or without the white space before it."""
    # Rounding puts some servers' certain tokens a little above probability 1.
    return sum(
        math.exp(min(lp, 0.0)) for text, lp in logprobs.items() if text.strip() == str(label)
    )


def _is_ambiguous(alternatives: Sequence[Mapping[str, float]], form: Form) -> bool:
    """Whether a token such as "1" may stand for 10 as well, and weighs enough to matter.

    A tokenizer that has "10" in one piece shows it among the alternatives, if it is at all likely.
    """
    labels = {str(label): label for label in form.labels}
    for short in labels:
        longer = [other for other in labels if other != short and other.startswith(short)]
        seen = {text.strip() for logprobs in alternatives for text in logprobs}
        if not longer or seen & set(longer):
            continue
        for logprobs in alternatives:
            mass = sum(_weight(logprobs, label) for label in form.labels)
            if _weight(logprobs, labels[short]) > MAX_AMBIGUOUS_SHARE * mass:
                return True
    return False


def _verdict_span(raw: str, form: Form, axes: list[float]) -> tuple[int, int] | None:
    """Where in the reply the object with these scores stands."""
    decoder = json.JSONDecoder()
    at = raw.find("{")
    while at >= 0:
        try:
            _, end = decoder.raw_decode(raw, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if parse_verdict(raw[at:end], form).axes == axes:
                return at, end
        at = raw.find("{", end)
    return None


def _score_places(
    tokens: Sequence[WrittenToken], raw: str, form: Form, axes: list[float]
) -> list[int] | None:
    """Which token wrote each axis score: the number that follows the axis's name."""
    span = _verdict_span(raw, form, axes)
    if span is None:
        return None
    ends, end = [], 0
    for token in tokens:
        end += len(token.text)
        ends.append(end)
    places = []
    for axis, score in zip(form.axes, axes, strict=True):
        name, digits = re.escape(json.dumps(axis, ensure_ascii=False)), str(int(score))
        written = re.compile(rf"{name}\s*:\s*({digits})(?!\d)", re.IGNORECASE)
        found = written.search(raw, *span)
        if found is None:
            return None
        place = next(number for number, end in enumerate(ends) if end > found.start(1))
        if tokens[place].text.strip() != digits:
            return None
        places.append(place)
    return places
