"""HallusionBench (Guan et al., 2024): accuracy by answer, by question and by figure.

Officially (and in lmms-eval) a language model says whether a reply agrees with the reference: the
key `correctness` holds 1 (yes), 0 (no) or 2 (unclear). Without it, a yes or no in the reply is
compared with the answer, and neither is unclear. Unclear is right where a question that can do
without an image (VS) has none (figure 0). Such rows are in no figure's accuracy, but in VLMEvalKit.
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
)
from peeralign.evals.measures import Measure, all_right, mean
from peeralign.evals.reading.words import kit_yes_or_no, said

WRONG, RIGHT, UNCLEAR = 0, 1, 2
# `visual_input` of a row: 0 is no figure, 1 the original, 2 an edited one.
EDITED = "2"
_YES = {"yes": True, "1": True, "no": False, "0": False}


def grade(row: Row, protocol: str) -> Graded:
    """1 if the reply is judged, or read, as right."""
    text = row["prediction"]
    reading = kit_yes_or_no(text)
    if protocol != VLMEVALKIT and row.get("correctness") is not None:
        correctness = row["correctness"]
        parsed = "none" if correctness == UNCLEAR else "parsed"
    elif reading is None:
        correctness = UNCLEAR
        parsed = "ambiguous" if said(text) == "ambiguous" else "none"
    else:
        correctness = int((reading == "yes") == _YES[_answer(row)])
        parsed = "parsed"
    right = correctness == RIGHT
    if correctness == UNCLEAR and protocol != VLMEVALKIT:
        right = _without_image(row)
    return Graded(float(right), parsed, reading)


def _answer(row: Row) -> str:
    return row["answer"].strip().lower()


def _without_image(row: Row) -> bool:
    return row["category"] == "VS" and row["figure_id"] == "0"


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """aAcc of answers; qAcc of questions, over all figures; fAcc of figures, over all questions.

    Where rows say what was shown, easy and hard aAcc: questions over original and edited figures.
    """
    scores = [grade.score for grade in grades]
    questions = [(*set_of(row), row["question_id"]) for row in rows]
    figures = [(*set_of(row), row["figure_id"]) for row in rows]
    by_question, first_of_question = all_right(scores, questions)
    by_figure, first_of_figure = all_right(scores, figures)
    if protocol != VLMEVALKIT:
        first_of_figure = first_of_figure * [not _without_image(row) for row in rows]
    figures = {
        "aAcc": mean(scores),
        "qAcc": mean(by_question, first_of_question),
        "fAcc": mean(by_figure, first_of_figure),
    }
    inputs = [row.get("visual_input") for row in rows]
    if protocol == OFFICIAL and None not in inputs:
        # Each question's answers to edited figures are one, and its other ones another.
        halves = [
            (*question, each == EDITED) for question, each in zip(questions, inputs, strict=True)
        ]
        right, firsts = all_right(scores, halves)
        for name, is_hard in (("easy aAcc", False), ("hard aAcc", True)):
            figures[name] = mean(right, firsts * [half[-1] == is_hard for half in halves])
    return figures


def set_of(row: Row) -> tuple[str, ...]:
    """Figures and questions of one set are about each other."""
    return row["category"], row["subcategory"], row["set_id"]


def complaint(row: Row, protocol: str) -> str | None:
    """Answers are yes or no, categories VD or VS."""
    if _answer(row) not in _YES:
        return "has an answer that is neither yes nor no"
    if row["category"] not in ("VD", "VS"):
        return f"has the category '{row['category']}'; give VD or VS"
    if row.get("correctness") not in (None, WRONG, RIGHT, UNCLEAR):
        return "has a 'correctness' that is none of 0 (wrong), 1 (right) and 2 (unclear)"
    return None


_KEYS = ("answer", "category", "subcategory", "set_id", "figure_id", "question_id")
BENCHMARK = Benchmark(
    title="HallusionBench",
    headline="aAcc",
    needs={OFFICIAL: _KEYS, LMMS_EVAL: (*_KEYS, "correctness"), VLMEVALKIT: _KEYS},
    grade=grade,
    measures=measures,
    splits=("category", "subcategory"),
    complaint=complaint,
    unit_of=set_of,
)
