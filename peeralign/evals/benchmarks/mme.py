"""MME (Fu et al., 2023): for each of 14 tasks, accuracy plus the share of images fully right.

An image has two questions; a task's score is 100 x accuracy + 100 x accuracy+, so 200 at most.
Officially a reply is what its first four characters hold, "yes" before "no"; lmms-eval drops blanks
and periods first and knows "y" and "n"; VLMEvalKit wants one of the words anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from peeralign.errors import PeeralignError
from peeralign.evals.benchmark import (
    LMMS_EVAL,
    OFFICIAL,
    UNREAD,
    VLMEVALKIT,
    Benchmark,
    Graded,
    Row,
)
from peeralign.evals.measures import Measure, all_right, mean, total
from peeralign.evals.reading.words import kit_yes_or_no

QUESTIONS_OF_IMAGE = 2
PERCEPTION = (
    *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark"),
    *("artwork", "OCR"),
)
COGNITION = (
    *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
)


def grade(row: Row, protocol: str) -> Graded:
    """1 if the reply is read as the answer."""
    text = row["prediction"]
    if protocol == VLMEVALKIT:
        reading = kit_yes_or_no(text)
    elif protocol == LMMS_EVAL:
        plain = text.lower().strip().replace(".", "")
        reading = {"y": "yes", "n": "no"}.get(plain) or _start(plain)
    else:
        reading = _start(text)
    if reading is None:
        return UNREAD
    return Graded(float(reading == row["answer"].strip().lower()), "parsed", reading)


def _start(text: str) -> str | None:
    start = text.lower()[:4]
    return next((word for word in ("yes", "no") if word in start), None)


def measures(rows: Sequence[Row], grades: Sequence[Graded], protocol: str) -> dict[str, Measure]:
    """The total, Perception and Cognition, and each task, of what is in the rows."""
    images = [image_of(row) for row in rows]
    for (task, image), number in Counter(images).items():
        if number != QUESTIONS_OF_IMAGE:
            raise PeeralignError(
                f"the image '{image}' of MME's task '{task}' has {number} questions; give both"
            )
    scores = [grade.score for grade in grades]
    both, first_of_image = all_right(scores, images)
    tasks: dict[str, Measure] = {}
    for task in (*PERCEPTION, *COGNITION):
        of_task = [row["category"] == task for row in rows]
        if any(of_task):
            accuracy = mean(scores, of_task, scale=100)
            tasks[task] = total([accuracy, mean(both, first_of_image * of_task, scale=100)])
    figures = {"total": total(list(tasks.values()))}
    for name, members in {"Perception": PERCEPTION, "Cognition": COGNITION}.items():
        found = [tasks[task] for task in members if task in tasks]
        if found:
            figures[name] = total(found)
    return figures | tasks


def image_of(row: Row) -> tuple[str, ...]:
    """The two questions on one image."""
    return row["category"], row["image"]


def complaint(row: Row, protocol: str) -> str | None:
    """Answers are yes or no, and the category is one of the tasks."""
    if row["answer"].strip().lower() not in ("yes", "no"):
        return "has an answer that is neither yes nor no"
    if row["category"] not in PERCEPTION + COGNITION:
        tasks = ", ".join(PERCEPTION + COGNITION)
        return f"has the category '{row['category']}'; give one of {tasks}"
    return None


BENCHMARK = Benchmark(
    title="MME",
    headline="total",
    needs=dict.fromkeys((OFFICIAL, LMMS_EVAL, VLMEVALKIT), ("answer", "category", "image")),
    grade=grade,
    measures=measures,
    unit="points, 200 a task",
    splits=(),
    complaint=complaint,
    unit_of=image_of,
    rows_of_unit=QUESTIONS_OF_IMAGE,
)
