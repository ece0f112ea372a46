"""MMMU (Yue et al., 2024): accuracy on options and open questions, in all and by discipline.

Where a reply names no option, both the official script and lmms-eval draw one: here it is wrong,
and not read. lmms-eval also takes letters at the ends of words, removes blanks around the reply
first, and knows several answers to an open question as one text only. VLMEvalKit turns an open
question into one of two options, the answer and "Other Answers"; with an answer like "C" it is
never right.
"""

from __future__ import annotations

from collections.abc import Sequence

from peeralign.evals.benchmark import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Benchmark, Graded, Row
from peeralign.evals.measures import Measure, mean
from peeralign.evals.options import graded_choice, letter_complaint
from peeralign.evals.reading.letters import LETTERS, kit_letter, mmmu_letter
from peeralign.evals.reading.open_answers import names_an_answer

DISCIPLINES = {
    "Art and Design": "Art, Art_Theory, Design, Music",
    "Business": "Accounting, Economics, Finance, Manage, Marketing",
    "Science": "Biology, Chemistry, Geography, Math, Physics",
    "Health and Medicine": "Basic_Medical_Science, Clinical_Medicine, "
    "Diagnostics_and_Laboratory_Medicine, Pharmacy, Public_Health",
    "Humanities and Social Science": "History, Literature, Sociology, Psychology",
    "Tech and Engineering": "Agriculture, Architecture_and_Engineering, Computer_Science, "
    "Electronics, Energy_and_Power, Materials, Mechanical_Engineering",
}


def grade(row: Row, protocol: str) -> Graded:
    """1 for the right letter, or for a right answer among those that an open reply names."""
    text, answers = row["prediction"], row["answers"]
    if protocol == LMMS_EVAL:
        # Before the letters are looked for: "C,\n" ends on a mark only without its line break.
        text = text.strip()
    if "choices" in row:
        if protocol == VLMEVALKIT:
            return graded_choice(kit_letter(text, row["choices"]), answers[0])
        return graded_choice(
            mmmu_letter(text, row["choices"], loosely=protocol == LMMS_EVAL), answers[0]
        )
    # The data set writes several answers as the text of a list, which the toolkits leave as it is.
    as_text = answers[0] if len(answers) == 1 else str(answers)
    if protocol == VLMEVALKIT:
        # It takes an answer that is a capital for the right option's letter.
        letter = as_text if as_text in list(LETTERS) else "A"
        return graded_choice(kit_letter(text, [as_text, "Other Answers"]), letter)
    right = names_an_answer(text, answers if protocol == OFFICIAL else [as_text])
    return Graded(float(right), "parsed")


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """Overall, and Overall of each discipline, by subject (the category, or part of the id)."""
    scores = [grade.score for grade in grades]
    subjects = [row.get("category") or "_".join(row["id"].split("_")[1:-1]) for row in rows]
    figures = {"Overall": mean(scores)}
    for discipline, named in DISCIPLINES.items():
        inside = [subject in named.split(", ") for subject in subjects]
        if any(inside):
            figures[f"Overall-{discipline}"] = mean(scores, inside)
    return figures


def complaint(row: Row, protocol: str) -> str | None:
    """The answer to a question with options is one letter."""
    if "choices" not in row:
        return None
    if len(row["answers"]) > 1:
        return "has options and several answers; give the letter of one option"
    return letter_complaint({**row, "answer": row["answers"][0]}, protocol)


BENCHMARK = Benchmark(
    title="MMMU",
    headline="Overall",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answers",)),
    grade=grade,
    measures=measures,
    complaint=complaint,
)
