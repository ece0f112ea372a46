"""MMStar (Chen et al., 2024): accuracy on 1,500 items of six abilities, three parts each.

The official rule takes the first character ("a dog" is A), one after a bracket, "option " or "the
answer is ", in any case. lmms-eval averages over the 18 parts instead of the items.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, average, by_value, mean
from peeralign.evals.options import graded_choice, letter_complaint
from peeralign.evals.reading.letters import Choice, kit_letter, lmms_letter, only

OPTIONS = "ABCD"


def grade(row: Row, protocol: str) -> Graded:
    """1 if the letter that was read is the answer."""
    if protocol == VLMEVALKIT:
        return graded_choice(kit_letter(row["prediction"], row["choices"]), row["answer"])
    if protocol == LMMS_EVAL:
        return graded_choice(lmms_letter(row["prediction"], OPTIONS), row["answer"])
    return graded_choice(_official(row["prediction"]), row["answer"])


def _official(text: str) -> Choice:
    text = text.strip().upper()
    for start in ("", "(", "OPTION ", "THE ANSWER IS "):
        letter = text[len(start) : len(start) + 1]
        if text.startswith(start) and letter and letter in OPTIONS:
            return only(letter)
    return only(None)


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """The final score: of all items, or (lmms-eval) the mean of the parts' means."""
    scores = [grade.score for grade in grades]
    if protocol != LMMS_EVAL:
        return {"final score": mean(scores)}
    parts = by_value(scores, [row["l2_category"] for row in rows])
    return {"final score": average(list(parts.values()))}


BENCHMARK = Benchmark(
    title="MMStar",
    headline="final score",
    needs={
        OFFICIAL: ("answer",),
        LMMS_EVAL: ("answer", "l2_category"),
        VLMEVALKIT: ("answer", "choices"),
    },
    grade=grade,
    measures=measures,
    splits=("category", "l2_category"),
    complaint=letter_complaint,
)
