"""Questions of files that hold more than the question: its options, a hint before it."""

from __future__ import annotations

import re

_HEADER = re.compile(r"\n\s*(?:Options|Choices):[ \t]*\n?")
# "(A) cat" and "A. cat" on lines, "A: cat, B: dog" anywhere.
_MARKS = (
    re.compile(r"^[ \t]*\(([A-Z])\)[ \t]*", re.MULTILINE),
    re.compile(r"^[ \t]*([A-Z])\.[ \t]+", re.MULTILINE),
    re.compile(r"(?:^|,[ \t]*)([A-Z]):[ \t]*", re.MULTILINE),
)
_HINT = re.compile(r"Hint:[^\n]*\n\s*(?:Question:[ \t]*)?")
_IMAGE = re.compile(r" ?<image \d+>")


def parted(question: str, answer: str | None = None) -> tuple[str, list[str]]:
    """The question without its options, and the options' texts.

    It has none if there are not two, or if the answer is known and is not the letter of one.
    """
    headers = list(_HEADER.finditer(question))
    start = headers[-1].end() if headers else 0
    body = question[start:]
    for style in _MARKS:
        marks = _in_order(style, body)
        letters = [mark[1] for mark in marks]
        if len(marks) > 1 and (answer is None or answer.strip().upper() in letters):
            ends = [*(mark.start() for mark in marks[1:]), len(body)]
            options = [
                body[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)
            ]
            stem = question[: headers[-1].start()] if headers else body[: marks[0].start()]
            return stem.strip(), options
    return question.strip(), []


def without_hint(question: str) -> str:
    """The question of "Hint: ...", a line, and "Question: ...", as MathVista words its own."""
    match = _HINT.match(question.strip())
    return question.strip()[match.end() :].strip() if match else question.strip()


def without_images(text: str) -> str:
    """The text without the places of its images, "<image 1>"."""
    return _IMAGE.sub("", text).strip()


def _in_order(style: re.Pattern[str], body: str) -> list[re.Match[str]]:
    """The last marks that begin at A and go on letter by letter."""
    marks: list[re.Match[str]] = []
    for mark in style.finditer(body):
        if mark[1] == "A":
            marks = [mark]
        elif marks and ord(mark[1]) == ord(marks[-1][1]) + 1:
            marks.append(mark)
    return marks
