"""The command `peeralign judge-eval`: how good a judge is, by verdicts it gave or gives now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from peeralign.commands.grading import members_of
from peeralign.config import build, override
from peeralign.distributed import is_main
from peeralign.errors import PeeralignError
from peeralign.progress import Reporter


def judge_eval(
    scores: Annotated[
        Path | None, typer.Option(help="JSONL: item, model, score (or null), reference.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help='JSONL: item, model_a, model_b, verdict ("A", "B", "tie"), reference.'),
    ] = None,
    rankings: Annotated[
        Path | None, typer.Option(help="JSONL: item, ranking (best first, or null), reference.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A published set's file, which --judge judges now.")
    ] = None,
    judges: Annotated[
        list[str] | None,
        typer.Option("--judge", help="A model, or a TOML file of a member; several are a panel."),
    ] = None,
    rubric: Annotated[str | None, typer.Option(help="A rubric's name or TOML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for verdicts and figures.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting: key=value.")
    ] = None,
    black_image: Annotated[
        bool,
        typer.Option("--black-image", help="Judge all again with black images: twice the work."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """How well a judge agrees with a reference (docs/judge_eval.md).

    By verdicts that are there (--scores, --pairs, --rankings), or on a published set (--data).
    """
    verdicts = {"--scores": scores, "--pairs": pairs, "--rankings": rankings}
    judging = {"--judge": judges, "--rubric": rubric, "--out": out}
    extra = {**judging, "--set": assignments, "--black-image": black_image}
    _check(data, verdicts, judging, extra)
    # The options' names above are what a mistake is told in; here only one kind is left.
    if data is None:
        _print(_figures_of(scores, pairs, rankings, seed), as_json)
        return
    assert judges is not None
    assert rubric is not None
    assert out is not None
    figures, summary = _judged(
        data, judges, rubric, out, assignments or [], black_image, seed, as_json
    )
    if not is_main():
        return
    _print(figures, as_json)
    # Beside JSON, what is said goes where it cannot be taken for JSON.
    console = Console(stderr=as_json, soft_wrap=True)
    for line in lines_of(summary, black_image):
        console.print(line, highlight=False, markup=False)


def _check(
    data: str | None,
    verdicts: dict[str, Path | None],
    judging: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    given = [name for name, value in verdicts.items() if value]
    if data is None:
        if named := [name for name, value in extra.items() if value]:
            raise PeeralignError(
                f"{named[0]} is for judging a published set; name its file with --data"
            )
        if not given:
            raise PeeralignError(
                "no verdicts to look at; give --scores, --pairs or --rankings, or --data for a "
                "published set that a judge is to judge"
            )
        return
    if given:
        raise PeeralignError(
            f"--data is judged now and {given[0]} holds verdicts that are there; give one of them"
        )
    if missing := [name for name, value in judging.items() if not value]:
        raise PeeralignError(f"--data needs {', '.join(missing)} too; --help says what for")


def _figures_of(
    scores: Path | None, pairs: Path | None, rankings: Path | None, seed: int
) -> dict[str, Any]:
    from peeralign.evals.judge_eval import judge_eval as figures_of
    from peeralign.store.verdicts import read_pairs, read_rankings, read_scores

    return figures_of(
        read_scores(scores) if scores else None,
        read_pairs(pairs) if pairs else None,
        read_rankings(rankings) if rankings else None,
        seed,
    )


def _judged(
    data: str,
    judges: list[str],
    rubric: str,
    out: Path,
    assignments: list[str],
    black_image: bool,
    seed: int,
    as_json: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    from peeralign.recipes.judge_set import judge_set
    from peeralign.recipes.judges import GradeConfig

    config = build(GradeConfig, override({"judge": {"rubric": rubric}}, assignments), "--set")
    reporter = Reporter(Console(stderr=as_json, soft_wrap=True))
    return judge_set(data, members_of(judges), out, config, reporter, black_image, seed)


def _print(figures: dict[str, Any], as_json: bool) -> None:
    from peeralign.report.judges import print_judge_eval

    if as_json:
        print(json.dumps(figures))
    else:
        print_judge_eval(figures, Console(soft_wrap=True))


def lines_of(summary: dict[str, Any], black_image: bool) -> list[str]:
    """What a user reads of a summary."""
    lines = [
        f"{summary['rows']} rows judged; {summary['unscored']} of {summary['verdicts']} verdicts "
        "could not be read" + _listed(summary["unread"])
    ]
    if summary["set_aside"]:
        lines.append(
            f"{summary['set_aside']} rows set aside{_listed(summary['reasons'])}: set-aside.jsonl"
        )
    if summary["tied"]:
        lines.append(f"{summary['tied']} rankings with equal places, whose order was drawn")
    lines.append(f"verdicts: {summary['file']}")
    if not black_image:
        lines.append("how much of this needs the image: add --black-image to the same command")
    return lines


def _listed(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{number} {reason}" for reason, number in counts.items()) + ")"
