"""TextVQA (Singh et al., 2019): agreement with ten annotators, each left out in turn.

A reply that n of the ten gave scores the mean, over the ten, of min(matches among the other nine,
3) / 3: 0.3, 0.6, 0.9 and 1 for n = 1, 2, 3 and 4. Texts are compared after MMF's normalisation,
which lmms-eval shares; VLMEvalKit's treats commas, "'s" and final periods differently.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import (
    LMMS_EVAL,
    OFFICIAL,
    VLMEVALKIT,
    Benchmark,
    Graded,
    Row,
    mean_score,
)
from peeralign.evals.reading.words import kit_vqa_normalised, vqa_normalised

NUM_ANNOTATORS = 10


def agreement(reply: str, answers: Sequence[str]) -> float:
    """The mean over annotators of the capped share of the others who gave the reply."""
    matches = sum(answer == reply for answer in answers)
    others = (matches - (answer == reply) for answer in answers)
    return sum(min(1.0, other / 3) for other in others) / len(answers)


def grade(row: Row, protocol: str) -> Graded:
    """Agreement of the normalised reply with the normalised answers."""
    normalised = kit_vqa_normalised if protocol == VLMEVALKIT else vqa_normalised
    reply = normalised(row["prediction"])
    return Graded(agreement(reply, [normalised(each) for each in row["answers"]]), "parsed", reply)


def complaint(row: Row, protocol: str) -> str | None:
    """The figure is defined for ten answers; the toolkits take any number."""
    number = len(row["answers"])
    if protocol == OFFICIAL and number != NUM_ANNOTATORS:
        return f"has {number} answers; TextVQA has {NUM_ANNOTATORS} annotators, give all of them"
    return None


BENCHMARK = Benchmark(
    title="TextVQA",
    headline="accuracy",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answers",)),
    grade=grade,
    measures=mean_score("accuracy"),
    complaint=complaint,
)
