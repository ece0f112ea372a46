"""POPE (Li et al., 2023): is the object there? Accuracy, precision, recall, F1 and share of yes.

Officially everything is a yes that has no "no" or "not" in its first sentence, "maybe" included.
lmms-eval compares the whole reply, so "Yes." is wrong; its share of yes is that of the answers, and
its recall leaves out replies that are neither. VLMEvalKit wants one of the two words. The authors'
script reads the questions of one category; F1 over all of them is VLMEvalKit's Overall.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, harmonic, mean, or_zero, ratio
from peeralign.evals.reading.words import kit_yes_or_no, pope_yes_or_no, said

CATEGORIES = ("random", "popular", "adversarial")


def grade(row: Row, protocol: str) -> Graded:
    """1 if the reply is read as the answer; whether it says yes or no at all is apart from that."""
    text = row["prediction"]
    if protocol == OFFICIAL:
        reading = pope_yes_or_no(text)
    elif protocol == LMMS_EVAL:
        reading = text.lower().strip()
        reading = reading if reading in ("yes", "no") else None
    else:
        reading = kit_yes_or_no(text)
    parsed = said(text) if reading is None or protocol == OFFICIAL else "parsed"
    if reading is None and parsed == "parsed":
        parsed = "none"
    return Graded(float(reading == _answer(row)), parsed, reading)


def _answer(row: Row) -> str:
    return row["answer"].strip().lower()


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """The five figures, and F1 of each category. A reply that is not read misses what is there."""
    present_N = np.array([_answer(row) == "yes" for row in rows], float)
    yes_N = np.array([grade.reading == "yes" for grade in grades], float)
    read_N = np.array([grade.reading is not None for grade in grades], float)
    counted_N = present_N * read_N if protocol == LMMS_EVAL else present_N

    def precision_and_recall(where_N: np.ndarray | float = 1.0) -> tuple[Measure, Measure]:
        hits_N = yes_N * present_N * where_N
        found = ratio(hits_N, yes_N * where_N), ratio(hits_N, counted_N * where_N)
        return found if protocol == OFFICIAL else (or_zero(found[0]), or_zero(found[1]))

    precision, recall = precision_and_recall()
    figures = {
        "accuracy": mean([grade.score for grade in grades]),
        "precision": precision,
        "recall": recall,
        "f1": harmonic(precision, recall),
        "yes_ratio": mean(present_N if protocol == LMMS_EVAL else yes_N),
    }
    for category in CATEGORIES:
        of_category = [row.get("category") == category for row in rows]
        if any(of_category):
            parts = precision_and_recall(np.array(of_category, float))
            figures[f"f1_{category}"] = harmonic(*parts)
    return figures


def complaint(row: Row, protocol: str) -> str | None:
    """The answer must be yes or no."""
    return None if _answer(row) in ("yes", "no") else "has an answer that is neither yes nor no"


BENCHMARK = Benchmark(
    title="POPE",
    headline="accuracy",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answer",)),
    grade=grade,
    measures=measures,
    complaint=complaint,
)
