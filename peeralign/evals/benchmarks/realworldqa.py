"""RealWorldQA (xAI, 2024): accuracy on options and on words and numbers.

There is no official script: options are read strictly, other answers must be equal but for case, a
final period and blanks around. lmms-eval differs in its reader of letters; VLMEvalKit only has
questions with options.
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
from peeralign.evals.reading.letters import kit_letter, lmms_letter, read_letter

OPTIONS = "ABCD"


def grade(row: Row, protocol: str) -> Graded:
    """1 if the letter, or the text, is the answer."""
    text, answer = row["prediction"], row["answer"].strip()
    if protocol == VLMEVALKIT:
        return graded_choice(kit_letter(text, row["choices"]), answer)
    if protocol == LMMS_EVAL and answer.upper() in list(OPTIONS):
        return graded_choice(lmms_letter(text, OPTIONS), answer)
    if protocol == OFFICIAL and "choices" in row:
        return graded_choice(read_letter(text, row["choices"]), answer)
    reading = text.lower().strip().rstrip(".")
    return Graded(float(reading == answer.lower()), "parsed", reading)


def complaint(row: Row, protocol: str) -> str | None:
    """With options, the answer is the letter of one."""
    return letter_complaint(row, protocol) if "choices" in row else None


BENCHMARK = Benchmark(
    title="RealWorldQA",
    headline="accuracy",
    needs={OFFICIAL: ("answer",), LMMS_EVAL: ("answer",), VLMEVALKIT: ("answer", "choices")},
    grade=grade,
    measures=mean_score("accuracy"),
    complaint=complaint,
)
