"""MM-Vet (Yu et al., 2024): the mean of a judge's scores, 0 to 100, in all and by capability.

`score` is the judge's, 0 to 1, or a list of several runs'; a run without a score counts as 0, as in
the official script. The three protocols agree once the scores are there.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import (
    LMMS_EVAL,
    OFFICIAL,
    UNREAD,
    VLMEVALKIT,
    Benchmark,
    Graded,
    Row,
)
from peeralign.evals.measures import Measure, by_value, deviation, mean

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


def grade(row: Row, protocol: str) -> Graded:
    """The mean score over the judge's runs."""
    scores = row["score"]
    if all(score is None for score in scores):
        return UNREAD
    return Graded(sum(score or 0.0 for score in scores) / len(scores), "parsed")


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """The total, each capability, each set of several that occurs, and the deviation over runs."""
    scores = [grade.score for grade in grades]
    figures = {"total": mean(scores, scale=100)}
    for capability in CAPABILITIES:
        has_it = [capability in row["capabilities"] for row in rows]
        if any(has_it):
            figures[capability] = mean(scores, has_it, scale=100)
    sets = [[name for name in CAPABILITIES if name in row["capabilities"]] for row in rows]
    joined = ["_".join(names) if len(names) > 1 else None for names in sets]
    figures |= by_value(scores, joined, scale=100)
    runs = [row["score"] for row, grade in zip(rows, grades, strict=True) if grade != UNREAD]
    numbers = {len(scores) for scores in runs}
    if len(numbers) == 1 and (number := numbers.pop()) > 1:
        totals = [mean(_of_run(rows, grades, place), scale=100) for place in range(number)]
        figures["std"] = deviation(totals)
    return figures


def _of_run(rows: Sequence[Row], grades: Sequence[Graded], place: int) -> list[float]:
    """The scores of one of the judge's runs; what was not read has 0."""
    return [
        0.0 if grade == UNREAD else row["score"][place] or 0.0
        for row, grade in zip(rows, grades, strict=True)
    ]


def complaint(row: Row, protocol: str) -> str | None:
    """Scores lie between 0 and 1, and capabilities have names."""
    if any(score is not None and not 0 <= score <= 1 for score in row["score"] or ()):
        return "has a 'score' outside 0 to 1; give the judge's own, or null"
    unknown = [each for each in row["capabilities"] if each not in CAPABILITIES]
    if unknown:
        return f"has the capability '{unknown[0]}'; give some of {', '.join(CAPABILITIES)}"
    return None


BENCHMARK = Benchmark(
    title="MM-Vet",
    headline="total",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("score", "capabilities")),
    grade=grade,
    measures=measures,
    unit="points, 0 to 100",
    complaint=complaint,
    reply="score",
)
