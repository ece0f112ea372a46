"""Panel of Peers, as in the paper's section 3: answer, judge each other, learn, repeat.

for each round:
    questions  = draw(pool)
    candidates = every author answers every question N times
    judgments  = every judge grades every distinct answer
    rewards    = the judges' scores, merged
    pairs      = each question's best and worst answer, if good and far apart enough
    members    = every learner, trained on the same pairs with SimPO
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from peeralign.distributed import on_main
from peeralign.engines.base import Engine
from peeralign.panel import Member, Panel, check_panel
from peeralign.progress import Reporter
from peeralign.recipes.loop import Loop, LoopConfig, carry_out
from peeralign.records import CANDIDATE_SCHEMA, JUDGMENT_SCHEMA
from peeralign.stages.aggregate import AggregateConfig, aggregate
from peeralign.stages.curate import CurateConfig, curate
from peeralign.stages.generate import GenerateConfig, check_sampler, distinct_answers, generate
from peeralign.stages.judge import JudgeConfig, judge, read_rubric
from peeralign.store.run import Run
from peeralign.training.config import TrainConfig


class PopConfig(LoopConfig):
    """Settings of Panel of Peers. Defaults are the paper's wherever it prints a number."""

    rounds: int = Field(default=3, ge=1)
    """Rounds T (paper: 3; gains flatten after that)."""
    questions_per_round: int = Field(default=1_000_000, ge=1)
    """Questions drawn from the pool each round (paper: 1,000,000); a smaller pool is used whole."""
    wave_questions: int | None = Field(default=None, ge=1)
    """With curate.max_pairs: answer and judge this many questions at a time, and stop the round
    as soon as there are enough pairs."""
    generate: GenerateConfig = GenerateConfig()
    """How answers are drawn."""
    judge: JudgeConfig = JudgeConfig()
    """How answers are judged."""
    aggregate: AggregateConfig = AggregateConfig()
    """How the judges' scores are merged."""
    curate: CurateConfig = CurateConfig()
    """Which pairs are kept."""
    train: TrainConfig = TrainConfig()
    """How members learn."""


Config = PopConfig


def run(config: PopConfig, out: Path | str, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run, or resume, Panel of Peers in the folder `out`. Returns the summary (summary.json).

    Processes of one launcher (torchrun) share the work. Raises PeeralignError for settings, pools,
    members or folders that cannot be used.
    """
    return carry_out(
        lambda state, shown: _Loop(config, state, shown),
        lambda: _check(config),
        config.rounds,
        out,
        reporter,
    )


def _check(config: PopConfig) -> None:
    from peeralign.engines.opening import check_member

    check_panel(config.members)
    read_rubric(config.judge)
    check_sampler(config.generate, config.members)
    for member in config.members:
        check_member(member)


class _Loop(Loop):
    """One run of Panel of Peers."""

    def __init__(self, config: PopConfig, state: Run, reporter: Reporter) -> None:
        super().__init__("pop", config, state, reporter)
        self.config = config

    def round(self, number: int, panel: Panel) -> Panel:
        """One round: tables from questions to pairs, then new checkpoints."""
        self.reporter.say(f"[bold]Round {number} of {self.config.rounds}[/bold]")
        if not on_main("look for pairs", lambda: self.state.stage(number, "pairs").is_done):
            self._make_pairs(number, panel)
        rows = self.lessons(number, self.config.curate, self.config.train.keep_pairs)
        if rows.is_empty():
            self.reporter.say(
                "no pair reached both thresholds, so members keep their weights; the report shows "
                "how many pairs other thresholds would give"
            )
        return self.learn(number, panel, self.config.train, lambda member: rows)

    def _make_pairs(self, number: int, panel: Panel) -> None:
        config, state = self.config, self.state
        questions = self.draw(number, config.questions_per_round)
        wave = config.wave_questions if config.curate.max_pairs else None
        # A wave ends where blocks of both stages end, so that no shard is written half full.
        block = math.lcm(config.generate.block_size, config.judge.block_size)
        step = -(-(wave or len(questions)) // block) * block
        asked = 0
        made = {"rewards": pl.DataFrame(), "pairs": pl.DataFrame()}

        def is_enough() -> bool:
            made["rewards"] = self._rewards(number, questions.head(asked))
            made["pairs"] = curate(made["rewards"], config.curate)
            return len(made["pairs"]) == config.curate.max_pairs

        def keep() -> None:
            for name, table in made.items():
                stage = state.stage(number, name)
                stage.write_shard(0, table)
                stage.finish(rows=len(table))

        while asked < len(questions):
            asked = min(asked + step, len(questions))
            self._ask(number, panel, questions.head(asked))
            if on_main("rewards", is_enough):
                break
        on_main("pairs", keep)

    def _ask(self, number: int, panel: Panel, questions: pl.DataFrame) -> None:
        """Authors answer the questions, judges grade the answers."""
        config, state = self.config, self.state
        with self.clock(number, "generate"):
            generate(
                lambda name: state.stage(number, "candidates", name),
                questions,
                panel,
                config.generate,
                self.engine,
                config.seed + number,
                self.reporter,
            )
        candidates = self._about(number, "candidates", CANDIDATE_SCHEMA, questions)
        with self.clock(number, "judge"):
            judge(
                lambda name: state.stage(number, "judgments", name),
                questions,
                distinct_answers(candidates),
                panel,
                config.judge,
                self.engine,
                config.seed + number,
                self.reporter,
            )

    def _rewards(self, number: int, questions: pl.DataFrame) -> pl.DataFrame:
        config = self.config
        candidates = self._about(number, "candidates", CANDIDATE_SCHEMA, questions)
        judgments = self._about(number, "judgments", JUDGMENT_SCHEMA, questions)
        return aggregate(candidates, judgments, config.aggregate, config.judge.judges, questions)

    def _about(
        self, number: int, name: str, schema: pl.Schema, questions: pl.DataFrame
    ) -> pl.DataFrame:
        # An interrupted run may have begun the next wave; its half-judged answers do not count yet.
        asked = pl.col("question_id").is_in(questions["id"].implode())
        return self.state.table(number, name, schema).filter(asked)

    def engine(self, member: Member) -> Engine:
        from peeralign.engines.opening import open_engine

        return open_engine(member, self.config.judge.min_label_mass)
