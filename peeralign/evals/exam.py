"""Exams: held-out questions with answers, sat by every member between rounds.

Ground truth lives here and nowhere else in a run; the loop never opens an exam file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.engines.base import Engine, Sampling
from peeralign.errors import PeeralignError, nearest
from peeralign.images.load import BrokenImage
from peeralign.panel import Panel
from peeralign.progress import Reporter
from peeralign.records import EXAM_SCHEMA, IMAGE_DTYPE, normalise_answer
from peeralign.stages.blocks import EngineFactory, fill_stage
from peeralign.stages.generate import answer_block, as_asked
from peeralign.store.preferences import reason_counts
from peeralign.store.run import Stage

EXAM_FILE_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "image": IMAGE_DTYPE,
        "text": pl.String,
        "answer": pl.String,
        "skill": pl.String,
        "category": pl.String,
    }
)
BLOCK_SIZE = 512


def read_exam(path: str) -> pl.DataFrame:
    """Read an exam (Parquet of EXAM_FILE_SCHEMA). Raises PeeralignError if it cannot be used."""
    if not Path(path).is_file():
        raise PeeralignError(f"no exam at {path}: the file does not exist")
    try:
        table = pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise PeeralignError(f"{path} is not a readable Parquet file: {error}") from error
    for column in EXAM_FILE_SCHEMA:
        if column not in table.columns:
            raise PeeralignError(
                f"the exam {path} has no column '{column}'{nearest(column, table.columns)}"
            )
    if table.is_empty():
        raise PeeralignError(f"the exam {path} holds no questions")
    for column, dtype in EXAM_FILE_SCHEMA.items():
        try:
            table = table.with_columns(pl.col(column).cast(dtype))
        except pl.exceptions.PolarsError as error:
            raise PeeralignError(
                f"the exam {path} has a column '{column}' of type {table.schema[column]}; "
                f"it must be {dtype}"
            ) from error
        if table[column].null_count():
            raise PeeralignError(f"the exam {path} has empty fields in its column '{column}'")
    if table["id"].n_unique() < len(table):
        raise PeeralignError(f"the exam {path} has two questions with one id; make each id unique")
    return table.select(EXAM_FILE_SCHEMA.names())


def sit_exam(
    stage_of: Callable[[str], Stage],
    exam: pl.DataFrame,
    panel: Panel,
    open_engine: EngineFactory,
    max_new_tokens: int,
    reporter: Reporter,
) -> None:
    """Every member answers every item greedily; exact match after normalising scores 1, else 0.

    An item whose image cannot be opened is nobody's mistake and has no score.
    """
    for member in panel.members:

        def work(engine: Engine, block: pl.DataFrame) -> pl.DataFrame:
            sampling = Sampling(max_new_tokens=max_new_tokens)
            given = answer_block(engine, as_asked(block), "", sampling, 0)
            replies = {row["question_id"]: row for row in given.iter_rows(named=True)}
            items = block.drop("image").iter_rows(named=True)
            graded = [_graded(item, replies[item["id"]]) for item in items]
            return pl.DataFrame(graded, schema=EXAM_SCHEMA)

        fill_stage(
            stage_of(member.name),
            exam,
            BLOCK_SIZE,
            member,
            open_engine,
            work,
            reporter,
            f"{member.name} sits the exam",
        )


def _graded(item: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    is_unseen = (reply["reason"] or "").startswith(BrokenImage.__name__)
    return {
        "item_id": item["id"],
        "skill": item["skill"],
        "category": item["category"],
        "question": item["text"],
        "prediction": reply["text"],
        "score": None if is_unseen else exact_match(reply["text"], item["answer"]),
        "reason": reply["reason"],
    }


def exact_match(prediction: str | None, answer: str) -> float:
    """1.0 if the texts are equal after folding case and white space, else 0.0."""
    return float(
        prediction is not None and normalise_answer(prediction) == normalise_answer(answer)
    )


def skill_scores(graded: pl.DataFrame) -> dict[str, Any]:
    """{"mean": mean over skills, "skills": {skill: {"score", "questions"}}}, scores 0 to 1.

    Items without a score are left out; if there are any, "set_aside" counts them by reason. Raises
    PeeralignError if no item has one.
    """
    skills = (
        graded.drop_nulls("score")
        .group_by("skill", maintain_order=True)
        .agg(pl.col("score").mean(), pl.len().alias("questions"))
        .rows()
    )
    if not skills:
        raise PeeralignError("the exam has no image that can be opened; check its column 'image'")
    table = {skill: {"score": round(score, 6), "questions": n} for skill, score, n in skills}
    mean = math.fsum(entry["score"] for entry in table.values()) / len(table)
    lost = graded.filter(pl.col("score").is_null())
    aside = {"set_aside": reason_counts(lost)} if len(lost) else {}
    return {"mean": round(mean, 6), "skills": table, **aside}
