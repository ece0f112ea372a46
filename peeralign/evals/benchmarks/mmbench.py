"""MMBench (Liu et al., 2024): circular evaluation, a question being right in every rotation.

`group` names the question whose rotation a row is. VLMEvalKit is the official evaluator; both it
and lmms-eval read with rules here, without the language model for what the rules leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, all_right, count, mean
from peeralign.evals.options import graded_choice, letter_complaint
from peeralign.evals.reading.letters import kit_letter, lmms_mmbench_letter


def grade(row: Row, protocol: str) -> Graded:
    """1 if the letter that was read is the answer of this rotation."""
    reader = lmms_mmbench_letter if protocol == LMMS_EVAL else kit_letter
    return graded_choice(reader(row["prediction"], row["choices"]), row["answer"])


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """Overall; the share of rotations that are right; how many questions lack rotations."""
    scores = [grade.score for grade in grades]
    groups = [row["group"] for row in rows]
    by_group, first_of_group = all_right(scores, groups)
    sizes = Counter(groups)
    lacking = [sizes[row["group"]] < len(row["choices"]) for row in rows]
    return {
        "Overall": mean(by_group, first_of_group),
        "vanilla": mean(scores),
        "num_incomplete": count(first_of_group * np.array(lacking)),
    }


def question_of(row: Row) -> tuple[str, ...]:
    """The rotations of one question."""
    return (row["group"],)


BENCHMARK = Benchmark(
    title="MMBench",
    headline="Overall",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answer", "choices", "group")),
    grade=grade,
    measures=measures,
    splits=("category", "l2_category", "split"),
    complaint=letter_complaint,
    unit_of=question_of,
)
