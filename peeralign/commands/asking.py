"""Commands that ask a model outside of a run's rounds: `peeralign ask`, `peeralign consistency`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from peeralign.config import build, read_toml
from peeralign.errors import PeeralignError
from peeralign.panel import Member
from peeralign.progress import Reporter

if TYPE_CHECKING:
    from PIL.Image import Image


def _member(named: str, **settings: Any) -> Member:
    given = read_toml(Path(named)) if named.endswith(".toml") else {"model": named}
    return build(Member, {"name": "member", **given, **settings}, named)


def consistency(
    folder: Annotated[Path, typer.Argument(help="A run's folder.")],
    judge: Annotated[str, typer.Option(help="Who judges: a model, or a TOML file of a member.")],
    questions: Annotated[int, typer.Option(help="Questions of round 1 to answer.")] = 100,
    temperature: Annotated[
        list[float] | None, typer.Option(help="Sampling temperature; give it several times.")
    ] = None,
    readout: Annotated[str, typer.Option(help="text, greedy or expected.")] = "text",
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """How steady each round's members answer at rising temperature (SeVa, Table 5)."""
    from peeralign.evals.consistency import TEMPERATURES
    from peeralign.recipes.afterwards import consistency_of_run
    from peeralign.report.consistency import print_consistency

    member = _member(judge, name="judge", learns=False)
    readouts = ("text", "greedy", "expected")
    if readout not in readouts:
        raise PeeralignError(f"no readout '{readout}', there are {', '.join(readouts)}")
    console = Console(soft_wrap=True)
    rows = consistency_of_run(
        folder,
        member,
        questions,
        temperature or TEMPERATURES,
        max_new_tokens,
        readout,
        Reporter(None if as_json else console),
    )
    if as_json:
        print(json.dumps(rows))
    else:
        print_consistency(rows, console)


def ask(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    member: Annotated[
        str | None, typer.Option(help="Who answers: a model, or a TOML file of a member.")
    ] = None,
    panel: Annotated[
        Path | None,
        typer.Option(help="Who answers together: a recipe's TOML file, or a run's folder."),
    ] = None,
    describe: Annotated[
        str | None,
        typer.Option(help="Describe the image first, with these prompts: stic, or a TOML file."),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer, in tokens; default 256, or the panel's own."),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Override one setting of the panel: key=value")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask about one image: one model (--member), or a panel for its best answer (--panel).

    With --describe, a member describes the image first (STIC).
    """
    from peeralign.images.load import BrokenImage, open_image

    if (member is None) == (panel is None):
        raise PeeralignError("give one of --member, who answers alone, and --panel")
    _check_options(member, {"--set": assignments}, {"--describe": describe})
    try:
        opened = open_image({"bytes": None, "path": str(image)})
    except BrokenImage as error:
        raise PeeralignError(f"{image} cannot be asked about: {error}") from error
    if panel is not None:
        if max_new_tokens is not None:
            assignments = [*(assignments or []), f"generate.max_new_tokens={max_new_tokens}"]
        _ask_panel(image, question, panel, assignments or [], as_json)
        return
    assert member is not None
    answer = _ask_member(opened, question, member, describe, max_new_tokens or 256)
    print(json.dumps({"question": question, "answer": answer}) if as_json else answer)


def _check_options(
    member: str | None, of_a_panel: dict[str, Any], of_a_member: dict[str, Any]
) -> None:
    if member is not None:
        if named := [name for name, value in of_a_panel.items() if value]:
            raise PeeralignError(f"{named[0]} is for a panel; write a member's settings in a file")
    elif named := [name for name, value in of_a_member.items() if value]:
        raise PeeralignError(
            f"{named[0]} is for --member; in a panel, set describe of its [[members]]"
        )


def _ask_member(
    image: Image, question: str, named: str, describe: str | None, max_new_tokens: int
) -> str:
    from peeralign.engines.base import AnswerRequest, Sampling
    from peeralign.engines.opening import check_member, open_engine

    first = {"prompts": describe, "max_new_tokens": max_new_tokens}
    asked = _member(named, **({"describe": first} if describe else {}))
    check_member(asked)
    request = AnswerRequest(image, question, (0,))
    with closing(open_engine(asked)) as engine:
        draw = engine.answer([request], Sampling(max_new_tokens=max_new_tokens))[0][0]
    if draw.text is None:
        raise PeeralignError(f"{asked.model} gave no answer: {draw.reason}")
    return draw.text


def _ask_panel(
    image: Path, question: str, path: Path, assignments: list[str], as_json: bool
) -> None:
    import polars as pl

    from peeralign.engines.base import Engine
    from peeralign.engines.opening import open_engine
    from peeralign.recipes.answer import (
        check_answering,
        panel_answers,
        panel_from,
        weighed_answers,
    )
    from peeralign.records import QUESTION_SCHEMA, make_id
    from peeralign.report.answered import answered_json, print_answered
    from peeralign.store.run import Stage

    panel, config, seed = panel_from(path, assignments)
    check_answering(panel, config)
    asked = {"text": question, "category": "", "image": {"bytes": None, "path": str(image)}}
    table = pl.DataFrame([{"id": make_id("asked", question), **asked}], schema=QUESTION_SCHEMA)

    def engine(member: Member) -> Engine:
        return open_engine(member, config.judge.min_label_mass)

    # Loading several models takes a while; beside the answer, so that it can be read by a program.
    reporter = Reporter(Console(stderr=True, soft_wrap=True))
    with TemporaryDirectory() as folder:

        def stage_of(name: str, who: str) -> Stage:
            return Stage(Path(folder) / name / who)

        best = panel_answers(stage_of, table, panel, config, engine, seed, reporter).row(
            0, named=True
        )
        answers = weighed_answers(stage_of, table, panel, config)
    if best["text"] is None:
        raise PeeralignError(f"no member gave an answer: {best['reason']}")
    if as_json:
        print(json.dumps({"question": question, **answered_json(best, answers)}))
    else:
        print_answered(best, answers, Console(soft_wrap=True))
