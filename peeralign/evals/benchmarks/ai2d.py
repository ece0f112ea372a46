"""AI2D (Kembhavi et al., 2016): accuracy on questions about diagrams with four options.

There is no official script for replies in words, so officially a reply is read strictly.
lmms-eval takes a letter and a period at the start, else the whole reply must be the letter, but for
case and punctuation: "(B)" is right and "B) moon" is not.
"""

from __future__ import annotations

import re

from peeralign.evals.benchmark import (
    LMMS_EVAL,
    OFFICIAL,
    VLMEVALKIT,
    Benchmark,
    Graded,
    Row,
    mean_score,
)
from peeralign.evals.options import graded_choice, letter_complaint
from peeralign.evals.reading.letters import LETTERS, Choice, kit_letter, only, read_letter
from peeralign.evals.reading.words import without_marks


def grade(row: Row, protocol: str) -> Graded:
    """1 if the letter that was read is the answer."""
    if protocol == OFFICIAL:
        return graded_choice(read_letter(row["prediction"], row["choices"]), row["answer"])
    if protocol == VLMEVALKIT:
        return graded_choice(kit_letter(row["prediction"], row["choices"]), row["answer"])
    return graded_choice(_lmms(row["prediction"]), row["answer"])


def _lmms(text: str) -> Choice:
    start = re.match(r"\s*([A-Z])\.", text)
    letter = (start[1] if start else without_marks(text.strip())).upper()
    return only(letter if len(letter) == 1 and letter in LETTERS else None)


BENCHMARK = Benchmark(
    title="AI2D",
    headline="accuracy",
    needs={
        OFFICIAL: ("answer", "choices"),
        LMMS_EVAL: ("answer",),
        VLMEVALKIT: ("answer", "choices"),
    },
    grade=grade,
    measures=mean_score("accuracy"),
    complaint=letter_complaint,
)
