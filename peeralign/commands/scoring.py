"""The command `peeralign score`: figures of a benchmark from predictions that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console


def score(
    benchmark: Annotated[str, typer.Argument(help="A benchmark of docs/benchmarks.md: chartqa.")],
    predictions: Annotated[
        Path, typer.Argument(help="JSONL: id, prediction (or null), answer, and what it needs.")
    ],
    protocol: Annotated[str, typer.Option(help="official, lmms-eval or vlmevalkit.")] = "official",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Score a benchmark's predictions (docs/benchmarks.md); asks no model."""
    import json

    from peeralign.evals.score import score_file

    figures = score_file(benchmark, predictions, protocol)
    if as_json:
        print(json.dumps(figures))
    else:
        print_score(figures, Console(soft_wrap=True))


def print_score(figures: dict[str, Any], console: Console) -> None:
    """Print what `evals.score` gives."""
    from rich.table import Table

    from peeralign.evals.score import GENERAL
    from peeralign.report.terminal import NOTHING, plain

    def number(value: float | None) -> str:
        return NOTHING if value is None else f"{value:.4g}"

    interval = figures["interval"]
    between = f" ({number(interval[0])} to {number(interval[1])})" if interval else ""
    console.print(
        f"[bold]{figures['benchmark']}[/bold], protocol {figures['protocol']}: "
        f"{figures['headline']} {number(figures['score'])}{between}",
        highlight=False,
    )
    console.print(
        f"{figures['unit']}; {figures['num_rows']:,} rows, {figures['num_none']:,} not read and "
        f"{figures['num_ambiguous']:,} ambiguous; interval of 95 % over "
        f"{figures['num_clusters']:,} clusters, by {figures['clustered_by']}",
        highlight=False,
    )
    if "reason" in figures:
        console.print(figures["reason"], highlight=False)
    table = Table("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if name not in GENERAL:
            table.add_row(plain(name), number(value))
    for key, values in figures["by"].items():
        for name, value in values.items():
            table.add_row(plain(f"{key} {name}"), number(value))
    console.print(table, soft_wrap=False)
