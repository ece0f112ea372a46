"""Benchmarks whose replies a judge grades: what it is asked, and what its scores become.

The judge may be any member, or several, whose scores are averaged. The rubrics have the scale of
the benchmark's own prompt; with a rubric of another scale, a score counts as a share of the top.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.evals.benchmarks.hallusionbench import RIGHT, UNCLEAR, WRONG
from peeralign.judging.rubric import Rubric, load_rubric
from peeralign.stages.generate import answer_id

Row = dict[str, Any]
# Shares of the top score: above the one a reply is right, below the other wrong.
_RIGHT_FROM, _WRONG_TO = 0.75, 0.25


class Grading(NamedTuple):
    """How a judge grades a benchmark.

    `low` and `top` end the benchmark's own scale; `key` is what its metric calls a score.
    `is_optional`: without a judge the benchmark's rules read the replies. `with_reference`: the
    reference answer is graded too, like any other.
    """

    rubric: str
    low: float
    top: float
    key: str = "score"
    is_optional: bool = False
    with_reference: bool = False


GRADINGS = {
    "hallusionbench": Grading("yes_no_correctness", 0, 1, "correctness", is_optional=True),
    "llavabench": Grading("visual_chat", 1, 10, with_reference=True),
    "mmhal": Grading("hallucination", 0, 6),
    "mmvet": Grading("integrated_capabilities", 0, 1),
}


def takes_judge(name: str, protocol: str) -> bool:
    """Whether a judge grades it if there is one: by VLMEvalKit's protocol, rules do if they can."""
    grading = GRADINGS.get(name)
    return grading is not None and not (grading.is_optional and protocol == "vlmevalkit")


def rubric_of(name: str, own: str | None) -> Rubric:
    """The rubric by which a benchmark is graded: the user's `own`, or the benchmark's.

    Raises PeeralignError if it cannot be loaded or does not score single answers on such a scale.
    """
    grading = GRADINGS[name]
    rubric = load_rubric(own or grading.rubric)
    if rubric.kind != "absolute":
        raise PeeralignError(f"rubric '{own}' is {rubric.kind}; {name} needs one that is absolute")
    if rubric.scale[0] * grading.top / rubric.scale[1] < grading.low:
        raise PeeralignError(
            f"rubric '{own}' starts at {rubric.scale[0]}, and the scale of {name} at "
            f"{grading.low:g} of {grading.top:g}; give one whose lowest score is no less"
        )
    return rubric


def asked_of(items: pl.DataFrame) -> pl.DataFrame:
    """What a judge sees (id, text, category, image, reference): the question without its prompt."""
    rows = [json.loads(row) for row in items["row"]]
    questions = [row.get("question") for row in rows]
    references = [row.get("reference", row.get("answer")) for row in rows]
    return items.select(
        *("id", "category", "image"),
        pl.coalesce(pl.Series(questions, dtype=pl.String), "text").alias("text"),
        pl.Series("reference", references, dtype=pl.String),
    )


def answers_of(grading: Grading, asked: pl.DataFrame, replies: Mapping[str, str]) -> pl.DataFrame:
    """What is judged, as `stages.judge` takes it: the replies, and the references if graded."""
    found = []
    for own_id, reference in asked.select("id", "reference").iter_rows():
        texts = [replies.get(own_id), reference if grading.with_reference else None]
        found += [(own_id, answer_id(own_id, text), text, []) for text in texts if text]
    names = ("question_id", "answer_id", "text")
    schema = dict.fromkeys(names, pl.String) | {"authors": pl.List(pl.String)}
    table = pl.DataFrame(found, schema=schema, orient="row")
    return table.unique("answer_id", keep="first", maintain_order=True)


def graded_rows(
    grading: Grading,
    rubric: Rubric,
    rows: list[Row],
    references: Mapping[str, str | None],
    judgments: pl.DataFrame,
) -> tuple[list[Row], list[str]]:
    """The rows with what the judges gave under the benchmark's key, and the ids left out.

    A reply that no judge graded gets None. An item is left out if its reference needs a score and
    has none: the reply's could not be held against it.
    """
    by_answer = judgments.group_by("answer_id").agg(pl.col("axes").list.mean().mean())
    worth = {name: points for name, points in by_answer.iter_rows() if points is not None}

    def share(own_id: str, text: str | None) -> float | None:
        points = worth.get(answer_id(own_id, text)) if text else None
        return None if points is None else points / rubric.scale[1]

    kept: list[Row] = []
    lost: list[str] = []
    for row in rows:
        given = share(row["id"], row["prediction"])
        if grading.key == "correctness":
            kept.append({**row, "correctness": _correctness(given)})
            continue
        row = {**row, grading.key: None if given is None else given * grading.top}
        if grading.with_reference:
            against = share(row["id"], references.get(row["id"]))
            if against is None:
                lost.append(row["id"])
                continue
            row["reference_score"] = against * grading.top
        kept.append(row)
    return kept, lost


def _correctness(share: float | None) -> int:
    if share is None or _WRONG_TO < share < _RIGHT_FROM:
        return UNCLEAR
    return RIGHT if share >= _RIGHT_FROM else WRONG
