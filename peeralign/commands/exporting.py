"""The command `peeralign export`: predictions for another toolkit's evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from peeralign.errors import PeeralignError, nearest

TOOLKITS = ("vlmevalkit",)


def export(
    folder: Annotated[Path, typer.Argument(help="The folder that an evaluation wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    to: Annotated[str, typer.Option(help="The toolkit: vlmevalkit.")] = "vlmevalkit",
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="BENCHMARK=NAME: the toolkit's data set, if not the usual."),
    ] = None,
) -> None:
    """Write an evaluation's predictions as VLMEvalKit's TSV (docs/bridge.md)."""
    from peeralign.evals.export import export_vlmevalkit

    if to not in TOOLKITS:
        raise PeeralignError(
            f"no export to '{to}', only to {', '.join(TOOLKITS)}{nearest(to, TOOLKITS)}"
        )
    done = export_vlmevalkit(folder, out, dict(map(_named, datasets or [])))
    console = Console(soft_wrap=True)
    for file in done["files"]:
        missing = file["num_missing"]
        said = f" ({missing:,} predictions will be read as missing)" if missing else ""
        console.print(
            f"{file['path']}: {file['num_rows']:,} rows{said}", highlight=False, markup=False
        )
    for left in done["left_out"]:
        console.print(
            f"{left['benchmark']} is left out: {left['reason']}", highlight=False, markup=False
        )


def _named(given: str) -> tuple[str, str]:
    benchmark, sign, dataset = given.partition("=")
    # The name becomes part of a file's.
    is_name = dataset.replace("_", "").replace("-", "").isalnum()
    if not sign or not benchmark or not is_name:
        raise PeeralignError(f"--dataset {given} is not BENCHMARK=NAME, as scienceqa=ScienceQA_VAL")
    return benchmark, dataset
