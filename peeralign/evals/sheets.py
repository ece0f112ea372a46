"""What members answered, read from the folder of an evaluation or of a training run.

A task is a benchmark under one protocol, or an exam; a sheet is all that one member answered to it,
graded anew from its rows. Nothing is read before it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.evals.benchmark import OFFICIAL, UNREAD, Graded, Row, graded, no_unit
from peeralign.evals.benchmarks import NAMES, find
from peeralign.evals.exam import read_exam
from peeralign.evals.judged import takes_judge
from peeralign.evals.measures import Measure, average, by_value, mean
from peeralign.evals.score import check_protocol, checked_rows
from peeralign.records import EXAM_SCHEMA
from peeralign.store.files import listed, numbered_objects, reading
from peeralign.store.run import Run, Stage

EVAL = "eval"
EXAMS = ("exam", "exam-described")
EXACT_MATCH = "exact match"
MEAN_OVER_SKILLS = "mean over skills"


@dataclass(frozen=True)
class Task:
    """How graded rows of a benchmark or an exam give figures."""

    name: str
    title: str
    protocol: str
    headline: str
    measures: Callable[[Sequence[Row], Sequence[Graded]], dict[str, Measure]]
    unit: str = "share, 0 to 1"
    splits: tuple[str, ...] = ("category",)
    unit_of: Callable[[Row], Hashable | None] = no_unit
    asked: Mapping[str, Any] | None = None
    """The settings it was asked with, of an evaluation."""
    graded_by: str = "rules"
    """Who graded it, and how: scores of different judges do not compare."""


@dataclass(frozen=True)
class Sheet:
    """One member's rows by id, with their grades, and their rows as they were written."""

    rows: dict[str, Row]
    grades: dict[str, Graded]
    written: dict[str, Mapping[str, Any]]


Images = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Side:
    """One of the two folders that are compared."""

    folder: Path
    round: int | None
    tasks: dict[str, Task]
    sheets: dict[str, dict[str, Callable[[], Sheet]]]
    """Task -> member -> what reads its sheet."""
    images: Callable[[str, Collection[str]], Images]
    """Task, ids -> the images ({"bytes", "path"}) of those that have one. Raises PeeralignError
    if the data cannot be read any more."""

    @property
    def members(self) -> list[str]:
        return list(dict.fromkeys(name for found in self.sheets.values() for name in found))


def open_side(folder: Path, number: int | None, option: str = "--round") -> Side:
    """Open the folder of an evaluation, or of a run after a round (the last one with an exam).

    Raises PeeralignError if there is nothing to compare; `option` names the round for the user.
    """
    run = Run.existing(folder)
    try:
        manifest = run.manifest()
        if manifest["recipe"] != EVAL:
            return _run_side(run, manifest, number, option)
        if number is not None:
            raise PeeralignError(
                f"{folder} holds an evaluation, which has no rounds; leave {option} out"
            )
        return _eval_side(folder, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise PeeralignError(
            f"{folder} cannot be read as an evaluation or a run of peeralign "
            f"({type(error).__name__}: {error}); give another folder"
        ) from error


def _eval_side(folder: Path, manifest: dict[str, Any]) -> Side:
    tasks: dict[str, Task] = {}
    sheets: dict[str, dict[str, Callable[[], Sheet]]] = {}
    for asked in manifest["settings"]["benchmarks"]:
        name, protocol = asked["name"], asked.get("protocol") or OFFICIAL
        if name not in NAMES:
            raise PeeralignError(
                f"{folder} holds an evaluation by '{name}', which is no benchmark known here; "
                "give a folder made by this version of peeralign"
            )
        benchmark = find(name)
        check_protocol(benchmark, protocol)
        tasks[name] = Task(
            name,
            benchmark.title,
            protocol,
            benchmark.headline,
            partial(_benchmark_measures, benchmark.measures, protocol),
            benchmark.unit,
            benchmark.splits,
            benchmark.unit_of,
            asked,
            _graded_by(manifest["settings"], asked, protocol),
        )
        paths = sorted((folder / "rows" / name).glob("*.jsonl"))
        sheets[name] = {path.stem: partial(_read_rows, tasks[name], path) for path in paths}
    if not any(sheets.values()):
        raise PeeralignError(
            f"{folder} has no finished rows of any benchmark; run its `peeralign eval` to the end"
        )

    def images(name: str, ids: Collection[str]) -> Images:
        from peeralign.evals.items import read_items

        asked = tasks[name].asked or {}
        if not asked.get("data"):
            raise PeeralignError("the evaluation does not say where its data are")
        how: Any = {key: asked.get(key) for key in ("split", "image_root", "limit", "prompt")}
        items = read_items(name, str(asked["data"]), **how, check_images=False).items
        return _images_by_id(items, ids)

    return Side(folder, None, tasks, sheets, images)


def _graded_by(settings: Mapping[str, Any], asked: Mapping[str, Any], protocol: str) -> str:
    """The judges of a benchmark by their models, how they were read, and a rubric of one's own."""
    judges = sorted(judge["model"] for judge in settings.get("judges") or ())
    if not judges or not takes_judge(asked["name"], protocol):
        return "rules"
    rubric = f", rubric {asked['rubric']}" if asked.get("rubric") else ""
    return f"{', '.join(judges)} (readout {settings.get('readout')}{rubric})"


def _benchmark_measures(
    measures: Callable[..., dict[str, Measure]],
    protocol: str,
    rows: Sequence[Row],
    grades: Sequence[Graded],
) -> dict[str, Measure]:
    return measures(rows, grades, protocol)


def _read_rows(task: Task, path: Path) -> Sheet:
    benchmark = find(task.name)
    with reading(path):
        given = [(f"{path}, line {number}", row) for number, row in numbered_objects(path)]
    rows = checked_rows(benchmark, given, task.protocol)
    return Sheet(
        {row["id"]: row for row in rows},
        {row["id"]: graded(benchmark, row, task.protocol) for row in rows},
        {row["id"]: written for row, (_, written) in zip(rows, given, strict=True)},
    )


def _run_side(run: Run, manifest: dict[str, Any], number: int | None, option: str) -> Side:
    members = [str(member["name"]) for member in manifest["settings"].get("members", ())]
    done = [(task, n, m, stage) for task, n, m, stage in _exams(run, members) if stage.is_done]
    rounds = sorted({n for _, n, _, _ in done})
    if not rounds:
        raise PeeralignError(
            f"{run.folder} has no finished exam to compare; give the folder of a run whose members "
            "were examined, or of a `peeralign eval`"
        )
    if number is not None and number not in rounds:
        raise PeeralignError(
            f"{run.folder} has no exam of round {number}, only of {listed(rounds)}; "
            f"give one of them with {option}"
        )
    chosen = rounds[-1] if number is None else number
    path = ((manifest["settings"].get("exam") or {}).get("path")) or None
    asked = cache(partial(_exam_file, path))
    tasks: dict[str, Task] = {}
    sheets: dict[str, dict[str, Callable[[], Sheet]]] = {}
    for name, n, member, stage in done:
        if n != chosen:
            continue
        tasks[name] = Task(
            name, name, EXACT_MATCH, MEAN_OVER_SKILLS, _exam_measures, splits=("skill", "category")
        )
        # The file of an exam that was taken again is named nowhere.
        file = asked if name in EXAMS else dict
        sheets.setdefault(name, {})[member] = partial(_read_exam_rows, stage, file)

    def images(name: str, ids: Collection[str]) -> Images:
        if name not in EXAMS or not path:
            raise PeeralignError("the exam's file is not known")
        return _images_by_id(read_exam(path), ids)

    return Side(run.folder, chosen, tasks, sheets, images)


def _exams(run: Run, members: list[str]) -> Iterator[tuple[str, int, str, Stage]]:
    """Task, round, member and stage of a run's exams, and of those taken again afterwards."""
    for number in run.rounds():
        for name in EXAMS:
            yield from ((name, number, m, run.stage(number, name, m)) for m in members)
    for place in sorted((run.folder / "exams").glob("*/round-*")):
        number = place.name.removeprefix("round-")
        if number.isdecimal():
            name = f"exams/{place.parent.name}"
            yield from ((name, int(number), m, Stage(place / m)) for m in members)


def _exam_file(path: str | None) -> dict[str, dict[str, Any]]:
    """Id -> question, answer and digest of the image, of an exam's file if it is still there."""
    try:
        table = read_exam(path) if path else None
    except PeeralignError:
        table = None
    if table is None:
        return {}
    found = {}
    for item in table.iter_rows(named=True):
        stored = item["image"]["bytes"] or str(item["image"]["path"]).encode()
        digest = hashlib.sha256(stored).hexdigest()
        found[item["id"]] = {"text": item["text"], "answer": item["answer"], "image": digest}
    return found


def _read_exam_rows(stage: Stage, file: Callable[[], dict[str, dict[str, Any]]]) -> Sheet:
    sheet = Sheet({}, {}, {})
    known = file()
    for item in stage.read(EXAM_SCHEMA).iter_rows(named=True):
        name = item["item_id"]
        if name in sheet.rows:
            raise PeeralignError(f"{stage.folder} has two answers to the question '{name}'")
        if item["score"] is None:
            continue
        row = {"id": name, **{key: item[key] for key in ("skill", "category")}}
        kept = known.get(name, {})
        if kept.get("text") == item["question"]:
            row |= {key: kept[key] for key in ("answer", "image")}
        # Without the question: exams ask it of many images, so its text makes no cluster.
        sheet.rows[name] = row
        sheet.written[name] = {**row, **{key: item[key] for key in ("question", "prediction")}}
        is_empty = not (item["prediction"] or "").strip()
        read = UNREAD if is_empty else Graded(item["score"], "parsed", item["prediction"])
        sheet.grades[name] = read._replace(score=item["score"])
    return sheet


def _exam_measures(rows: Sequence[Row], grades: Sequence[Graded]) -> dict[str, Measure]:
    scores = [grade.score for grade in grades]
    skills = by_value(scores, [row["skill"] for row in rows])
    return {MEAN_OVER_SKILLS: average(list(skills.values())), "mean over items": mean(scores)}


def _images_by_id(table: pl.DataFrame, ids: Collection[str]) -> Images:
    found = table.filter(pl.col("id").is_in(list(ids))).select("id", "image").iter_rows()
    return {name: image for name, image in found if image}
