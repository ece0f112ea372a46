"""Who takes part in a run, and what it still lacks: an unfinished run is a normal one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peeralign.report.critics import is_compared
from peeralign.report.scores import DESCRIBED, Exam
from peeralign.store.run import Run

STAGE_WORDS = {
    "questions": "questions",
    "candidates": "answers",
    "judgments": "judgments",
    "comparisons": "comparisons",
    "rewards": "rewards",
    "pairs": "pairs",
    "members": "training",
    "exam": "exam",
    DESCRIBED: "exam after describing",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A member and its roles."""

    name: str
    answers: bool
    judges: bool
    learns: bool


def find_members(run: Run, settings: dict[str, Any]) -> list[Member]:
    """The panel as the settings name it, or else whoever has an exam, an answer or weights."""
    named = settings.get("members")
    entries = (
        [entry for entry in named if isinstance(entry, dict)] if isinstance(named, list) else []
    )
    if entries:
        roles = ("answers", "judges", "learns")
        return [Member(e["name"], *(bool(e.get(role, True)) for role in roles)) for e in entries]
    seen: set[str] = set()
    for number in run.rounds():
        for stage in ("exam", "candidates", "members"):
            seen |= _folders(run, number, stage)
    return [Member(name, True, True, True) for name in sorted(seen)]


def _folders(run: Run, number: int, stage: str) -> set[str]:
    folder = run.round_folder(number) / stage
    return (
        {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()
    )


def planned_rounds(manifest: dict[str, Any]) -> int | None:
    """How many rounds the settings ask for; None where they do not say."""
    settings = manifest.get("settings", {})
    if manifest["recipe"] == "stic":
        return 2 if settings.get("instructions") else 1
    rounds = settings.get("rounds")
    return rounds if isinstance(rounds, int) else None


def expected_stages(
    manifest: dict[str, Any], number: int, members: list[Member]
) -> dict[str, list[str]]:
    """A round's stages in order, each with the folders it has (one without a name for a table).

    Without judges, and with critics, each learner answers and has pairs of its own. STIC's second
    round describes the learners' own images, and makes no pairs.
    """
    settings = manifest.get("settings", {})
    everyone = [member.name for member in members]
    learners = [member.name for member in members if member.learns]
    if manifest["recipe"] == "llava_critic":
        verdicts = "comparisons" if is_compared(manifest) else "judgments"
        stages = {
            "questions": [""],
            "candidates": learners,
            verdicts: [member.name for member in members if member.judges],
            "rewards": learners,
            "pairs": learners,
        }
    elif "judge" in settings:
        stages = {
            "questions": [""],
            "candidates": [member.name for member in members if member.answers],
            "judgments": [member.name for member in members if member.judges],
            "rewards": [""],
            "pairs": [""],
        }
    elif manifest["recipe"] == "stic" and number == 2:
        stages = {"questions": learners, "candidates": learners}
    else:
        stages = {"questions": [""], "candidates": learners, "pairs": learners}
    stages["members"] = learners
    exam = settings.get("exam") or {}
    if exam.get("path"):
        stages["exam"] = everyone
        if exam.get("describe"):
            stages[DESCRIBED] = everyone
    return stages


def missing_stages(
    run: Run, number: int, members: list[Member], exams: Mapping[str, Exam | None]
) -> list[str]:
    """What a round still lacks. Stages run in order, so those before the last begun are whole.

    `exams` has the finished examinations, by the name of their stage.
    """
    expected = expected_stages(run.manifest(), number, members)
    for name, exam in exams.items():
        if exam is not None:
            expected.setdefault(name, [member.name for member in members])
    stages = list(expected)
    begun = [name for name in stages if (run.round_folder(number) / name).is_dir()]
    missing = []
    for name in stages[stages.index(begun[-1]) :] if begun else stages:
        exam = exams.get(name)
        if name == "members":
            done = _trained(run, number)
        elif name in exams:
            done = {member for n, member in exam.scores if n == number} if exam else set()
        else:
            # A recipe of one's own may keep one table for all members.
            whole = run.stage(number, name).is_done
            done = {m for m in expected[name] if whole or run.stage(number, name, m).is_done}
        count, of = len(done.intersection(expected[name])), len(expected[name])
        if count < of or not of:
            begun_by = f" ({count} of {of} members done)" if expected[name] != [""] else " (begun)"
            missing.append(STAGE_WORDS[name] + (begun_by if name in begun else ""))
    return missing


def _trained(run: Run, number: int) -> set[str]:
    # A member with nothing to learn from keeps its weights: it has a log but no checkpoint.
    logs = {
        m
        for m in _folders(run, number, "training-log")
        if run.stage(number, "training-log", m).is_done
    }
    return logs | {name for name in _folders(run, number, "members") if name[0] != "."}


def pending_sentences(
    manifest: dict[str, Any], missing: dict[int, list[str]], exam: Exam | None
) -> list[str]:
    """Sentences on what is still to come; `missing` is what each round lacks."""
    lines = []
    has_exam = exam is not None or bool(
        (manifest.get("settings", {}).get("exam") or {}).get("path")
    )
    if has_exam and (exam is None or 0 not in exam.panel):
        lines.append("Round 0: the exam before training is not finished yet.")
    lines += [
        f"Round {n}: not finished yet: {', '.join(what)}." for n, what in missing.items() if what
    ]
    last, planned = max(missing, default=0), planned_rounds(manifest)
    if planned is not None and last < planned:
        rounds = f"Round {planned}" if last + 1 == planned else f"Rounds {last + 1} to {planned}"
        lines.append(f"{rounds}: not begun yet.")
    return lines
