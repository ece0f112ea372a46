"""Judge a user's own file: answers by pointwise scores, or pairs of answers by comparison.

    OUT/manifest.json                         settings and what was judged
    OUT/round-1/judgments/JUDGE/part-*.parquet    verdicts; comparisons/ for pairwise rubrics
    OUT/scores.parquet  OUT/scores.jsonl      the file's rows with what the judges say
    OUT/set-aside.jsonl  OUT/summary.json     rows that could not be judged; counts

The same call again resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.distributed import meet, on_main
from peeralign.judging.rubric import Rubric
from peeralign.judging.verdict import explanation_of
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes.judges import GradeConfig, ask, begin, judging_panel, stage_of
from peeralign.records import COMPARISON_SCHEMA, JUDGMENT_SCHEMA
from peeralign.stages.compare import merge_judges, merge_orders, order_gap
from peeralign.stages.generate import answer_id
from peeralign.stages.judge import ONE_BY_ONE, read_rubric
from peeralign.store.answers import ONE, TWO, GivenAnswers, read_answers
from peeralign.store.preferences import reason_counts
from peeralign.store.run import Run, write_json, write_lines, write_table

Summary = dict[str, Any]
# What a pair's verdict is called beside the columns answer_a and answer_b.
_LETTERS = {"first": "A", "second": "B", "tie": "tie"}


def grade_file(
    data: str, judges: Sequence[Member], out: Path, config: GradeConfig, reporter: Reporter
) -> Summary:
    """Judge the rows of `data` by every one of `judges`; writes `out` and returns its summary.

    Raises PeeralignError for settings, files, judges or folders that cannot be used.
    """
    panel = judging_panel(judges, config)
    rubric = read_rubric(config.judge, (*ONE_BY_ONE, "pairwise"), has_reference=True)
    Run.check_usable(out)
    with meet(out):
        return _grade(data, panel, out, config, rubric, reporter)


def _grade(
    data: str, panel: Panel, out: Path, config: GradeConfig, rubric: Rubric, reporter: Reporter
) -> Summary:
    is_pairwise = rubric.kind == "pairwise"
    reporter.say(f"checking the rows and images of {data}")
    given = read_answers(
        data,
        TWO if is_pairwise else ONE,
        rubric.needs_reference,
        config.max_image_pixels,
        config.image_root,
    )

    on_main(
        "beginning",
        lambda: begin(out, "judge", data, given.digest, panel, config, rubric, given.set_aside),
    )
    state = Run(out)
    asked = given.questions if rubric.needs_reference else given.questions.drop("reference")
    answers = _pairs(given) if is_pairwise else _answers(given)
    ask(state, asked, answers, panel, config, rubric, reporter)

    def finish() -> Summary:
        schema = COMPARISON_SCHEMA if is_pairwise else JUDGMENT_SCHEMA
        verdicts = state.table(1, stage_of(rubric), schema)
        scores = (_compared if is_pairwise else _scored)(given, verdicts, rubric)
        write_table(out / "scores.parquet", scores)
        write_lines(out / "scores.jsonl", scores)
        summary = _summary(given, scores, verdicts, is_pairwise)
        write_json(out / "summary.json", summary)
        return summary

    return on_main("scores", finish)


def _ids(given: GivenAnswers, column: str) -> pl.Series:
    texts = given.rows.select("question_id", column).iter_rows()
    return pl.Series([answer_id(*row) for row in texts], dtype=pl.String)


def _answers(given: GivenAnswers) -> pl.DataFrame:
    """The distinct answers, as `judge` takes them."""
    return given.rows.select(
        "question_id",
        _ids(given, "answer").alias("answer_id"),
        text="answer",
        authors=pl.lit([], pl.List(pl.String)),
    ).unique("answer_id", keep="first", maintain_order=True)


def _pairs(given: GivenAnswers) -> pl.DataFrame:
    """The distinct pairs, as `compare` takes them."""
    return given.rows.select(
        "question_id",
        _ids(given, "answer_a").alias("first_id"),
        _ids(given, "answer_b").alias("second_id"),
        first="answer_a",
        second="answer_b",
    ).unique(["first_id", "second_id"], keep="first", maintain_order=True)


def _explained(verdicts: pl.DataFrame, rubric: Rubric) -> pl.DataFrame:
    if rubric.kind != "absolute":
        return verdicts.with_columns(explanation=pl.lit(None, pl.String))
    form = rubric.form()
    given = [explanation_of(raw, form) for raw in verdicts["raw"]]
    return verdicts.with_columns(pl.Series("explanation", given, dtype=pl.String))


def _scored(given: GivenAnswers, judgments: pl.DataFrame, rubric: Rubric) -> pl.DataFrame:
    """The rows with their scores.

    `score` is on the rubric's scale (the mean of its axes), `reward` the same over its maximum;
    both are means over the judges that scored the answer, and null if none did.
    """
    by_answer = (
        _explained(judgments, rubric)
        .with_columns(points=pl.col("axes").list.mean())
        .sort("judge")
        .group_by("answer_id", maintain_order=True)
        .agg(
            pl.col("points").mean().alias("score"),
            pl.col("score").mean().alias("reward"),
            pl.col("score").drop_nulls().len().cast(pl.Int32).alias("num_judges"),
            pl.struct("judge", "axes", "explanation", "reason", score="points").alias("verdicts"),
        )
    )
    rows = given.rows.with_columns(_ids(given, "answer").alias("answer_id"))
    return _beside(rows, given).join(by_answer, on="answer_id", how="left", maintain_order="left")


def _compared(given: GivenAnswers, comparisons: pl.DataFrame, rubric: Rubric) -> pl.DataFrame:
    """The rows with the panel's verdict (A, B, tie or null) and its preference for A, 0 to 1."""
    ids = ["first_id", "second_id"]
    merged = merge_orders(comparisons).with_columns(
        pl.col("verdict").replace_strict(_LETTERS, return_dtype=pl.String)
    )
    single = merged.group_by(ids, maintain_order=True).agg(
        pl.struct(
            *("judge", "verdict", "preference", "order_changed", "explanation", "reason")
        ).alias("verdicts")
    )
    panel = (
        merge_judges(merged)
        .with_columns(pl.col("verdict").replace_strict(_LETTERS, return_dtype=pl.String))
        .select(*ids, "verdict", "preference", "num_judges")
    )
    rows = given.rows.with_columns(
        _ids(given, "answer_a").alias("first_id"), _ids(given, "answer_b").alias("second_id")
    )
    return (
        _beside(rows, given)
        .join(panel, on=ids, how="left", maintain_order="left")
        .join(single, on=ids, how="left", maintain_order="left")
    )


def _beside(rows: pl.DataFrame, given: GivenAnswers) -> pl.DataFrame:
    """The rows with their question in words."""
    asked = given.questions.select("category", question_id="id", question="text")
    joined = rows.join(asked, on="question_id", how="left", maintain_order="left")
    first = ["row", "id", "category", "question"]
    return joined.select(*first, pl.exclude(first))


def _summary(
    given: GivenAnswers, scores: pl.DataFrame, verdicts: pl.DataFrame, is_pairwise: bool
) -> Summary:
    result = "preference" if is_pairwise else "score"
    summary: Summary = {
        "rows": len(scores),
        "unscored": scores[result].null_count(),
        "set_aside": len(given.set_aside),
        "reasons": reason_counts(given.set_aside),
        "judges": verdicts.group_by("judge")
        .agg(
            pl.len().alias("verdicts"),
            pl.col(result).null_count().alias("unscored"),
        )
        .sort("judge")
        .to_dicts(),
    }
    if is_pairwise:
        summary["verdicts"] = {
            verdict: int((scores["verdict"] == verdict).sum()) for verdict in _LETTERS.values()
        }
        summary["order"] = order_gap(verdicts).to_dicts()
    else:
        summary["mean_score"] = scores["score"].mean()
    return summary
