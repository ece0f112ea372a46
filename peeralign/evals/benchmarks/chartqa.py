"""ChartQA (Masry et al., 2022): relaxed accuracy, a number being right within 5 % of the answer.

Section 5.1 defines it; the script everybody took over is pix2struct's. In all three protocols a
percentage is a hundredth, so that "12" is wrong for "12%", as is "1,000" for "1000", and a number
is compared with 0 as text. They differ in blanks around the reply and in several answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, mean

TOLERANCE = 0.05


def relaxed_correct(reply: str, answer: str) -> bool:
    """Whether a number is within 5 % of the answer, or another text is equal but for its case."""
    given, right = _number(reply), _number(answer)
    if given is not None and right:
        return abs(given - right) / abs(right) <= TOLERANCE
    return reply.lower() == answer.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def grade(row: Row, protocol: str) -> Graded:
    """1 if relaxed-correct for one of the answers."""
    reply = row["prediction"]
    if protocol != OFFICIAL:
        reply = reply.strip()
    right = any(relaxed_correct(reply, answer) for answer in row["answers"])
    return Graded(float(right), "parsed", reply)


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """Over all rows, and over those of each of the test set's two halves."""
    scores = [grade.score for grade in grades]
    figures = {"relaxed_accuracy": mean(scores)}
    for half in ("human", "augmented"):
        of_half = [half in (row.get("split") or "") for row in rows]
        if any(of_half):
            figures[f"relaxed_accuracy_{half}"] = mean(scores, of_half)
    return figures


def complaint(row: Row, protocol: str) -> str | None:
    """lmms-eval knows one answer a question."""
    if protocol == LMMS_EVAL and len(row["answers"]) > 1:
        return "has several answers; lmms-eval compares with one, so give one or another protocol"
    return None


BENCHMARK = Benchmark(
    title="ChartQA",
    headline="relaxed_accuracy",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answers",)),
    grade=grade,
    measures=measures,
    splits=("split", "category"),
    complaint=complaint,
)
