"""The figures of a comparison in words and on the terminal (`evals.compare` says what they are)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from peeralign.report.terminal import NOTHING, plain

MINUS = "\N{MINUS SIGN}"
_SMALLEST = 0.001
# From here on a figure counts points; shares are smaller.
_POINTS = 10


class Line(NamedTuple):
    """One row of a table: a benchmark's figures of a member on each side, or their mean."""

    benchmark: dict[str, Any]
    members: str
    found: dict[str, Any]
    """An entry of the benchmark's "pairs", or its "mean"."""

    @property
    def headline(self) -> dict[str, Any]:
        return self.found["figures"][self.benchmark["headline"]]

    @property
    def is_mean(self) -> bool:
        return "num_members" in self.found

    @property
    def others(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and values of the other figures, and of the headline in each split."""
        for name, figure in self.found["figures"].items():
            if name != self.benchmark["headline"]:
                yield name, figure
        for key, values in self.found["by"].items():
            for value, figure in values.items():
                yield f"{key} {value}", figure


def lines_of(figures: dict[str, Any]) -> list[Line]:
    """All lines of a comparison, in its order; a mean comes after what it is of."""
    lines = []
    for benchmark in figures["benchmarks"]:
        for found in benchmark["pairs"]:
            lines.append(Line(benchmark, named(found["a"], found["b"]), found))
        if benchmark["mean"]:
            number = benchmark["mean"]["num_members"]
            lines.append(Line(benchmark, f"mean of {number} members", benchmark["mean"]))
    return lines


def named(a: str, b: str) -> str:
    """A member of either side, as tables name the two."""
    return a if a == b else f"{a} and {b}"


class Texts(NamedTuple):
    """A figure's values in words."""

    a: str
    b: str
    difference: str
    interval: str
    p: str


def texts_of(figure: dict[str, Any]) -> Texts:
    """A figure as people read it, to a tenth of a percent or of a point."""
    values = [figure[key] or 0.0 for key in ("a", "b", "difference")]
    digits = 1 if max(map(abs, values)) >= _POINTS else 3

    def number(value: float | None, sign: str = "") -> str:
        if value is None:
            return NOTHING
        # Adding 0.0 turns a rounded "-0.0" into "0.0".
        return f"{round(value, digits) + 0.0:{sign}.{digits}f}".replace("-", MINUS)

    ends = [number(end, "+") for end in figure["interval"] or ()]
    return Texts(
        number(figure["a"]),
        number(figure["b"]),
        number(figure["difference"], "+"),
        " to ".join(ends) or NOTHING,
        chance(figure["p"]),
    )


def chance(p: float | None) -> str:
    """A p-value."""
    if p is None:
        return NOTHING
    return f"<{_SMALLEST}" if p < _SMALLEST else f"{p:.3f}"


def place(side: dict[str, Any]) -> str:
    """Where a side's answers are from."""
    return side["folder"] + ("" if side["round"] is None else f", round {side['round']}")


def result_sentence(figures: dict[str, Any]) -> str:
    """The result in one sentence."""
    lines = _summing_up(lines_of(figures))
    if len(lines) == 1:
        benchmark, said = lines[0].benchmark, texts_of(lines[0].headline)
        sure = f", 95 % interval {said.interval}" if lines[0].headline["interval"] else ""
        return (
            f"{benchmark['title']}, protocol {benchmark['protocol']}: {benchmark['headline']} "
            f"{said.a} in A and {said.b} in B, a difference of {said.difference}{sure}."
        )
    apart = [
        line.headline["interval"]
        for line in lines
        if line.headline["interval"] and not _holds_0(line.headline["interval"])
    ]
    higher = sum(low > 0 for low, _ in apart)
    return (
        f"Of {len(lines)} differences, {len(apart)} have a 95 % interval without 0: B is higher "
        f"in {higher} of them and lower in {len(apart) - higher}."
    )


def _holds_0(ends: list[float]) -> bool:
    return ends[0] <= 0 <= ends[1]


def print_comparison(figures: dict[str, Any], console: Console) -> None:
    """Print the tables of a comparison; parts of the headline only once, of several members."""
    for side in "ab":
        console.print(f"{side.upper()}: {place(figures[side])}", highlight=False, markup=False)
    lines = lines_of(figures)
    tables = (
        (f"B {MINUS} A on the items that both have", _headlines(lines)),
        ("Items", _items([line for line in lines if not line.is_mean])),
        ("Other figures, and the headline in parts", _parts(_summing_up(lines))),
    )
    for title, table in tables:
        if table.row_count:
            console.print(f"\n[bold]{title}[/bold]", highlight=False)
            console.print(table, soft_wrap=False)
    for each in figures["skipped"]:
        console.print(f"not compared: {each['name']}, {each['reason']}", markup=False)
    for note in figures["notes"]:
        console.print(note, highlight=False, markup=False)


def _summing_up(lines: list[Line]) -> list[Line]:
    """The lines that say most: the mean where there is one."""
    return [line for line in lines if line.is_mean or not line.benchmark["mean"]]


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _fill(
    table: Table,
    lines: list[Line],
    head: Callable[[dict[str, Any]], str],
    rows_of: Callable[[Line], Iterator[list[str]]],
) -> Table:
    """Under a head for each benchmark, the rows of its lines."""
    for benchmark in {id(line.benchmark): line.benchmark for line in lines}.values():
        own = [line for line in lines if line.benchmark is benchmark]
        rows = [(line, row) for line in own for row in rows_of(line)]
        if not rows:
            continue
        table.add_section()
        table.add_row(Text(head(benchmark), style="bold"))
        for line, (name, *cells) in rows:
            style = "bold" if line.is_mean and len(own) > 1 else None
            label = plain(name)
            label.no_wrap, label.overflow = False, "fold"
            table.add_row(Padding(label, (0, 0, 0, 2)), *cells, style=style)
    return table


def _title(benchmark: dict[str, Any]) -> str:
    return f"{benchmark['title']}, {benchmark['protocol']}"


def _headlines(lines: list[Line]) -> Table:
    several = len({line.benchmark["name"] for line in lines}) > 1
    columns = ("A", "B", f"B {MINUS} A", "95 % interval", "p", *(("Holm",) if several else ()))

    def rows_of(line: Line) -> Iterator[list[str]]:
        corrected = [chance(line.headline["p_holm"])] if several else []
        yield [line.members, *texts_of(line.headline), *corrected]

    return _fill(
        _table(*columns), lines, lambda each: f"{_title(each)}\n{each['headline']}", rows_of
    )


def _items(lines: list[Line]) -> Table:
    def rows_of(line: Line) -> Iterator[list[str]]:
        found = line.found
        keys = ("num_items", "num_only_a", "num_only_b", "wins", "ties", "losses")
        test = found["mcnemar"]
        p = NOTHING if test is None else chance(test["p"])
        yield [line.members, *(f"{found[key]:,}" for key in keys), p]

    columns = ("both", "only A", "only B", "B wins", "ties", "A wins", "McNemar p")
    return _fill(_table(*columns), lines, _title, rows_of)


def _parts(lines: list[Line]) -> Table:
    def rows_of(line: Line) -> Iterator[list[str]]:
        for name, figure in line.others:
            items = figure.get("num_items", line.found["num_items"])
            yield [name, f"{items:,}", *texts_of(figure)]

    columns = ("items", "A", "B", f"B {MINUS} A", "95 % interval", "p")
    return _fill(_table(*columns), lines, _title, rows_of)
