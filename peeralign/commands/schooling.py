"""The commands that make critics: `peeralign critic-data` and `peeralign critic`."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from peeralign.config import build, override, read_toml
from peeralign.distributed import is_main
from peeralign.errors import PeeralignError
from peeralign.progress import Reporter
from peeralign.store.run import INPUTS, Run

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one setting: key=value.")
]
# What a file of sources may say it is, as recipes do.
SOURCES = "critic_data"


def sources_module() -> ModuleType:
    """Where the settings of a file of sources are."""
    return importlib.import_module(f"peeralign.recipes.{SOURCES}")


def critic_data(
    sources: Annotated[Path, typer.Argument(help="TOML file of sources, members and totals.")],
    out: Annotated[Path, typer.Option(help="Folder for the data.")],
    assignments: SetOption = None,
) -> None:
    """Make critic data from teachers' judgements and published sets; resumable."""
    from peeralign.classroom.demo import in_folder
    from peeralign.recipes.critic_data import CriticDataConfig, make_critic_data

    settings = override(read_toml(sources, "file of sources"), assignments or [])
    if (recipe := settings.pop("recipe", SOURCES)) != SOURCES:
        raise PeeralignError(
            f"{sources} is a recipe for `peeralign run` ({recipe}); give a file of [[sources]]"
        )
    config = build(CriticDataConfig, in_folder(settings, out / INPUTS), str(sources))
    console = Console(soft_wrap=True)
    _write_inputs(settings, out, console)
    summary = make_critic_data(config, out, Reporter(console))
    if is_main():
        print_statistics(summary, console)
        console.print(f"critic data: {out / 'critic.parquet'}", highlight=False)


def critic(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or hub name.")],
    data: Annotated[str, typer.Argument(help="What critic-data made, or image, prompt, response.")],
    out: Annotated[Path, typer.Option(help="Where the critic's checkpoint goes.")],
    assignments: SetOption = None,
) -> None:
    """Train a critic: cross-entropy on judgements and reasons alone (LLaVA-Critic's recipe)."""
    from peeralign.classroom.demo import in_folder
    from peeralign.recipes.sft import CRITIC, SftConfig, train_on_demonstrations

    settings = override(CRITIC, assignments or [])
    config = build(SftConfig, in_folder(settings, out / INPUTS), "--set")
    console = Console(soft_wrap=True)
    _write_inputs(settings, out, console)
    folder = train_on_demonstrations(model, data, out, config, Reporter(console))
    if is_main():
        console.print(f"checkpoint: {folder}")


def _write_inputs(settings: dict[str, Any], out: Path, console: Console) -> None:
    """Draw the classroom's tables that settings name."""
    from peeralign.classroom.demo import tables_in, write_classroom

    names = tables_in(settings)
    if not names:
        return
    Run.check_usable(out)
    if is_main():
        write_classroom(out / INPUTS, names, Reporter(console))


def print_statistics(summary: dict[str, Any], console: Console) -> None:
    """How many samples there are of what, and what was left out."""
    if not summary["by_scenario"]:
        raise PeeralignError("there are no samples")
    table = Table("scenario", "kind", "samples", "with a reason", "verdicts", box=None)
    for row in summary["by_scenario"]:
        levels = ", ".join(f"{level}: {number}" for level, number in row["levels"].items())
        counts = (str(row["samples"]), str(row["with_reason"]))
        table.add_row(row["scenario"], row["kind"], *counts, levels)
    console.print(table)
    for name, facts in summary["sources"].items():
        for reason, number in facts["left_out"].items():
            console.print(f"{name}: {number} left out: {reason}", highlight=False, markup=False)
