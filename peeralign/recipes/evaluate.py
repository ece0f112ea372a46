"""Evaluate members on benchmarks, side by side.

    OUT/manifest.json                                     benchmarks, members, judges
    OUT/items/BENCHMARK.json                              which items are asked
    OUT/set-aside/BENCHMARK.jsonl                         those that cannot be, with their reasons
    OUT/predictions/BENCHMARK/MEMBER/part-*.parquet       replies
    OUT/judgments/BENCHMARK/MEMBER/JUDGE/part-*.parquet   where a judge grades them
    OUT/panel/BENCHMARK/                                  draws and verdicts of a panel as one
    OUT/rows/BENCHMARK/MEMBER.jsonl                       items with reply and grade, for `score`
    OUT/figures.json                                      every figure, with its protocol

The same call again resumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.distributed import meet, on_main
from peeralign.engines.base import Engine, Sampling
from peeralign.engines.opening import check_member, kept_open, open_engine
from peeralign.errors import PeeralignError
from peeralign.evals import suite
from peeralign.evals.asked import (
    BenchmarkConfig,
    checked_entries,
    choose,
    chosen_items,
    facts_of,
    look_at,
)
from peeralign.evals.benchmarks import find
from peeralign.evals.judged import (
    GRADINGS,
    answers_of,
    asked_of,
    graded_rows,
    rubric_of,
    takes_judge,
)
from peeralign.evals.score import grade_rows, no_score, score_rows
from peeralign.images.load import MAX_PIXELS
from peeralign.judging.rubric import Rubric
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes.answer import check_answering
from peeralign.recipes.together import Asked, Together
from peeralign.recipes.who import Who
from peeralign.records import JUDGMENT_SCHEMA, make_id
from peeralign.stages.blocks import fill_stage
from peeralign.stages.generate import answer_block, as_asked
from peeralign.stages.judge import JudgeConfig, judge
from peeralign.store.preferences import reason_counts
from peeralign.store.run import Run, Stage, write_json, write_whole

Row = dict[str, Any]
PREDICTION_SCHEMA = pl.Schema(
    {"item_id": pl.String, "prediction": pl.String, "num_tokens": pl.Int32, "reason": pl.String}
)


# Of benchmarks' images, between one member and the next.
HELD_BYTES = 4 * 2**30


class EvalConfig(BaseModel):
    """How members are evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    benchmarks: tuple[BenchmarkConfig, ...]
    """The benchmarks."""
    readout: Literal["text", "greedy", "expected"] = "text"
    """How judges' scores are read, as judge.readout of a recipe."""
    min_label_mass: float = Field(default=0.5, ge=0, le=1)
    """As judge.min_label_mass of a recipe."""
    allow_self_judging: bool = False
    """Let a model grade replies of its own, or of its panel; the figures are marked."""
    max_image_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Items with images of more pixels than this are set aside."""
    block_size: int = Field(default=64, ge=1)
    """Items a shard; an interrupted call repeats at most one shard."""
    seed: int = Field(default=0, ge=0)
    """Seed of what is drawn (members that describe first)."""


def evaluate(who: Who, out: Path, config: EvalConfig, reporter: Reporter) -> dict[str, Any]:
    """Every member answers every benchmark; writes `out` and returns its figures.

    Raises PeeralignError for settings, files, members or folders that cannot be used.
    """
    benchmarks = checked_entries(config.benchmarks, bool(who.judges))
    config = config.model_copy(update={"benchmarks": benchmarks})
    self_judging = who.check(config.allow_self_judging)
    Run.check_usable(out)
    work = _Evaluation(who, out, config, reporter)
    with meet(out):
        on_main("beginning", work.begin)
        for entry in config.benchmarks:
            on_main(
                "items", lambda entry=entry: choose(entry, out, config.max_image_pixels, reporter)
            )
        for member in who.members:
            with kept_open(open_engine) as factory:
                for entry in config.benchmarks:
                    work.ask(entry, member, factory)
        if who.together:
            work.ask_together(who.together)
        for judging in who.judges:
            with kept_open(lambda m: open_engine(m, config.min_label_mass)) as factory:
                for entry in work.graded:
                    for label in who.labels():
                        work.grade(entry, label, judging, factory)
        return on_main("figures", lambda: work.finish(self_judging))


def _are_done(*stages: Stage) -> bool:
    """Whether there is nothing to do: the same answer in a process that looks when others began."""
    return on_main("look for replies", lambda: all(stage.is_done for stage in stages))


class _Evaluation:
    """One call's settings and folder."""

    def __init__(self, who: Who, out: Path, config: EvalConfig, reporter: Reporter) -> None:
        self.who = who
        self.out = out
        self.config = config
        self.reporter = reporter
        self._held: dict[str, pl.DataFrame] = {}
        self.graded = [
            entry
            for entry in config.benchmarks
            if who.judges and takes_judge(entry.name, entry.protocol)
        ]

    def begin(self) -> None:
        """Make or resume the folder, after a look at everybody and at the data."""
        rubrics = {entry.name: rubric_of(entry.name, entry.rubric) for entry in self.graded}
        for name, rubric in rubrics.items():
            self._check_readout(name, rubric)
        together = self.who.together
        if not (self.out / "manifest.json").is_file():
            for entry in self.config.benchmarks:
                look_at(entry, self.config.max_image_pixels)
            for member in (*self.who.members, *self.who.judges):
                check_member(member)
            if together:
                check_answering(together.panel, together.config)
        settings = {
            **self.config.model_dump(mode="json"),
            "members": [member.model_dump(mode="json") for member in self.who.members],
            "judges": [member.model_dump(mode="json") for member in self.who.judges],
            "panel": together and together.settings(),
            # A rubric's file may change between two calls.
            "rubrics": {name: make_id(found.model_dump_json()) for name, found in rubrics.items()},
        }
        Run.open(self.out, "eval", settings, self.config.seed, self._may_become)

    def _check_readout(self, name: str, rubric: Rubric) -> None:
        """Raises PeeralignError for what a judge would else stop at when all have answered."""
        local = [judge for judge in self.who.judges if not judge.server and not judge.vllm]
        if self.config.readout != "text" and rubric.reason == "first" and local:
            raise PeeralignError(
                f"the rubric of {find(name).title} asks for the reason before the score, "
                f"which the readout '{self.config.readout}' of the local judge '{local[0].name}' "
                'cannot wait for; set readout = "text", or name another rubric'
            )

    def _may_become(self, old: Row, new: Row) -> bool:
        """Whether the folder's tables hold under other settings.

        They do before anybody was asked, and where there are only more members, judges and
        benchmarks than before: every stage belongs to one of each.
        """
        if not (self.out / "predictions").exists():
            return True
        lists = ("benchmarks", "members", "judges")
        old, new = self._placed(old), self._placed(new)
        is_grown = all(entry in new[name] for name in lists for entry in old[name])
        is_grown = is_grown and new["rubrics"].items() >= old["rubrics"].items()
        free = (*lists, "rubrics", "allow_self_judging")
        return is_grown and all(new[key] == old.get(key) for key in new if key not in free)

    def _placed(self, settings: Row) -> Row:
        """The settings, with a run's own members by their places in it: runs are moved."""
        run = self.out.resolve().parent
        inside = {
            Path(m.model).parts[-3:]
            for m in self.who.members
            if m.name in self.who.rounds and Path(m.model).resolve().is_relative_to(run)
        }
        members = [
            {**m, "model": "/".join(tail)} if (tail := Path(m["model"]).parts[-3:]) in inside else m
            for m in settings["members"]
        ]
        return {**settings, "members": members}

    def _items(self, entry: BenchmarkConfig) -> pl.DataFrame:
        """Read once for all members, as far as memory allows."""
        if entry.name in self._held:
            return self._held[entry.name]
        items = chosen_items(entry, self.out, self.config.max_image_pixels)
        if sum(table.estimated_size() for table in (items, *self._held.values())) <= HELD_BYTES:
            self._held[entry.name] = items
        return items

    def ask(
        self, entry: BenchmarkConfig, member: Member, factory: Callable[[Member], Engine]
    ) -> None:
        """Fill the member's predictions."""
        stage = self._predictions(entry, member.name)
        if _are_done(stage):
            return
        sampling = Sampling(max_new_tokens=entry.longest)

        def work(engine: Engine, block: pl.DataFrame) -> pl.DataFrame:
            given = answer_block(engine, as_asked(block), "", sampling, self.config.seed)
            columns = {"question_id": "item_id", "text": "prediction"}
            return given.rename(columns).select(PREDICTION_SCHEMA.names())

        label = f"{member.name}, {find(entry.name).title}"
        size = self.config.block_size
        fill_stage(stage, self._items(entry), size, member, factory, work, self.reporter, label)

    def ask_together(self, together: Together) -> None:
        """Fill the predictions of the panel as one, and of its members with as many draws."""
        todo = [
            (
                entry,
                Asked(partial(self._items, entry), self.out / "panel" / entry.name, entry.longest),
            )
            for entry in self.config.benchmarks
            if not _are_done(*self._stages(entry, together).values())
        ]
        together.fill([asked for _, asked in todo], self.reporter)
        for entry, asked in todo:
            given = together.answer(asked, self.reporter)
            stages = self._stages(entry, together)

            def keep(given: dict[str, pl.DataFrame] = given, stages: Row = stages) -> None:
                for label, stage in stages.items():
                    replies = given[label].select(
                        item_id="question_id",
                        prediction="text",
                        num_tokens=pl.lit(None, pl.Int32),
                        reason="reason",
                    )
                    stage.write_shard(0, replies)
                    stage.finish(questions=len(replies))

            on_main("predictions", keep)

    def _stages(self, entry: BenchmarkConfig, together: Together) -> dict[str, Stage]:
        return {label: self._predictions(entry, label) for label in together.labels()}

    def _predictions(self, entry: BenchmarkConfig, label: str) -> Stage:
        return Stage(self.out / "predictions" / entry.name / label)

    def _replies(self, entry: BenchmarkConfig, label: str) -> dict[str, str | None]:
        table = self._predictions(entry, label).read(PREDICTION_SCHEMA)
        return dict(table.select("item_id", "prediction").iter_rows())

    def _unanswered(self, entry: BenchmarkConfig, label: str) -> dict[str, int]:
        """Why there are no replies, each reason with its count."""
        table = self._predictions(entry, label).read(PREDICTION_SCHEMA)
        lost = table.filter(pl.col("prediction").is_null())
        return reason_counts(lost.with_columns(pl.col("reason").fill_null("no text")))

    def grade(
        self,
        entry: BenchmarkConfig,
        label: str,
        judging: Member,
        factory: Callable[[Member], Engine],
    ) -> None:
        """Fill one judge's verdicts on somebody's predictions."""
        stage = self._judgments(entry, label, judging)
        if _are_done(stage):
            return
        asked = asked_of(self._items(entry))
        replies = {name: text for name, text in self._replies(entry, label).items() if text}
        answers = answers_of(GRADINGS[entry.name], asked, replies)
        rubric = rubric_of(entry.name, entry.rubric)
        judge(
            lambda _: stage,
            asked if rubric.needs_reference else asked.drop("reference"),
            answers,
            Panel((judging.model_copy(update={"judges": True}),)),
            JudgeConfig(
                rubric=entry.rubric or GRADINGS[entry.name].rubric,
                readout=self.config.readout,
                min_label_mass=self.config.min_label_mass,
                block_size=self.config.block_size,
            ),
            factory,
            self.config.seed,
            self.reporter,
        )

    def _judgments(self, entry: BenchmarkConfig, label: str, judging: Member) -> Stage:
        return Stage(self.out / "judgments" / entry.name / label / judging.name)

    def finish(self, self_judging: list[str]) -> dict[str, Any]:
        """Write rows and figures."""
        entries = []
        for entry in self.config.benchmarks:
            facts = facts_of(entry, self.out)
            items = self._items(entry).select("id", "text", "row")
            entries.append(
                {
                    "name": entry.name,
                    "title": find(entry.name).title,
                    **entry.model_dump(include={"protocol", "data", "split", "limit"}),
                    **{key: facts[key] for key in ("layout", "num_set_aside", "reasons")},
                    "members": {
                        label: self._score(entry, label, items) for label in self.who.labels()
                    },
                }
            )
        figures = {
            "benchmarks": entries,
            "members": self.who.labels(),
            "single": [member.name for member in self.who.members] if self.who.together else [],
            "rounds": {name: list(label) for name, label in self.who.rounds.items()},
            "judges": [member.name for member in self.who.judges],
            "self_judging": self_judging,
            "averages": suite.averages(entries),
        }
        write_json(self.out / "figures.json", figures)
        return figures

    def _score(self, entry: BenchmarkConfig, label: str, items: pl.DataFrame) -> dict[str, Any]:
        replies = self._replies(entry, label)
        rows = [
            {"question": text, **json.loads(row), "id": own_id, "prediction": replies.get(own_id)}
            for own_id, text, row in items.iter_rows()
        ]
        lost: list[str] = []
        if entry in self.graded:
            grading, rubric = GRADINGS[entry.name], rubric_of(entry.name, entry.rubric)
            stages = [self._judgments(entry, label, judging) for judging in self.who.judges]
            tables = [stage.read(JUDGMENT_SCHEMA) for stage in stages]
            references = {row["id"]: row.get("reference", row.get("answer")) for row in rows}
            rows, lost = graded_rows(grading, rubric, rows, references, pl.concat(tables))
        grades = grade_rows(entry.name, rows, entry.protocol)
        lines = [
            json.dumps({**row, "graded": g.score, "parsed": g.parsed, "reading": g.reading})
            for row, g in zip(rows, grades, strict=True)
        ]
        path = self.out / "rows" / entry.name / f"{label}.jsonl"
        write_whole(path, "".join(line + "\n" for line in lines).encode())
        # One benchmark without a score must not cost the figures of the others.
        figures = (
            score_rows(entry.name, rows, entry.protocol)
            if rows
            else no_score(entry.name, entry.protocol, "no judge graded a reference answer")
        )
        if unanswered := self._unanswered(entry, label):
            figures["unanswered"] = unanswered
        if entry in self.graded:
            figures["judge"] = ", ".join(judging.name for judging in self.who.judges)
            figures["num_ungraded_references"] = len(lost)
        return figures
