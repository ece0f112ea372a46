"""What every recipe does around its own steps: draw questions, train, examine, sum up.

A round's tables lie in the run's folder; what is there is not made again, so the same command goes
on with an interrupted run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.describing.prompts import load_prompts
from peeralign.distributed import is_main, meet, on_main
from peeralign.engines.base import Engine
from peeralign.errors import PeeralignError
from peeralign.evals.exam import read_exam, sit_exam, skill_scores
from peeralign.evals.overlap import map_images
from peeralign.panel import Describe, Member, Panel, Server, VllmWorker
from peeralign.progress import Reporter
from peeralign.records import (
    CANDIDATE_SCHEMA,
    EXAM_SCHEMA,
    JUDGMENT_SCHEMA,
    PAIR_SCHEMA,
    QUESTION_SCHEMA,
    REWARD_SCHEMA,
)
from peeralign.stages.contrast import KINDS, contrast
from peeralign.stages.curate import CurateConfig, anchors
from peeralign.stages.generate import GenerateConfig, as_asked, generate
from peeralign.stages.train import pair_rows, train_member
from peeralign.store.questions import PoolConfig, check_images, draw_questions, read_pool
from peeralign.store.run import Run, Stage, write_json
from peeralign.training.config import HOW_NOT_WHAT as TRAIN_HOW_NOT_WHAT
from peeralign.training.config import TrainConfig

CONFIG = "config.json"
# Settings that change how fast and where, not what: a run may be resumed with others.
HOW_NOT_WHAT: Any = {
    "train": TRAIN_HOW_NOT_WHAT,
    # A table more changes no other one.
    "exam": {"overlap"},
    "members": {
        "__all__": {
            "device": True,
            "memory_gib": True,
            "server": set(Server.model_fields) - {"extra_body"},
            "vllm": set(VllmWorker.model_fields) - {"adapter", "max_model_len"},
        }
    },
}


class ExamConfig(BaseModel):
    """The exam that members sit before the first and after every round."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str | None = None
    """Parquet file with columns id, image, text, answer, skill, category; left out, no exam."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest exam answer, in tokens."""
    describe: Describe | None = None
    """Let every member sit it a second time, describing each image first."""
    overlap: bool = False
    """Map its images among the training images, as each member's vision tower sees them (STIC)."""


class LoopConfig(BaseModel):
    """Settings that all recipes have."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(default=0, ge=0)
    """Seed of everything drawn; the same seed and settings give the same tables and weights."""
    members: tuple[Member, ...]
    """The models that take part."""
    pool: PoolConfig
    """Where the questions come from."""
    exam: ExamConfig = ExamConfig()
    """How members are examined."""


class Loop:
    """One run's state: settings, folder, exam, and the pool while questions are still drawn."""

    def __init__(self, recipe: str, config: LoopConfig, state: Run, reporter: Reporter) -> None:
        self.recipe = recipe
        self.settings = config
        self.state = state
        self.reporter = reporter
        self._pool: pl.DataFrame | None = None
        self._set_aside = pl.DataFrame()
        self.exam = read_exam(config.exam.path) if config.exam.path else None
        if config.exam.describe:
            load_prompts(config.exam.describe.prompts)

    def rounds_that_draw(self, rounds: int) -> range:
        """Which rounds take questions from the pool."""
        return range(1, rounds + 1)

    def begin(self, drawing: range) -> None:
        """Read the pool, unless the rounds `drawing` questions have them; make the folder."""
        config = self.settings
        if not all(self.state.stage(number, "questions").is_done for number in drawing):
            self._pool, self._set_aside = read_pool(config.pool)
        settings = config.model_dump(mode="json", exclude=self.how_not_what())
        Run.open(self.state.folder, self.recipe, settings, config.seed)
        # All of it, with what may differ between attempts: an examination later starts from here.
        write_json(self.state.folder / CONFIG, config.model_dump(mode="json"))

    def how_not_what(self) -> Any:
        """Settings, as pydantic's `exclude` takes them, that a resumed run may have changed."""
        return HOW_NOT_WHAT

    def questions(self, number: int) -> pl.DataFrame:
        """The questions of a round, which were drawn before."""
        return self.state.stage(number, "questions").read(QUESTION_SCHEMA)

    def draw(
        self,
        number: int,
        count: int,
        prepare: Callable[[pl.DataFrame], pl.DataFrame] = lambda pool: pool,
    ) -> pl.DataFrame:
        """Draw a round's questions, unless that is done; `prepare` is applied to the pool."""
        stage = self.state.stage(number, "questions")

        def keep() -> None:
            if not stage.is_done:
                self._draw(number, stage, count, prepare)

        on_main("questions", keep)
        return self.questions(number)

    def _draw(
        self,
        number: int,
        stage: Stage,
        count: int,
        prepare: Callable[[pl.DataFrame], pl.DataFrame],
    ) -> None:
        pool = self.settings.pool
        assert self._pool is not None
        drawn = draw_questions(prepare(self._pool), count, pool.shares, self.settings.seed, number)
        usable, broken = check_images(drawn, pool.max_image_pixels)
        lost = pl.concat([self._set_aside, broken])
        reasons = dict(lost.group_by("reason").len().sort("reason").iter_rows())
        stage.write_shard(0, usable)
        stage.finish(questions=len(usable), set_aside=len(lost), reasons=reasons)
        if len(lost):
            self.reporter.say(f"{len(lost)} questions set aside; the reasons are in {stage.done}")
        if usable.is_empty():
            raise PeeralignError(
                f"no question of {pool.path} has an image that can be used; "
                f"the reasons are in {stage.done}"
            )

    def learn(
        self,
        number: int,
        panel: Panel,
        config: TrainConfig,
        lessons: Callable[[Member], pl.DataFrame],
    ) -> Panel:
        """Train every learner on its `lessons` (see `train_member`); the panel after that."""
        checkpoints = {}
        with self.clock(number, "train"):
            for member in panel.learners:
                checkpoints[member.name] = train_member(
                    self.state,
                    number,
                    member,
                    lessons(member),
                    config,
                    self.settings.seed,
                    self.reporter,
                )
        return panel.after(checkpoints)

    def answer(
        self,
        number: int,
        panel: Panel,
        config: GenerateConfig,
        views: Callable[[pl.DataFrame], pl.DataFrame] = as_asked,
    ) -> None:
        """Every learner answers the round's questions (see `generate`)."""
        learners = tuple(m.model_copy(update={"answers": True}) for m in panel.learners)
        with self.clock(number, "generate"):
            generate(
                lambda name: self.state.stage(number, "candidates", name),
                self.questions(number),
                Panel(learners),
                config,
                self.engine,
                self.settings.seed + number,
                self.reporter,
                views,
            )

    def lessons(
        self, number: int, config: CurateConfig, keep_pairs: bool, member: str = ""
    ) -> pl.DataFrame:
        """The pairs and anchors of a round, or with `keep_pairs` of all rounds so far.

        They are the member's own, if one is named.
        """
        rounds = []
        for past in range(1 if keep_pairs else number, number + 1):
            pairs = self.state.stage(past, "pairs", member).read(PAIR_SCHEMA)
            rewards = self.state.stage(past, "rewards", member).read(REWARD_SCHEMA)
            agreed = anchors(rewards, pairs, config)
            rounds.append(pair_rows(self.questions(past), pairs, agreed))
        return pl.concat(rounds)

    def contrasted(self, number: int, member: Member, chosen_view: str) -> pl.DataFrame:
        """The member's pairs of a round, between its own answers (see `contrast`)."""
        stage = self.state.stage(number, "pairs", member.name)

        def keep() -> None:
            if stage.is_done:
                return
            candidates = self.state.stage(number, "candidates", member.name).read(CANDIDATE_SCHEMA)
            pairs, counts = contrast(candidates, chosen_view)
            stage.write_shard(0, pairs)
            stage.finish(rows=len(pairs), views=counts)
            total = {kind: sum(view[kind] for view in counts.values()) for kind in KINDS}
            self.reporter.say(
                f"{member.name}: {total['pairs']} pairs; left out: {total['equal']} with equal "
                f"answers, {total['repeated']} repeated, {total['unanswered']} unanswered"
            )

        on_main("pairs", keep)
        return stage.read(PAIR_SCHEMA)

    def round(self, number: int, panel: Panel) -> Panel:
        """One round, from questions to the panel with new weights."""
        raise NotImplementedError

    def engine(self, member: Member) -> Engine:
        """The member, loaded."""
        from peeralign.engines.opening import open_engine

        return open_engine(member)

    def examine(self, number: int, panel: Panel) -> None:
        """Every member sits the exam, if there is one."""
        if self.exam is None:
            return
        with self.clock(number, "exam"):
            self.sit(self.exam, lambda kind, name: self.state.stage(number, kind, name), panel)

    def sit(self, exam: pl.DataFrame, stage_of: Callable[[str, str], Stage], panel: Panel) -> None:
        """Every member of `panel` sits `exam`; `stage_of` takes "exam" or "exam-described"."""
        config = self.settings.exam
        describing = Panel(
            tuple(m.model_copy(update={"describe": config.describe}) for m in panel.members)
        )
        for kind, members in (("exam", panel), ("exam-described", describing)):
            if kind == "exam" or config.describe:
                sit_exam(
                    lambda name, kind=kind: stage_of(kind, name),
                    exam,
                    members,
                    self.engine,
                    config.max_new_tokens,
                    self.reporter,
                )

    def map_images(self) -> None:
        """Map the exam's images among round 1's, once for each member, if that is asked for."""
        if self.exam is None or not self.settings.exam.overlap:
            return
        stages = partial(self.state.stage, 1, "overlap")
        tables = (self.questions(1), self.exam)
        others = (self.settings.members, self.settings.seed, self.reporter)
        with self.clock(1, "overlap"):
            on_main("overlap", lambda: map_images(stages, *tables, *others))

    @contextmanager
    def clock(self, number: int, stage: str) -> Iterator[None]:
        """Adds the time inside to the round's `stage`, in a file: a resumed run's adds up."""
        start = time.perf_counter()
        yield
        if not is_main():
            return
        clock = self.state.round_folder(number) / "seconds.json"
        seconds = read_json(clock)
        seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 2)
        write_json(clock, seconds)

    def summarise(self, last_round: int) -> dict[str, Any]:
        """Write and return summary.json for the rounds so far."""
        return on_main("summary", lambda: self._summarise(last_round))

    def _summarise(self, last_round: int) -> dict[str, Any]:
        manifest = self.state.manifest()
        rounds = [self._summary_of(number) for number in range(last_round + 1)]
        summary = {
            "recipe": manifest["recipe"],
            "settings_digest": manifest["settings_digest"],
            "seed": self.settings.seed,
            "seconds": round(sum(sum(entry["seconds"].values()) for entry in rounds), 1),
            "rounds": rounds,
        }
        write_json(self.state.folder / "summary.json", summary)
        return summary

    def _summary_of(self, number: int) -> dict[str, Any]:
        scores: dict[str, Any] = {"panel_mean": None, "members": {}}
        if self.exam is not None:
            scores = self.scores(lambda kind, name: self.state.stage(number, kind, name))
        return {
            "round": number,
            **scores,
            "counts": self.counts(number),
            "seconds": read_json(self.state.round_folder(number) / "seconds.json"),
        }

    def scores(self, stage_of: Callable[[str, str], Stage]) -> dict[str, Any]:
        """{"panel_mean", "members": {name: `skill_scores`}} of an exam, and "described"."""

        def of(kind: str) -> dict[str, Any]:
            names = [member.name for member in self.settings.members]
            return {name: skill_scores(stage_of(kind, name).read(EXAM_SCHEMA)) for name in names}

        members = of("exam")
        mean = sum(entry["mean"] for entry in members.values()) / len(members)
        described = {"described": of("exam-described")} if self.settings.exam.describe else {}
        return {"panel_mean": round(mean, 6), "members": members, **described}

    def counts(self, number: int) -> dict[str, int]:
        """Rows of the round's tables."""
        state = self.state
        judgments = state.table(number, "judgments", JUDGMENT_SCHEMA)
        return {
            "questions": len(state.table(number, "questions", QUESTION_SCHEMA)),
            "candidates": len(state.table(number, "candidates", CANDIDATE_SCHEMA)),
            "judgments": len(judgments),
            "unscored": int(judgments["score"].null_count()),
            "pairs": len(state.table(number, "pairs", PAIR_SCHEMA)),
        }


def carry_out(
    make: Callable[[Run, Reporter], Loop],
    check: Callable[[], None],
    rounds: int,
    out: Path | str,
    reporter: Reporter | None,
) -> dict[str, Any]:
    """Examine the members, then carry out `rounds` rounds with an exam after each.

    `check` comes before the folder is made: a mistake must not look like other settings. Processes
    of one launcher (torchrun) share the work. Returns the summary (summary.json).
    """
    Run.check_usable(Path(out))
    with meet(Path(out)):
        on_main("checks", check)
        loop = make(Run(Path(out)), reporter or Reporter())
        on_main("beginning", lambda: loop.begin(loop.rounds_that_draw(rounds)))
        panel = Panel(loop.settings.members)
        loop.examine(0, panel)
        for number in range(1, rounds + 1):
            panel = loop.round(number, panel)
            loop.examine(number, panel)
            if number == 1:
                loop.map_images()
            loop.summarise(number)
        return loop.summarise(rounds)


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}
