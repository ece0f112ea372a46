"""What `peeralign eval --run` found of a run's members after each round, for its report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from peeralign.evals import suite
from peeralign.report.scores import Exam, Key, Skill
from peeralign.store.run import Run

FOLDER = "evals"


@dataclass(frozen=True, slots=True)
class Line:
    """One benchmark and member: a score for each round, and its 95% interval."""

    title: str
    figure: str
    protocol: str
    member: str
    values: dict[int, float]
    intervals: dict[int, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Benchmarks:
    """Scores on benchmarks by category. `curves` has those in per cent as an exam's skills."""

    curves: Exam
    lines: dict[str, list[Line]]
    notes: list[str]


def read_benchmarks(run: Run) -> Benchmarks | None:
    """What RUN/evals holds, or None if the run was not evaluated there."""
    path = run.folder / FOLDER / "figures.json"
    figures = json.loads(path.read_text()) if path.is_file() else {}
    labels = {name: (number, member) for name, (member, number) in _rounds(figures).items()}
    if not labels:
        return None
    entries = {entry["name"]: entry for entry in figures["benchmarks"]}
    members = list(dict.fromkeys(member for _, member in labels.values()))
    rounds = sorted({number for number, _ in labels.values()})
    groups = suite.by_category(entries)
    lines = {
        category: [
            _line(name, entries[name], member, labels) for name in names for member in members
        ]
        for category, names in groups.items()
    }
    skills = [
        Skill(entries[name]["title"], category, means, _num_items(entries[name]))
        for category, names in groups.items()
        for name in names
        if (means := _shares(name, entries[name], labels))
    ]
    averages = {
        labels[label]: means["Average"] / 100
        for label, means in figures["averages"].items()
        if "Average" in means and label in labels
    }
    if len(skills) > 1:
        skills.insert(0, Skill(f"Average of {len(skills)}", "All", averages, len(skills)))
    curves = Exam(rounds, members, {}, {}, skills, "", None)
    return Benchmarks(curves, lines, _notes(figures))


def _rounds(figures: dict[str, Any]) -> dict[str, tuple[str, int]]:
    return figures.get("rounds", {})


def _num_items(entry: dict[str, Any]) -> int:
    return max(score["num_rows"] for score in entry["members"].values())


def _shares(name: str, entry: dict[str, Any], labels: dict[str, Key]) -> dict[Key, float]:
    """The headline as a share of the best; nothing for benchmarks whose points are no shares."""
    found = {
        labels[label]: suite.percent(name, score, score["score"])
        for label, score in entry["members"].items()
        if label in labels
    }
    return {key: value / 100 for key, value in found.items() if value is not None}


def _line(name: str, entry: dict[str, Any], member: str, labels: dict[str, Key]) -> Line:
    values, intervals = {}, {}
    is_share = name in suite.FIFTEEN

    def shown(score: dict[str, Any], value: float) -> float:
        return (suite.percent(name, score, value) or 0.0) if is_share else value

    for label, score in entry["members"].items():
        number, who = labels.get(label, (0, None))
        if who != member or score["score"] is None:
            continue
        values[number] = shown(score, score["score"])
        if score["interval"]:
            low, high = score["interval"]
            intervals[number] = (shown(score, low), shown(score, high))
    first = next(iter(entry["members"].values()))
    unit = "%" if is_share else first["unit"]
    figure = f"{first['headline']}, {unit}"
    return Line(entry["title"], figure, entry["protocol"], member, values, intervals)


def _notes(figures: dict[str, Any]) -> list[str]:
    notes = []
    for entry in figures["benchmarks"]:
        if entry["limit"]:
            notes.append(f"{entry['title']}: only its first {entry['limit']} items.")
        if entry["num_set_aside"]:
            notes.append(f"{entry['title']}: {entry['num_set_aside']} items were set aside.")
        unread = [
            rate
            for score in entry["members"].values()
            if (rate := score["parse_failure_rate"]) and "judge" not in score
        ]
        if unread:
            # Protocols may give points for such replies: POPE's counts them as a yes.
            notes.append(
                f"{entry['title']}: of some members, up to {max(unread):.1%} of the replies could "
                "not be read."
            )
        judge = next((s["judge"] for s in entry["members"].values() if "judge" in s), None)
        if judge:
            notes.append(f"{entry['title']} was graded by {judge}.")
    if figures["self_judging"]:
        names = ", ".join(figures["self_judging"])
        notes.append(f"Self-judged: {names} graded replies of its own or of its panel.")
    return notes
