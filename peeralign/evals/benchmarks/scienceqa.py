"""ScienceQA (Lu et al., 2022): accuracy, over all questions and over nine kinds of them.

The official rule is a single "The answer is B." with anything after the letter; the script that
LLaVA published its numbers with also takes a lone letter, and one followed by a period and a
blank. lmms-eval takes a lone letter of either case, or a letter and a period.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, mean
from peeralign.evals.options import graded_choice, letter_complaint
from peeralign.evals.reading.letters import LETTERS, NOTHING, Choice, kit_letter, only

OPTIONS = LETTERS[:5]
_SUBJECTS = {
    "acc_natural": "natural science",
    "acc_social": "social science",
    "acc_language": "language science",
}
_GRADES = {"acc_grade_1_6": range(1, 7), "acc_grade_7_12": range(7, 13)}


def grade(row: Row, protocol: str) -> Graded:
    """1 if the letter that was read is the answer."""
    if protocol == VLMEVALKIT:
        choice = kit_letter(row["prediction"], row["choices"])
    else:
        choice = (_official if protocol == OFFICIAL else _lmms)(row["prediction"])
        if choice.letter is not None and choice.letter not in LETTERS[: len(row["choices"])]:
            choice = NOTHING
    return graded_choice(choice, row["answer"])


def _official(text: str) -> Choice:
    if len(text) == 1 and text in OPTIONS:
        return only(text)
    if text[0] in OPTIONS and text[1:3] == ". ":
        return only(text[0])
    found = re.findall(r"The answer is ([A-Z]).", text)
    return Choice(None, "ambiguous") if len(found) > 1 else only(found[0] if found else None)


def _lmms(text: str) -> Choice:
    text = text.strip()
    if len(text) == 1 and text.upper() in LETTERS:
        return only(text.upper())
    return only(text[0] if text[0] in LETTERS and text[1:2] == "." else None)


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """acc_average, and the kinds that the rows say something about."""
    kinds: dict[str, list[bool]] = {}
    for name, subject in _SUBJECTS.items():
        kinds[name] = [row.get("subject") == subject for row in rows]
    if all("has_text" in row and "has_image" in row for row in rows):
        kinds["acc_has_text"] = [row["has_text"] for row in rows]
        kinds["acc_has_image"] = [row["has_image"] for row in rows]
        kinds["acc_no_context"] = [not (row["has_text"] or row["has_image"]) for row in rows]
    for name, years in _GRADES.items():
        names = {text for year in years for text in (str(year), f"grade{year}")}
        kinds[name] = [row.get("grade") in names for row in rows]
    scores = [grade.score for grade in grades]
    found = {name: mean(scores, of_kind) for name, of_kind in kinds.items() if any(of_kind)}
    return {"acc_average": mean(scores), **found}


BENCHMARK = Benchmark(
    title="ScienceQA",
    headline="acc_average",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answer", "choices")),
    grade=grade,
    measures=measures,
    splits=("subject", "grade", "category"),
    complaint=letter_complaint,
)
