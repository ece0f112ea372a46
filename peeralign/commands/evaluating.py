"""The command `peeralign eval`: members on benchmarks, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console

from peeralign.commands.grading import members_of
from peeralign.config import build, override, read_toml
from peeralign.distributed import is_main
from peeralign.errors import PeeralignError
from peeralign.progress import Reporter

if TYPE_CHECKING:
    from peeralign.recipes.evaluate import Who


SUITE = "eval"


def suite_settings() -> type[BaseModel]:
    """What a suite's file may set."""
    from peeralign.recipes.evaluate import EvalConfig

    return EvalConfig


def evaluate(
    members: Annotated[
        list[str] | None,
        typer.Option("--member", help="A model, or a TOML file of a member; give several."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run's folder: all its members after every round.")
    ] = None,
    panel: Annotated[
        str | None,
        typer.Option(help="A recipe's TOML file or a run's folder: its members, alone and as one."),
    ] = None,
    benchmarks: Annotated[
        list[str] | None, typer.Option("--benchmark", help="As chartqa; one --data for each.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="A benchmark's file or folder.")
    ] = None,
    suite: Annotated[
        Path | None, typer.Option(help=r"TOML file with \[\[benchmarks]] and further settings.")
    ] = None,
    judges: Annotated[
        list[str] | None,
        typer.Option("--judge", help="Who grades MM-Vet and the like; several are averaged."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; of a run, RUN/evals.")] = None,
    protocol: Annotated[str, typer.Option(help="official, lmms-eval or vlmevalkit.")] = "official",
    limit: Annotated[int | None, typer.Option(help="Only the first items of each.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.")] = None,
    allow_self_judging: Annotated[
        bool, typer.Option("--allow-self-judging", help="Let members grade themselves; marked.")
    ] = False,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting: key=value.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Score members on benchmarks in local files (docs/eval.md); resumable."""
    from peeralign.recipes.evaluate import EvalConfig
    from peeralign.recipes.evaluate import evaluate as evaluate_all
    from peeralign.report.evals import print_evals

    who = _who(members or [], run, panel, judges or [])
    common = {"protocol": protocol, "limit": limit, "max_new_tokens": max_new_tokens}
    settings = _settings(benchmarks or [], data or [], suite, common)
    settings |= {"allow_self_judging": True} if allow_self_judging else {}
    config = build(EvalConfig, override(settings, assignments or []), str(suite or "settings"))
    folder = out or (run / "evals" if run else None)
    if folder is None:
        raise PeeralignError("--out is missing; name a folder for predictions and figures")
    console = Console(stderr=as_json, soft_wrap=True)
    figures = evaluate_all(who, folder, config, Reporter(console))
    if not is_main():
        return
    if as_json:
        print(json.dumps(figures))
    else:
        print_evals(figures, console)
        console.print(f"rows and figures: {folder}", highlight=False)


def _settings(
    benchmarks: list[str], data: list[str], suite: Path | None, common: dict[str, Any]
) -> dict[str, Any]:
    """The config's settings: those of the suite, and a benchmark for each pair of options."""
    if len(benchmarks) != len(data):
        raise PeeralignError(
            f"{len(benchmarks)} benchmarks and {len(data)} files; give one --data for each "
            "--benchmark"
        )
    settings = read_toml(suite, "suite") if suite else {}
    given = settings.get("benchmarks", [])
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise PeeralignError(f"{suite}: write each benchmark as a table, [[benchmarks]]")
    named = [{"name": name, "data": file} for name, file in zip(benchmarks, data, strict=True)]
    # What the command line says of all counts where an entry does not say it itself.
    said = {key: value for key, value in common.items() if value is not None}
    return {**settings, "benchmarks": [{**said, **entry} for entry in [*given, *named]]}


def _who(members: list[str], run: Path | None, panel: str | None, judges: list[str]) -> Who:
    from peeralign.recipes.afterwards import rounds_of
    from peeralign.recipes.answer import panel_from
    from peeralign.recipes.evaluate import Who
    from peeralign.recipes.together import Together

    if sum((bool(members), run is not None, panel is not None)) != 1:
        raise PeeralignError("give one of --member (once or several times), --run and --panel")
    rounds, together = {}, None
    if run is not None:
        found = rounds_of(run)
        taking_part = [member for member, _ in found]
        rounds = {member.name: label for member, label in found}
    elif panel is not None:
        together = Together(*panel_from(panel))
        taking_part = together.panel.authors
    else:
        taking_part = members_of(members, "member")
    return Who(
        tuple(taking_part),
        tuple(members_of(judges)) if judges else (),
        rounds=rounds,
        together=together,
    )
