"""A run's members after each round, whatever its recipe: new exams, and consistency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peeralign.config import build
from peeralign.distributed import meet
from peeralign.engines.base import Readout
from peeralign.engines.opening import check_member
from peeralign.errors import PeeralignError
from peeralign.evals.consistency import TEMPERATURES, consistency
from peeralign.evals.exam import read_exam
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes.loop import CONFIG, Loop, LoopConfig, read_json
from peeralign.records import QUESTION_SCHEMA
from peeralign.store.run import Run, Stage


def examine_again(folder: Path | str, exam: Path | str, reporter: Reporter | None = None) -> Any:
    """Examine every round's members of a run on another exam, whatever its recipe.

    Returns one entry a round, as in summary.json: {"round", "panel_mean", "members"}. The answers
    are kept in `folder`/exams/NAME, so an interrupted examination goes on.
    """
    state = Run.existing(Path(folder))
    config = settings_of(state)
    loop = Loop(state.manifest()["recipe"], config, state, reporter or Reporter())
    table = read_exam(str(exam))
    place = state.folder / "exams" / Path(exam).stem
    results = []
    with meet(place):
        for number, panel in members_after(state):

            def stage_of(kind: str, name: str, number: int = number) -> Stage:
                folder = place if kind == "exam" else place.with_name(f"{place.name}-described")
                return Stage(folder / f"round-{number}" / name)

            loop.sit(table, stage_of, panel)
            results.append({"round": number, **loop.scores(stage_of)})
    return results


def settings_of(state: Run) -> LoopConfig:
    """What all recipes' settings have, as a run was started with; its exam is left out.

    Raises PeeralignError for the folder of a command that trains nobody by rounds.
    """
    settings = read_json(state.folder / CONFIG) or state.manifest()["settings"]
    if "pool" not in settings:
        raise PeeralignError(
            f"{state.folder} holds no run with rounds, it was made by the recipe "
            f"'{state.manifest()['recipe']}'; give the folder of a `peeralign run`"
        )
    known = {name: settings[name] for name in LoopConfig.model_fields if name in settings}
    known["exam"] = {**known.get("exam", {}), "path": None}
    return build(LoopConfig, known, str(state.folder))


def members_after(state: Run) -> Iterator[tuple[int, Panel]]:
    """(round, the members with their weights after it), from round 0 to the last there is."""
    panel = Panel(settings_of(state).members)
    for number in range(max(state.rounds(), default=0) + 1):
        if number:
            learnt = {m.name: state.checkpoint(number, m.name) for m in panel.learners}
            panel = panel.after({name: path for name, path in learnt.items() if path.is_dir()})
        yield number, panel


def rounds_of(folder: Path | str) -> list[tuple[Member, tuple[str, int]]]:
    """A run's learners after every round, each renamed, with its (name, round).

    A learner that a round has not come to yet is not one of that round.
    """
    state = Run.existing(Path(folder))

    def is_after(number: int, name: str) -> bool:
        # Whoever had nothing to learn has no new weights, but is done.
        log = state.stage(number, "training-log", name)
        return number == 0 or state.checkpoint(number, name).is_dir() or log.is_done

    return [
        (
            member.model_copy(update={"name": f"{member.name}-round-{number}", "answers": True}),
            (member.name, number),
        )
        for number, panel in members_after(state)
        for member in panel.learners
        if is_after(number, member.name)
    ]


def panels_behind(members: Sequence[Member]) -> list[Member]:
    """Everybody, after every round, of the runs in whose folders the members' checkpoints lie.

    Their judgements were what the members were trained on.
    """
    found: list[Member] = []
    folders = [
        parent
        for member in members
        if not member.server and Path(member.checkpoint()).is_dir()
        for parent in Path(member.checkpoint()).resolve().parents
        if (parent / "manifest.json").is_file() and (parent / CONFIG).is_file()
    ]
    for folder in dict.fromkeys(folders):
        for _, panel in members_after(Run(folder)):
            found += [member for member in panel.members if member not in found]
    return found


def consistency_of_run(
    folder: Path | str,
    judging: Member,
    num_questions: int = 100,
    temperatures: Sequence[float] = TEMPERATURES,
    max_new_tokens: int = 256,
    readout: Readout = "text",
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Consistency of every learner before the first and after every round of a run.

    On the first questions of round 1; the tables are kept in `folder`/consistency, so that an
    interrupted call goes on. Rows of {"round", "member", "temperature", "Q", "A", "unscored",
    "same"}: mean scores from 1 to 10 or None, verdicts without one, and the share of answers that
    equal the greedy one.
    """
    if not all(temperature > 0 for temperature in temperatures):
        raise PeeralignError("temperatures must be above 0: at 0 an answer is the greedy one")
    run = Run.existing(Path(folder))
    questions = run.table(1, "questions", QUESTION_SCHEMA).head(num_questions)
    if questions.is_empty():
        raise PeeralignError(f"{folder} has no questions in round 1; run its command first")
    check_member(judging)
    place = run.folder / "consistency"
    rows = []
    with meet(place):
        for number, panel in members_after(run):
            for member in panel.learners:
                base = place / f"round-{number}" / member.name

                def stage_of(name: str, base: Path = base) -> Stage:
                    return Stage(base / name)

                measured = consistency(
                    stage_of,
                    questions,
                    member,
                    judging,
                    temperatures,
                    max_new_tokens,
                    readout,
                    reporter or Reporter(),
                )
                rows += [{"round": number, "member": member.name, **row} for row in measured]
    return rows
