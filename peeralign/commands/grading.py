"""The command `peeralign judge`: judges of every kind on a file of answers one has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from peeralign.config import build, override, read_toml
from peeralign.distributed import is_main
from peeralign.errors import PeeralignError
from peeralign.panel import Member
from peeralign.progress import Reporter


def judge(
    data: Annotated[
        str,
        typer.Argument(help="Parquet, JSONL: image, question, answer (or answer_a, answer_b)."),
    ],
    judges: Annotated[
        list[str],
        typer.Option("--judge", help="A model, or a TOML file of a member; several are a panel."),
    ],
    rubric: Annotated[str, typer.Option(help="A rubric's name or TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for the scores.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting: key=value.")
    ] = None,
) -> None:
    """Score your own answers, or compare two each, with one judge or a panel; resumable."""
    from peeralign.recipes.grade import grade_file
    from peeralign.recipes.judges import GradeConfig

    settings = override({"judge": {"rubric": rubric}}, assignments or [])
    config = build(GradeConfig, settings, "--set")
    console = Console(soft_wrap=True)
    summary = grade_file(data, members_of(judges), out, config, Reporter(console))
    if is_main():
        for line in lines_of(summary):
            console.print(line, highlight=False, markup=False)
        console.print(f"scores: {out / 'scores.parquet'}", highlight=False)


def members_of(given_names: list[str], what: str = "judge") -> list[Member]:
    """The members, each by a model or a member's TOML file; names that are not given are made."""
    members: list[Member] = []
    for named in given_names:
        is_file = named.endswith(".toml")
        given = read_toml(Path(named), what) if is_file else {"model": named}
        if "name" not in given:
            stem = Path(named).stem if is_file else re.split(r"[/\\:]", named.rstrip("/\\"))[-1]
            base = re.sub(r"[^A-Za-z0-9._-]+|^[._-]+", "-", stem).strip("-._") or what
            taken = {member.name for member in members}
            names = [base, *(f"{base}-{number}" for number in range(2, len(given_names) + 1))]
            given = {"name": next(name for name in names if name not in taken), **given}
        members.append(build(Member, given, named))
    if not members:
        raise PeeralignError(f"no {what} was named; give --{what} a model or a member's TOML file")
    return members


def lines_of(summary: dict[str, Any]) -> list[str]:
    """What a user reads of a summary."""
    lines = [f"{summary['rows']} rows judged, {summary['unscored']} of them without a verdict"]
    if summary["set_aside"]:
        why = ", ".join(f"{number} {reason}" for reason, number in summary["reasons"].items())
        lines.append(f"{summary['set_aside']} rows set aside ({why}): set-aside.jsonl")
    if "mean_score" in summary:
        mean = summary["mean_score"]
        lines.append(f"mean score: {'none' if mean is None else format(mean, '.4g')}")
    else:
        lines.append(", ".join(f"{name} {count}" for name, count in summary["verdicts"].items()))
        for judge in summary["order"]:
            if judge["num_pairs"]:
                lines.append(
                    f"{judge['judge']}: {judge['changed']:.1%} of {judge['num_pairs']} verdicts "
                    "change with the order"
                )
    return lines
