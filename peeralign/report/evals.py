"""The table of `peeralign eval`: benchmarks by the paper's categories, members side by side."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from peeralign.evals import suite
from peeralign.report.terminal import NOTHING, visible

# Characters with the border: what names a benchmark's figure, and a cell ("12.3 to 100.0").
_FIRST, _CELL, _MEAN = 30, 15, 14


def print_evals(figures: dict[str, Any], console: Console) -> None:
    """Print what `recipes.evaluate` gives."""
    labels = figures["members"]
    # Beside each other as far as the terminal is wide: numbers that are cut off are worse.
    room = console.width - _FIRST - (_MEAN if figures["single"] else 0)
    columns = max(1, room // _CELL)
    for start in range(0, len(labels), columns):
        console.print(_table(figures, labels[start : start + columns]), soft_wrap=False)
    for line in _lines(figures):
        console.print(Text(visible(line)), highlight=False)


def _table(figures: dict[str, Any], labels: list[str]) -> Table:
    entries = {entry["name"]: entry for entry in figures["benchmarks"]}
    table = Table()
    table.add_column("benchmark, figure, protocol", overflow="fold")
    for label in labels:
        table.add_column(Text(visible(label), overflow="fold"), justify="right", min_width=12)
    if figures["single"]:
        # What a panel that answers as one is held against.
        table.add_column("mean of the\nmembers\nalone", justify="right")
    for category, names in suite.by_category(entries).items():
        is_mean = len(names) > 1 and category != suite.FURTHER
        table.add_section()
        means = _mean_cells(figures, labels, category) if is_mean else []
        table.add_row(f"[bold]{category}[/bold]{', mean, %' if is_mean else ''}", *means)
        for name in names:
            table.add_row(*_row(entries[name], figures, labels))
    known = [name for name in entries if name in suite.FIFTEEN]
    if len(known) > 1:
        table.add_section()
        title = f"[bold]Average[/bold] of {len(known)}, %"
        table.add_row(title, *_mean_cells(figures, labels, "Average"))
    return table


def _mean_cells(figures: dict[str, Any], labels: list[str], group: str) -> list[str]:
    means = {label: found.get(group) for label, found in figures["averages"].items()}
    shown = [_number(means.get(label), ".1f") for label in labels]
    return [*shown, *_of_single(means, figures, ".1f")]


def _row(entry: dict[str, Any], figures: dict[str, Any], labels: list[str]) -> list[Any]:
    name, scores = entry["name"], entry["members"]
    is_share = name in suite.FIFTEEN
    form = ".1f" if is_share else ".4g"

    def points(score: dict[str, Any], value: float | None) -> float | None:
        return suite.percent(name, score, value) if is_share else value

    values = {label: points(score, score["score"]) for label, score in scores.items()}
    cells = []
    for label in labels:
        cell = _number(values.get(label), form)
        interval = scores[label]["interval"] if label in scores else None
        if interval:
            ends = [_number(points(scores[label], end), form) for end in interval]
            cell += f"\n{' to '.join(ends)}"
        cells.append(cell)
    first = next(iter(scores.values()))
    figure = f"{first['headline']}, {'%' if is_share else first['unit']}"
    # Scores by different judges do not compare, so the name stands beside the number.
    judge = next((score["judge"] for score in scores.values() if "judge" in score), None)
    judged = f", by {visible(judge)}" if judge else ""
    what = Text(f"{entry['title']}\n{figure}, {entry['protocol']}{judged}")
    return [what, *cells, *_of_single(values, figures, form)]


def _of_single(values: dict[str, float | None], figures: dict[str, Any], form: str) -> list[str]:
    """The cell of the members' mean, where there is such a column."""
    known = [value for label in figures["single"] if (value := values.get(label)) is not None]
    if not figures["single"]:
        return []
    is_whole = len(known) == len(figures["single"])
    return [_number(sum(known) / len(known), form) if is_whole else NOTHING]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _lines(figures: dict[str, Any]) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = []
    for entry in figures["benchmarks"]:
        notes = []
        if entry["limit"]:
            notes.append(f"only its first {_items(entry['limit'])}")
        if entry["num_set_aside"]:
            why = ", ".join(f"{count} {reason}" for reason, count in entry["reasons"].items())
            notes.append(f"{_items(entry['num_set_aside'])} set aside ({why})")
        told: dict[str, list[str]] = {}
        for member, score in entry["members"].items():
            for what, how_many in _notes(score):
                told.setdefault(what, []).append(f"{member} {how_many}".rstrip())
        notes += [f"{what}: {', '.join(members)}" for what, members in told.items()]
        if notes:
            lines.append(f"{entry['title']}: {'; '.join(notes)}")
    if figures["self_judging"]:
        names = ", ".join(figures["self_judging"])
        lines.append(f"self-judged: {names} graded replies of its own or of its panel")
    return lines


def _notes(score: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader must know of one member's score, and how much of it that concerns."""
    if score["score"] is None and "reason" in score:
        return [(score["reason"], "")]
    notes = []
    if rate := score["parse_failure_rate"]:
        # Where a judge grades, nothing is read in a reply: what is missing is its grade.
        what = "replies without a grade" if "judge" in score else "replies that could not be read"
        notes.append((what, f"{rate:.1%}"))
    if lost := score.get("unanswered"):
        why = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        notes.append(("wrong for want of a reply", f"{_items(sum(lost.values()))} ({why})"))
    if lost := score.get("num_ungraded_references"):
        notes.append(("left out, as the reference answer has no grade", _items(lost)))
    return notes


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"
