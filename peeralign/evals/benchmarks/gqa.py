"""GQA (Hudson and Manning, 2019): the share of replies that are the answer; binary, and open.

Officially as they stand, so "Yes" is wrong for "yes"; in lmms-eval but for case and punctuation, in
VLMEvalKit but for case and blanks around. Consistency, validity, plausibility and distribution need
the questions' scene graphs and are not here.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, mean
from peeralign.evals.reading.words import without_marks


def grade(row: Row, protocol: str) -> Graded:
    """1 if the reply is the answer."""
    reply, answer = row["prediction"], row["answer"]
    if protocol == LMMS_EVAL:
        reply, answer = without_marks(reply.strip()), without_marks(answer)
    elif protocol == VLMEVALKIT:
        reply, answer = reply.strip().lower(), answer.strip().lower()
    return Graded(float(reply == answer), "parsed", reply)


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """Accuracy; by question_type, the structural one: "query" is open, all others are binary."""
    scores = [grade.score for grade in grades]
    types = [row.get("question_type") for row in rows]
    kinds = {
        "binary": [kind is not None and kind != "query" for kind in types],
        "open": [kind == "query" for kind in types],
    }
    found = {name: mean(scores, of_kind) for name, of_kind in kinds.items() if any(of_kind)}
    return {"accuracy": mean(scores), **found}


BENCHMARK = Benchmark(
    title="GQA",
    headline="accuracy",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answer",)),
    grade=grade,
    measures=measures,
    splits=("question_type", "category"),
)
