"""CHAIR (Rohrbach et al., 2018): objects in a caption that are not in the image; lower is better.

`mentioned` lists the objects of the caption, repeats included, and `objects` those in the image,
under the same names. Finding them in a caption needs MSCOCO's list of synonyms, which is not here.
An empty caption counts as one that hallucinates, though it mentions nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, mean, ratio


def hallucinated(row: Row) -> int:
    """How many mentions are of objects that are not there."""
    return sum(mention not in row["objects"] for mention in row["mentioned"] or ())


def grade(row: Row, protocol: str) -> Graded:
    """1 if all that the caption mentions is there."""
    return Graded(float(not hallucinated(row)), "parsed")


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """CHAIRs, the share of captions with such objects; CHAIRi, of mentions; lmms-eval: recall."""
    mentioned = [set(row["mentioned"] or ()) for row in rows]
    figures = {
        "CHAIRs": mean([1 - grade.score for grade in grades]),
        "CHAIRi": ratio(
            [hallucinated(row) for row in rows], [len(row["mentioned"] or ()) for row in rows]
        ),
    }
    if protocol == LMMS_EVAL:
        there = [set(row["objects"]) for row in rows]
        found = [len(each & named) for each, named in zip(there, mentioned, strict=True)]
        figures["recall"] = ratio(found, [len(each) for each in there])
    return figures


BENCHMARK = Benchmark(
    title="CHAIR",
    headline="CHAIRs",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL), ("objects", "mentioned")),
    grade=grade,
    measures=measures,
    unit="share, 0 to 1; lower is better",
    reply="mentioned",
)
