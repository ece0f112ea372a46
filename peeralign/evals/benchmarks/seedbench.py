"""SEED-Bench (Li et al., 2023): accuracy on questions with four options.

The official script ranks the options by their likelihoods, so officially the prediction must be the
letter alone. lmms-eval takes the first character of the reply, whatever it begins.
"""

from __future__ import annotations

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
from peeralign.evals.reading.letters import kit_letter, only

OPTIONS = "ABCD"


def grade(row: Row, protocol: str) -> Graded:
    """1 if the letter that was read is the answer."""
    text = row["prediction"].strip()
    if protocol == VLMEVALKIT:
        return graded_choice(kit_letter(row["prediction"], row["choices"]), row["answer"])
    letter = text[0].upper() if protocol == LMMS_EVAL else text
    return graded_choice(only(letter if letter in list(OPTIONS) else None), row["answer"])


BENCHMARK = Benchmark(
    title="SEED-Bench",
    headline="accuracy",
    needs={OFFICIAL: ("answer",), LMMS_EVAL: ("answer",), VLMEVALKIT: ("answer", "choices")},
    grade=grade,
    measures=mean_score("accuracy"),
    splits=("category", "data_type"),
    complaint=letter_complaint,
)
