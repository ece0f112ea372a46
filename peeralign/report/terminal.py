"""A run on the terminal: the closing tables of a run, and rows of its tables for `show`.

Cells come from models, so they are printed as plain text: markup stays literal, and control
characters are made visible before a terminal could obey them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from peeralign.errors import PeeralignError
from peeralign.judging.verdict import CHOICE_VALUES
from peeralign.report.rows import RESULT

_SIDES = [
    f"{side}{what}"
    for side in ("chosen", "rejected")
    for what in ("", "_authors", "_views", "_reward")
]
# Columns that fit a terminal; --json has the others. Those that are empty are left out.
SHOWN = {
    "candidates": ("round", "category", "question", "author", "draw", "view", "text", "reason"),
    "judgments": ("round", "category", "question", "answer", "judge", "score", "axes", "reason"),
    "comparisons": (
        *("round", "question", "first", "second", "order", "judge", "verdict", "preference"),
        *("explanation", "reason"),
    ),
    "rewards": ("round", "category", "question", "text", "authors", "reward", "variance", "reason"),
    "pairs": ("round", "question", *_SIDES),
}
MAX_CELL_CHARACTERS = 200
NOTHING = "-"
DESCRIBING = "describing first"
COUNTS = ("questions", "candidates", "judgments", "comparisons", "unscored", "pairs")
# These are left out where there are none; and what is unscored, where there is neither.
VERDICTS = ("judgments", "comparisons")
# Control characters, and the marks that reverse the direction of what follows.
_CONTROLS = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **{code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    **{ord(space): " " for space in "\t\n\r"},
}


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Print a run's results from its summary.json: scores, skills, counts and seconds."""
    rounds = summary["rounds"]
    examined = [entry for entry in rounds if entry["members"]]
    described = [entry for entry in examined if entry.get("described")]
    several = len(_names(entry["members"] for entry in examined)) > 1
    mean = _name_of_mean(rounds)
    tables: list[tuple[str, Table]] = []
    if examined:
        by_skill = f"{mean.capitalize()} by skill" if several else "Scores by skill"
        means = _member_table(examined, mean if several else None)
        tables.append(("Exam scores in percent: mean over skills", means))
        tables.append((by_skill, _skill_table(examined)))
        if described:
            tables.append((f"{by_skill}, {DESCRIBING}", _skill_table(described, "described")))
        if several and len(examined) > 1:
            tables.append(("Each member by skill", _change_table(examined[0], examined[-1])))
    else:
        console.print("No exam, so there are no scores.")
    # An examination of a finished run makes nothing but answers.
    if all("counts" in entry for entry in rounds):
        tables.append(("What was made", _count_table(rounds)))
    for title, table in tables:
        console.print(f"\n[bold]{title}[/bold]", highlight=False)
        console.print(table, soft_wrap=False)
    if lost := max((_set_aside(entry) for entry in examined), default=0):
        console.print(f"{lost} exam items set aside: their images cannot be opened")


def _set_aside(entry: dict[str, Any]) -> int:
    return max(sum(m.get("set_aside", {}).values()) for m in entry["members"].values())


def _name_of_mean(rounds: list[dict[str, Any]]) -> str:
    # Members that do not judge each other are no panel: they learn side by side.
    judged = any(entry.get("counts", {}).get("judgments") for entry in rounds)
    return "panel mean" if judged else "mean over members"


def _member_table(rounds: list[dict[str, Any]], mean: str | None) -> Table:
    table = _score_table("member", rounds)
    for name in _names(entry["members"] for entry in rounds):
        for key, label in (("members", name), ("described", f"{name}, {DESCRIBING}")):
            means = [entry.get(key, {}).get(name, {}).get("mean") for entry in rounds]
            if key == "members" or any(score is not None for score in means):
                table.add_row(plain(label), *_score_cells(means))
    if mean:
        table.add_section()
        panel = [entry["panel_mean"] for entry in rounds]
        table.add_row(mean, *_score_cells(panel), style="bold")
    return table


def _skill_table(rounds: list[dict[str, Any]], key: str = "members") -> Table:
    table = _score_table("skill", rounds)
    for skill in _skills(rounds):
        means = []
        for entry in rounds:
            found = _skill_scores(entry, skill, key).values()
            scores = [score for score in found if score is not None]
            means.append(sum(scores) / len(scores) if scores else None)
        table.add_row(plain(skill), *_score_cells(means))
    return table


def _change_table(first: dict[str, Any], last: dict[str, Any]) -> Table:
    table = Table()
    table.add_column(f"{_when(first)} -> {_when(last)}")
    members = _names(entry["members"] for entry in (first, last))
    for name in members:
        table.add_column(plain(name), justify="right")
    for skill in _skills([first, last]):
        before, after = _skill_scores(first, skill), _skill_scores(last, skill)
        cells = [f"{_percent(before.get(n))} -> {_percent(after.get(n))}" for n in members]
        table.add_row(plain(skill), *cells)
    return table


def _count_table(rounds: list[dict[str, Any]]) -> Table:
    given = {n for n in VERDICTS if any(entry["counts"].get(n) for entry in rounds)}
    absent = {*VERDICTS} - given | (set() if given else {"unscored"})
    shown = [name for name in COUNTS if name not in absent]
    table = Table()
    table.add_column("round")
    for name in (*shown, "seconds"):
        table.add_column(name, justify="right")
    spent = [sum(entry["seconds"].values()) for entry in rounds]
    for entry, seconds in zip(rounds, spent, strict=True):
        counts = [f"{entry['counts'].get(name, 0):,}" for name in shown]
        table.add_row(str(entry["round"]), *counts, f"{seconds:,.1f}")
    table.add_section()
    totals = [f"{sum(entry['counts'].get(name, 0) for entry in rounds):,}" for name in shown]
    table.add_row("all", *totals, f"{sum(spent):,.1f}", style="bold")
    return table


def _score_table(rows: str, rounds: list[dict[str, Any]]) -> Table:
    table = Table()
    table.add_column(rows)
    for entry in rounds:
        table.add_column(_when(entry), justify="right")
    table.add_column("gain, points", justify="right")
    return table


def _score_cells(scores: Sequence[float | None]) -> list[str]:
    first, last = scores[0], scores[-1]
    gain = NOTHING
    if first is not None and last is not None and len(scores) > 1:
        # Adding 0.0 turns a rounded "-0.0" into "+0.0".
        gain = f"{round(100 * (last - first), 1) + 0.0:+.1f}"
    return [*map(_percent, scores), gain]


def _skill_scores(
    entry: dict[str, Any], skill: str, key: str = "members"
) -> dict[str, float | None]:
    return {
        name: member["skills"].get(skill, {}).get("score") for name, member in entry[key].items()
    }


def _skills(rounds: list[dict[str, Any]]) -> list[str]:
    return _names(member["skills"] for entry in rounds for member in entry["members"].values())


def _names(tables: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for table in tables for name in table))


def _when(entry: dict[str, Any]) -> str:
    return "before" if entry["round"] == 0 else f"round {entry['round']}"


def _percent(score: float | None) -> str:
    return NOTHING if score is None else f"{100 * score:.1f}"


def show_rows(rows: pl.DataFrame, table: str, limit: int, as_json: bool, console: Console) -> None:
    """Print the first `limit` rows (0 is all) as a table, or as one JSON object a line."""
    if limit < 0:
        raise PeeralignError(f"--limit {limit} is below 0; give how many rows to print, 0 for all")
    shown = rows.head(limit) if limit else rows
    counts = f"{len(shown):,} of {len(rows):,} rows"
    if len(shown) < len(rows):
        counts += "; --limit 0 shows all"
    if as_json:
        _write_json_lines(shown, console)
        if len(shown) < len(rows):
            # Beside the output, so that a program reading it is not disturbed.
            Console(stderr=True, soft_wrap=True).print(counts, highlight=False)
        return
    if rows.is_empty():
        console.print(f"no {table} match", highlight=False)
        return
    console.print(_row_table(shown, table), soft_wrap=False)
    console.print(counts, highlight=False)


def _write_json_lines(rows: pl.DataFrame, console: Console) -> None:
    # Not through Rich, which would wrap lines; as bytes where the stream has them, since JSON is
    # UTF-8 whatever the terminal's encoding. NaN is not JSON.
    binary = getattr(console.file, "buffer", None)
    for row in rows.with_columns(pl.col(pl.Float64).fill_nan(None)).iter_rows(named=True):
        line = json.dumps(row, ensure_ascii=False) + "\n"
        if binary is None:
            console.file.write(line)
        else:
            binary.write(line.encode())


def _row_table(rows: pl.DataFrame, table: str) -> Table:
    names = list(SHOWN[table])
    if table != "candidates" and "raw" in rows.columns and rows[RESULT[table]].is_null().all():
        names.append("raw")
    names = [name for name in names if name in rows.columns and not rows[name].is_null().all()]
    if "chosen_views" in names:
        # Both sides of such a pair are one member's.
        names.remove("rejected_authors")
        views = rows["chosen_views"].list.concat(rows["rejected_views"]).explode()
        if views.n_unique() == 1:
            names = [name for name in names if not name.endswith("_views")]
    if "preference" in names and rows["preference"].drop_nulls().is_in(CHOICE_VALUES).all():
        # It says no more than the verdict.
        names.remove("preference")
    if "view" in names and rows["view"].n_unique() == 1:
        names.remove("view")
    drawn = Table(show_edge=False)
    for name in names:
        # "chosen_reward" stands beside "chosen": "reward" says enough there.
        head = name.split("_")[-1]
        if rows.schema[name].is_numeric():
            drawn.add_column(head, justify="right", no_wrap=True)
        else:
            # The cells do not wrap, but the column may: so Rich narrows it before the numbers.
            drawn.add_column(head, overflow="ellipsis", min_width=6)
    for row in rows.select(names).iter_rows():
        drawn.add_row(*map(_cell, row))
    return drawn


def _cell(value: Any) -> Text:
    if value is None:
        return Text(NOTHING)
    if isinstance(value, float):
        return Text(f"{value:.3f}")
    if isinstance(value, list):
        return plain(" ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in value))
    return plain(str(value))


def plain(text: str) -> Text:
    """A text that users or models wrote, cut short, for a cell of one line."""
    if len(text) > MAX_CELL_CHARACTERS:
        text = text[:MAX_CELL_CHARACTERS] + "..."
    return Text(visible(text), no_wrap=True, overflow="ellipsis")


def visible(line: str) -> str:
    """A line that users or models wrote, its control characters as marks that do nothing."""
    return line.translate(_CONTROLS)
