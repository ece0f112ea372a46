"""What `peeralign ask --panel` shows: the best answer, who wrote it, and how the others fared."""

from __future__ import annotations

from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from peeralign.report.terminal import NOTHING, plain, visible


def answered_json(best: dict[str, Any], answers: pl.DataFrame) -> dict[str, Any]:
    """One question's answer for programs: a row of ANSWERED_SCHEMA and its WEIGHED_SCHEMA table.

    {"answer", "authors", "reward", "num_draws", "reason", "answers": [{"text", "authors",
    "num_draws", "reward", "scores": {judge: score or None}, "reasons": {judge: why it has none}}]},
    the answers in `ranked` order. `reason` is None where rewards decided.
    """
    told = ("authors", "reward", "num_draws", "reason")
    return {
        "answer": best["text"],
        **{name: best[name] for name in told},
        "answers": [
            {
                **{name: row[name] for name in ("text", "authors", "num_draws", "reward")},
                "scores": {verdict["judge"]: verdict["score"] for verdict in row["verdicts"]},
                "reasons": {
                    verdict["judge"]: verdict["reason"]
                    for verdict in row["verdicts"]
                    if verdict["score"] is None
                },
            }
            for row in ranked(best, answers).iter_rows(named=True)
        ],
    }


def ranked(best: dict[str, Any], answers: pl.DataFrame) -> pl.DataFrame:
    """The best answer first, then by reward, then by how often they were drawn."""
    return answers.sort(
        pl.col("answer_id") != best["answer_id"],
        -pl.col("reward"),
        -pl.col("num_draws"),
        "answer_id",
        nulls_last=True,
    )


def print_answered(best: dict[str, Any], answers: pl.DataFrame, console: Console) -> None:
    """Print one question's best answer, its authors, and the table of all answers."""
    # Whole and over several lines, unlike a cell: this is what was asked for.
    for line in [*best["text"].split("\n"), f"by {', '.join(best['authors'])}"]:
        console.print(Text(visible(line)))
    if best["reason"]:
        console.print(Text(visible(best["reason"])))
    judges = sorted({entry["judge"] for entries in answers["verdicts"] for entry in entries})
    table = Table(show_edge=False)
    table.add_column("answer", overflow="ellipsis", min_width=6)
    table.add_column("by", overflow="ellipsis", min_width=3)
    for name in ("draws", "reward", *judges):
        table.add_column(Text(name), justify="right", no_wrap=True)
    for row in ranked(best, answers).iter_rows(named=True):
        score_of = {verdict["judge"]: verdict["score"] for verdict in row["verdicts"]}
        table.add_row(
            plain(row["text"]),
            plain(", ".join(row["authors"])),
            str(row["num_draws"]),
            *(_number(value) for value in (row["reward"], *map(score_of.get, judges))),
        )
    console.print()
    console.print(table, soft_wrap=False)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
