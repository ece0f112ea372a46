"""A panel's replies to a benchmark, and its members' best ones of their own draws.

FOLDER/candidates/AUTHOR, judgments/JUDGE    the tables of `recipes.answer`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from peeralign.engines.base import Engine
from peeralign.engines.opening import kept_open, open_engine
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes.answer import (
    AnswerConfig,
    best_answers,
    draw_answers,
    judge_answers,
    panel_answers,
    weighed_answers,
)
from peeralign.records import CANDIDATE_SCHEMA, QUESTION_SCHEMA
from peeralign.store.run import Stage

PANEL = "panel"


class Asked(NamedTuple):
    """What a panel is asked: a benchmark's items when they are needed, and where its tables lie."""

    items: Callable[[], pl.DataFrame]
    folder: Path
    max_new_tokens: int

    def stage(self, kind: str, name: str) -> Stage:
        return Stage(self.folder / kind / name)


@dataclass(frozen=True)
class Together:
    """A panel that answers as one, as `recipes.answer.panel_from` gives it."""

    panel: Panel
    config: AnswerConfig
    seed: int

    def labels(self) -> list[str]:
        """ "panel", and for each author that may judge itself the best of its own draws."""
        return [PANEL, *(self._alone(name) for name in self._self_judged())]

    def fill(self, benchmarks: Sequence[Asked], reporter: Reporter) -> None:
        """All draws and verdicts: a member is loaded once to answer and once to judge."""
        for author in self.panel.authors:
            with kept_open(self._open) as factory:
                for asked in benchmarks:
                    shared = (self._config(asked), factory, self.seed, reporter)
                    draw_answers(asked.stage, asked.items(), Panel((author,)), *shared)
        for judging in self.panel.judges:
            with kept_open(self._open) as factory:
                for asked in benchmarks:
                    shared = (self._config(asked), factory, self.seed, reporter)
                    who = (self.panel, Panel((judging,)))
                    judge_answers(asked.stage, asked.items(), *who, *shared)

    def answer(self, asked: Asked, reporter: Reporter) -> dict[str, pl.DataFrame]:
        """Label -> its replies (ANSWERED_SCHEMA), from the same draws and verdicts."""
        config = self._config(asked)
        questions = asked.items().select(QUESTION_SCHEMA.names())
        shared = (self._open, self.seed, reporter)
        found = {PANEL: panel_answers(asked.stage, questions, self.panel, config, *shared)}
        for name in self._self_judged():
            # One author that judges itself: the tables are there, only the others' rows are not.
            alone = Panel(tuple(m for m in self.panel.members if m.name == name))
            weighed = weighed_answers(asked.stage, questions, alone, config)
            drawn = asked.stage("candidates", name).read(CANDIDATE_SCHEMA)
            found[self._alone(name)] = best_answers(questions, drawn, weighed, config, self.seed)
        return found

    def _config(self, asked: Asked) -> AnswerConfig:
        changed = {"max_new_tokens": asked.max_new_tokens}
        generate = self.config.generate.model_copy(update=changed)
        return self.config.model_copy(update={"generate": generate})

    def _open(self, member: Member) -> Engine:
        return open_engine(member, self.config.judge.min_label_mass)

    def settings(self) -> dict[str, Any]:
        """What the replies depend on, for a manifest."""
        members = [member.model_dump(mode="json") for member in self.panel.members]
        return {"members": members, "seed": self.seed, **self.config.model_dump(mode="json")}

    def _self_judged(self) -> list[str]:
        if self.config.judge.judges == "others":
            return []
        return [member.name for member in self.panel.authors if member.judges]

    def _alone(self, name: str) -> str:
        return f"{name}-best-of-{self.config.generate.sampling().num_draws}"
