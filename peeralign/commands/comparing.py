"""The command `peeralign compare`: two evaluations, or two runs' exams, item by item."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from peeralign.errors import PeeralignError


def compare(
    a: Annotated[
        Path, typer.Argument(help="Folder of a `peeralign eval`, or of a run with exams.")
    ],
    b: Annotated[Path, typer.Argument(help="What it is compared with; it may be the same folder.")],
    member: Annotated[
        str | None, typer.Option(help="Only this member (of A, if B differs).")
    ] = None,
    against: Annotated[str | None, typer.Option(help="B's member to compare it with.")] = None,
    benchmarks: Annotated[
        list[str] | None, typer.Option("--benchmark", help="Only this benchmark or exam.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--round", min=0, help="A's round; the last one, if left out.")
    ] = None,
    against_round: Annotated[
        int | None, typer.Option(min=0, help="B's round; the last one, if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of resamples and of the gallery.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="HTML file for the page with items.")] = None,
) -> None:
    """Is B better than A on the same items? Paired bootstrap and McNemar (docs/compare.md)."""
    import json

    from peeralign.evals import compare as comparing
    from peeralign.evals.sheets import open_side
    from peeralign.report.compare import print_comparison

    if out is not None and (out.suffix.lower() not in (".html", ".htm") or out.is_dir()):
        raise PeeralignError(f"{out} cannot hold the page; name a file that ends in .html")
    sides = open_side(a, number), open_side(b, against_round, "--against-round")
    found = comparing.compare(*sides, member, against, benchmarks or (), seed)
    if as_json:
        print(json.dumps(found.figures, allow_nan=False))
    else:
        print_comparison(found.figures, Console(soft_wrap=True))
    if out is not None:
        from peeralign.report.compare_page import write_page

        write_page(found, out)
        # Beside JSON, what is said goes where it cannot be taken for JSON.
        Console(stderr=as_json, soft_wrap=True).print(f"page: {out}", markup=False)
