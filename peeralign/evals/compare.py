"""Compare two evaluations, or two runs' members on their exams, by the items that both have.

Differences are B minus A throughout, and a win is an item on which B scores higher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from peeralign.errors import PeeralignError, nearest
from peeralign.evals.benchmark import Graded, Row
from peeralign.evals.measures import Measure
from peeralign.evals.outcomes import outcomes
from peeralign.evals.paired import RESAMPLES, Difference, differences, holm, mcnemar
from peeralign.evals.rows import shown
from peeralign.evals.score import clusters_of, is_failure, rounded
from peeralign.evals.sheets import Sheet, Side, Task
from peeralign.store.files import listed

# What a member or its judge says of an item; the rest of a row is the item itself.
_SAID = {"prediction", "extraction", "score", "reference_score", "correctness", "mentioned"}
_HOW = ("data", "split", "limit", "prompt", "max_new_tokens")
Key = tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """`figures` are ready for JSON (docs/compare.md); `items` are of `OUTCOME_SCHEMA`."""

    a: Side
    b: Side
    figures: dict[str, Any]
    items: pl.DataFrame


class _Paired(NamedTuple):
    """A member's and its counterpart's answers to the items that both have, in order of ids.

    `rows` and `grades` hold A's and B's.
    """

    members: tuple[str, str]
    sheets: tuple[Sheet, Sheet]
    ids: list[str]
    rows: list[list[Row]]
    grades: list[list[Graded]]
    counts: dict[str, int]


def compare(
    a: Side,
    b: Side,
    member: str | None = None,
    against: str | None = None,
    names: Sequence[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare all tasks that both sides have (`names`: only these), member by member.

    Members are paired as `pair_members` says; of several pairs there is the mean, too. Raises
    PeeralignError if there is nothing to compare, if protocols differ, or if one id is not one
    item. A task that cannot be compared for another reason is passed over and says why.
    """
    pairs = pair_members(a, b, member, against)
    tasks, skipped = _shared_tasks(a, b, names)
    notes = [] if member or against else _notes(a, b, pairs)
    entries, tables = [], []
    for name in tasks:
        notes += _asked_otherwise(a, b, name)
        task = a.tasks[name]
        paired: list[_Paired] = []
        lines: list[dict[str, Any]] = []
        for members in pairs:
            try:
                each = _paired(task, members, _sheets(a, b, name, members))
                lines.append(_of_pair(task, each, seed, resamples))
            except _Passed as passed:
                skipped.append({"name": name, "reason": str(passed)})
                continue
            paired.append(each)
            tables.append(outcomes(name, members, each.sheets, each.ids))
        if paired:
            mean = _of_mean(task, paired, seed, resamples)
            entries.append({**_named(task), "pairs": lines, "mean": mean})
            if mean is None and len(pairs) > 1:
                notes.append(f"{name}: no mean over members, who have different items")
    if not entries:
        reasons = "; ".join(f"{each['name']}: {each['reason']}" for each in skipped)
        raise PeeralignError(f"{a.folder} and {b.folder} have nothing to compare ({reasons})")
    _correct(entries)
    figures = {
        "a": {"folder": str(a.folder), "round": a.round},
        "b": {"folder": str(b.folder), "round": b.round},
        "seed": seed,
        "resamples": resamples,
        "benchmarks": entries,
        "skipped": skipped,
        "notes": notes,
    }
    return Comparison(a, b, figures, pl.concat(tables))


class _Passed(Exception):
    """Why a task is passed over."""


def pair_members(
    a: Side, b: Side, member: str | None = None, against: str | None = None
) -> list[tuple[str, str]]:
    """Who is compared with whom: the two that are named, else the only two, else equal names.

    `member` alone is a name on both sides, unless B has a single one.
    """
    ours, theirs = a.members, b.members
    for name, names, side, option in (
        (member, ours, a, "--member"),
        (against, theirs, b, "--against"),
    ):
        if name is not None and name not in names:
            raise PeeralignError(
                f"{side.folder} has no member '{name}', it has {listed(names)}"
                f"{nearest(name, names)}; give one of them with {option}"
            )
    if member is not None and against is None and member in theirs:
        against = member
    ours = ours if member is None else [member]
    theirs = theirs if against is None else [against]
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    same = [] if member or against else [name for name in ours if name in theirs]
    if not same:
        raise PeeralignError(
            f"it is not clear whom to compare: A has {listed(ours)}, B has {listed(theirs)}; "
            "name one of A with --member and one of B with --against"
        )
    return [(name, name) for name in same]


def _shared_tasks(a: Side, b: Side, names: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    known = [*a.tasks, *(name for name in b.tasks if name not in a.tasks)]
    for name in names:
        if name not in known:
            raise PeeralignError(
                f"no benchmark named '{name}' is in either folder, they have {listed(known)}"
                f"{nearest(name, known)}"
            )
    tasks, skipped = [], []
    for name in dict.fromkeys(names) or known:
        lacking = [side for side, held in (("A", a), ("B", b)) if name not in held.tasks]
        if lacking:
            skipped.append({"name": name, "reason": f"{lacking[0]} has no answers to it"})
            continue
        ours, theirs = a.tasks[name].protocol, b.tasks[name].protocol
        if ours != theirs:
            raise PeeralignError(
                f"{name} was scored by protocol {ours} in {a.folder} and {theirs} in {b.folder}; "
                "evaluate both by one protocol, or choose other benchmarks with --benchmark"
            )
        one, other = a.tasks[name].graded_by, b.tasks[name].graded_by
        if one != other:
            skipped.append({"name": name, "reason": f"A was graded by {one}, B by {other}"})
            continue
        tasks.append(name)
    return tasks, skipped


def _notes(a: Side, b: Side, pairs: list[tuple[str, str]]) -> list[str]:
    notes = []
    same_place = a.folder.resolve() == b.folder.resolve() and a.round == b.round
    if same_place and all(one == other for one, other in pairs):
        notes.append(
            "A and B are the same answers; --round, --against-round, --member and --against "
            "choose others"
        )
    for side, held, at in (("A", a, 0), ("B", b, 1)):
        left = [name for name in held.members if name not in {pair[at] for pair in pairs}]
        if left:
            notes.append(f"only {side} has {listed(left)}, who are not compared")
    return notes


def _asked_otherwise(a: Side, b: Side, name: str) -> list[str]:
    ours, theirs = a.tasks[name].asked or {}, b.tasks[name].asked or {}
    return [
        f"{name} was asked with {key} {shown(ours.get(key))} in A and {shown(theirs.get(key))} in B"
        for key in _HOW
        if ours.get(key) != theirs.get(key)
    ]


def _sheets(a: Side, b: Side, name: str, members: tuple[str, str]) -> tuple[Sheet, Sheet]:
    found = []
    for label, side, member in zip("AB", (a, b), members, strict=True):
        read = side.sheets.get(name, {}).get(member)
        if read is None:
            raise _Passed(f"{label} has no finished answers of {member}")
        try:
            found.append(read())
        except PeeralignError as error:
            raise _Passed(str(error)) from None
    _check_same(name, *found)
    return found[0], found[1]


def _check_same(name: str, ours: Sheet, theirs: Sheet) -> None:
    for item in sorted(ours.rows.keys() & theirs.rows.keys()):
        one, other = (
            {**sheet.rows[item], "question": sheet.written[item].get("question")}
            for sheet in (ours, theirs)
        )
        for key in sorted((one.keys() & other.keys()) - _SAID):
            if one[key] != other[key]:
                raise PeeralignError(
                    f"{name}: the item '{item}' is not the same on both sides, its {key} is "
                    f"{shown(one[key])} in A and {shown(other[key])} in B; compare answers to the "
                    "same data, or choose other benchmarks with --benchmark"
                )


def _paired(task: Task, members: tuple[str, str], sheets: tuple[Sheet, Sheet]) -> _Paired:
    ours, theirs = sheets
    shared = ours.rows.keys() & theirs.rows.keys()
    # A question of which one side lacks a part is scored by neither's benchmark.
    partly = {
        unit
        for sheet in sheets
        for name, row in sheet.rows.items()
        if name not in shared and (unit := task.unit_of(row)) is not None
    }
    kept = sorted(name for name in shared if task.unit_of(ours.rows[name]) not in partly)
    if not kept:
        raise _Passed(f"{members[0]} of A and {members[1]} of B share no item")
    counts = {
        "num_items": len(kept),
        "num_only_a": len(ours.rows) - len(shared),
        "num_only_b": len(theirs.rows) - len(shared),
        "num_left_out": len(shared) - len(kept),
    }
    rows = [[sheet.rows[name] for name in kept] for sheet in sheets]
    grades = [[sheet.grades[name] for name in kept] for sheet in sheets]
    return _Paired(members, sheets, kept, rows, grades, counts)


def _named(task: Task) -> dict[str, str]:
    return {
        "name": task.name,
        "title": task.title,
        "protocol": task.protocol,
        "headline": task.headline,
        "unit": task.unit,
    }


def _of_pair(task: Task, each: _Paired, seed: int, resamples: int) -> dict[str, Any]:
    score_a, score_b = (np.array([g.score for g in grades]) for grades in each.grades)
    test = mcnemar(score_a, score_b)
    failed = [sum(map(is_failure, grades)) / len(grades) for grades in each.grades]
    return {
        "a": each.members[0],
        "b": each.members[1],
        **each.counts,
        **_figures(task, [each], seed, resamples),
        "wins": int((score_b > score_a).sum()),
        "ties": int((score_b == score_a).sum()),
        "losses": int((score_b < score_a).sum()),
        "mcnemar": None
        if test is None
        else {"only_a": test.only_a, "only_b": test.only_b, "p": _significant(test.p)},
        "parse_failure_rate": {"a": rounded(failed[0]), "b": rounded(failed[1])},
    }


def _of_mean(task: Task, paired: list[_Paired], seed: int, resamples: int) -> dict[str, Any] | None:
    if len(paired) < 2 or any(each.ids != paired[0].ids for each in paired):
        return None
    counts = {"num_members": len(paired), "num_items": len(paired[0].ids)}
    return {**counts, **_figures(task, paired, seed, resamples)}


def _figures(task: Task, paired: list[_Paired], seed: int, resamples: int) -> dict[str, Any]:
    """All figures of the pairs, as means over them: they have the same rows."""
    rows = paired[0].rows[0]
    cluster_N, clustered_by = clusters_of(rows, task.unit_of)
    sides = [
        [_measures_of(task, each.rows[side], each.grades[side]) for each in paired]
        for side in (0, 1)
    ]
    first = sides[0][0]
    names = [name for name in first if all(name in found for side in sides for found in side)]
    measures: dict[Key, tuple[Measure, Measure]] = {
        (name,): _means([[found[name] for found in side] for side in sides]) for name in names
    }
    within: dict[Key, np.ndarray] = {}
    for key in task.splits:
        values = [row.get(key) for row in rows]
        for value in dict.fromkeys(value for value in values if value is not None):
            within[key, value] = np.array([each == value for each in values], float)
            measures[key, value] = measures[task.headline,]
    found = differences(measures, cluster_N, seed, resamples, within)
    by: dict[str, dict[str, Any]] = {}
    for (key, value), where_N in ((name, where) for name, where in within.items()):
        num_items = int(where_N.sum())
        by.setdefault(key, {})[value] = {"num_items": num_items, **_shown(found[key, value])}
    return {
        "num_clusters": int(cluster_N.max()) + 1,
        "clustered_by": clustered_by,
        "figures": {name: _shown(found[name,]) for name in names},
        "by": by,
    }


def _measures_of(task: Task, rows: list[Row], grades: list[Graded]) -> dict[str, Measure]:
    try:
        return task.measures(rows, grades)
    except PeeralignError as error:
        raise _Passed(f"the items that both have cannot be scored: {error}") from None


def _means(sides: list[list[Measure]]) -> tuple[Measure, Measure]:
    def over(measures: list[Measure]) -> Measure:
        return lambda weights_N: math.fsum(each(weights_N) for each in measures) / len(measures)

    return over(sides[0]), over(sides[1])


def _shown(found: Difference) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "a": rounded(found.a),
        "b": rounded(found.b),
        "difference": rounded(found.difference),
        "interval": None,
        "p": None,
    }
    if found.low is not None and found.high is not None and found.p is not None:
        entry["interval"] = [rounded(found.low), rounded(found.high)]
        entry["p"] = _significant(found.p)
    return entry if found.reason is None else {**entry, "reason": found.reason}


def _significant(p: float) -> float:
    # McNemar's may be far below any number of decimals.
    return float(f"{p:.6g}")


def _correct(entries: list[dict[str, Any]]) -> None:
    """Add "p_holm" to the headline of every line, over the benchmarks of the same members."""
    lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in entries:
        for each in entry["pairs"]:
            lines.setdefault((each["a"], each["b"]), []).append(each["figures"][entry["headline"]])
        if entry["mean"]:
            lines.setdefault(("mean",), []).append(entry["mean"]["figures"][entry["headline"]])
    for headlines in lines.values():
        adjusted = holm([headline["p"] for headline in headlines])
        for headline, p in zip(headlines, adjusted, strict=True):
            headline["p_holm"] = None if p is None else _significant(p)
