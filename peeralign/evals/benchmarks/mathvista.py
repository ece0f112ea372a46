"""MathVista (Lu et al., 2024): accuracy after a language model extracted the answer.

The key `extraction` holds what it extracted. Without it, only replies are read that need none: an
option's text, a number, and officially 'The answer is "...".'; all others are wrong and not read.
An extraction that is no option is officially taken for the nearest one by edit distance; such
items count as ambiguous. In VLMEvalKit answers that are lists are never right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from peeralign.evals.agreement import levenshtein
from peeralign.evals.benchmark import (
    LMMS_EVAL,
    OFFICIAL,
    UNREAD,
    VLMEVALKIT,
    Benchmark,
    Graded,
    Row,
    mean_score,
)
from peeralign.evals.options import graded_choice
from peeralign.evals.reading.letters import LETTERS, kit_letter

ANSWER_TYPES = ("text", "integer", "float", "list")


def grade(row: Row, protocol: str) -> Graded:
    """1 if the extracted answer, brought into the form of its type, is the answer."""
    if protocol == VLMEVALKIT:
        return _kit(row)
    extraction = row.get("extraction")
    if extraction is None:
        extraction = _extracted(row, protocol)
    if extraction is None or not extraction.strip():
        return UNREAD
    if "choices" in row:
        reading, is_exact = _nearest_option(extraction, row["choices"])
    else:
        reading, is_exact = _in_form(extraction, row), True
    if reading is None:
        return UNREAD
    answer = row["answer"]
    if protocol == LMMS_EVAL:
        right = reading.strip() == answer.strip()
    else:
        right = reading == answer
    return Graded(float(right), "parsed" if is_exact else "ambiguous", reading)


def _extracted(row: Row, protocol: str) -> str | None:
    """What the scripts extract without asking a model."""
    text = row["prediction"].strip() if protocol == LMMS_EVAL else row["prediction"]
    if text in row.get("choices", ()):
        return text
    number = _number(text, row["answer_type"])
    if number is not None:
        return str(number)
    quoted = re.search(r'The answer is "(.*)"\.', text) if protocol == OFFICIAL else None
    return quoted[1] if quoted else None


def _number(text: str, answer_type: str) -> int | float | None:
    try:
        return {"integer": int, "float": float}[answer_type](text)
    except (KeyError, ValueError):
        return None


def _nearest_option(extraction: str, choices: Sequence[str]) -> tuple[str, bool]:
    """The option, and whether the extraction is one rather than only near to it."""
    extraction = extraction.strip()
    bracketed = re.search(r"\(([a-zA-Z])\)", extraction)
    letter = bracketed[1].upper() if bracketed else extraction
    known = list(LETTERS[: len(choices)])
    if letter in known:
        return choices[known.index(letter)], True
    # A letter in brackets that is no option replaces the rest all the same.
    return min(choices, key=lambda option: levenshtein(letter, option)), letter in choices


def _in_form(extraction: str, row: Row) -> str | None:
    if row["answer_type"] not in ("integer", "float"):
        return extraction
    number = _number(extraction, "float")
    if number is None or not math.isfinite(number):
        return None
    if row["answer_type"] == "integer":
        return str(int(number))
    return str(round(number, row["precision"]))


def _kit(row: Row) -> Graded:
    replies = [reply for reply in (row["prediction"], row.get("extraction")) if reply is not None]
    best = UNREAD
    for reply in replies:
        if "choices" in row:
            answer = LETTERS[row["choices"].index(row["answer"])]
            # The second reply is asked only where the first one could not be read.
            best = graded_choice(kit_letter(reply, row["choices"]), answer)
            if best.reading is not None:
                return best
            continue
        number = _number(reply, row["answer_type"])
        if number is not None:
            best = Graded(
                float(number == _number(row["answer"], row["answer_type"])), "parsed", str(number)
            )
            if best.score:
                return best
    return best


def complaint(row: Row, protocol: str) -> str | None:
    """The keys must fit the type of the question."""
    if row["answer_type"] not in ANSWER_TYPES:
        return f"has the answer_type '{row['answer_type']}'; give {', '.join(ANSWER_TYPES)}"
    if "choices" in row and row["answer"] not in row["choices"]:
        return "has an answer that is none of its choices; give the text of the right one"
    is_float = "choices" not in row and row["answer_type"] == "float"
    if is_float and row.get("precision") is None and protocol != VLMEVALKIT:
        return "has no 'precision', which an answer_type of float needs"
    return None


BENCHMARK = Benchmark(
    title="MathVista",
    headline="accuracy",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answer", "answer_type")),
    grade=grade,
    measures=mean_score("accuracy"),
    splits=("question_type", "answer_type", "task", "category", "grade"),
    complaint=complaint,
)
