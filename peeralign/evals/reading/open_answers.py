"""Open replies as MMMU reads them: the ends of their sentences, and all numbers in these."""

from __future__ import annotations

import re

_SIGNS = ["could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result "]
_NUMBERS = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)


def names_an_answer(reply: str, answers: list[str]) -> bool:
    """Whether a text that the reply ends on contains an answer, or a number in it equals one.

    Numbers are rounded to two digits. A number in the answer is no match for one in a text.
    """
    right = [form for answer in answers for form in _forms(answer)]
    texts = [form for form in right if isinstance(form, str)]
    return any(
        any(text in form for text in texts) if isinstance(form, str) else form in right
        for form in _named(reply)
    )


def _named(reply: str) -> list[str | float]:
    ends = _ends(reply)
    numbers = [found for end in ends for pattern in _NUMBERS for found in re.findall(pattern, end)]
    return [form for text in (*ends, *numbers) for form in _forms(text)]


def _ends(reply: str) -> list[str]:
    """What follows the last "is", "so" and the like of each line, the shortest; or the reply."""
    reply = reply.strip().strip(".").lower()
    # The script splits at periods before capitals too, but there are none after lower().
    lines = reply.split("\n")
    ends = []
    for number, line in enumerate(lines):
        shortest = ""
        for sign in [*_SIGNS, "="] if number == len(lines) - 1 else _SIGNS:
            if sign in line:
                end = line.split(sign)[-1].strip()
                if not shortest or len(end) < len(shortest):
                    shortest = end
        if shortest and shortest not in list(":,.!?;'"):
            ends.append(shortest)
    return ends or [reply]


def _forms(text: str) -> list[str | float]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    # A single letter is only found at the edge of a word.
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
