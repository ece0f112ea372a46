"""LLaVA-Bench in the wild (Liu et al., 2023): a judge's scores against those of the reference.

`score` is the judge's for the reply, `reference_score` the one beside it for the reference answer,
both 1 to 10. The figure is 100 x the sum of the first over the sum of the second. A reply without a
score counts 0 here; the scripts write -1 for both answers of a review they cannot read.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, mean, ratio


def grade(row: Row, protocol: str) -> Graded:
    """The judge's score, 1 to 10."""
    return Graded(row["score"][0], "parsed")


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """The relative score, and ten times the mean score of either answer."""
    scores = [grade.score for grade in grades]
    references = [row["reference_score"] for row in rows]
    return {
        "relative score": ratio(scores, references, scale=100),
        "model score": mean(scores, scale=10),
        "reference score": mean(references, scale=10),
    }


def complaint(row: Row, protocol: str) -> str | None:
    """Scores lie between 1 and 10."""
    scores = row["score"]
    if scores is not None and (len(scores) != 1 or scores[0] is None or not 1 <= scores[0] <= 10):
        return "has a 'score' that is no number from 1 to 10; give the judge's own, or null"
    if not 1 <= row["reference_score"] <= 10:
        return "has a 'reference_score' outside 1 to 10"
    return None


BENCHMARK = Benchmark(
    title="LLaVA-Bench",
    headline="relative score",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("score", "reference_score")),
    grade=grade,
    measures=measures,
    unit="per cent of the reference's score",
    complaint=complaint,
    reply="score",
)
