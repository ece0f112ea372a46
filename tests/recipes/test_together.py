"""A panel's replies beside those of its members, from the same draws and verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes.answer import AnswerConfig
from peeralign.recipes.together import Asked, Together
from peeralign.records import QUESTION_SCHEMA
from peeralign.stages.generate import GenerateConfig
from peeralign.stages.judge import JudgeConfig

ADA, BEN = (Member(name=name, model=f"classroom:{name}") for name in ("ada", "ben"))


def together(*members: Member, judges: Any = "all", **generate: Any) -> Together:
    judge = JudgeConfig(rubric="classroom", readout="expected", judges=judges)
    drawn = GenerateConfig(**{"num_draws": 3, **generate})
    return Together(Panel(members), AnswerConfig(generate=drawn, judge=judge), 0)


def test_who_has_replies() -> None:
    senior = BEN.model_copy(update={"name": "senior", "answers": False})
    silent = BEN.model_copy(update={"name": "silent", "judges": False})
    assert together(ADA, senior, silent).labels() == ["panel", "ada-best-of-3"]
    assert together(ADA, BEN, judges="others").labels() == ["panel"]
    assert together(ADA, sampler="greedy").labels() == ["panel", "ada-best-of-1"]


@pytest.fixture(scope="module")
def items(scenes: list[dict[str, Any]]) -> pl.DataFrame:
    rows = [(f"i{n}", "how many circles?", "all", s["image"]) for n, s in enumerate(scenes[:4])]
    return pl.DataFrame(rows, schema=QUESTION_SCHEMA, orient="row")


def test_best_of_one_is_what_a_panel_of_one_says(items: pl.DataFrame, tmp_path: Path) -> None:
    def asked(name: str) -> Asked:
        return Asked(lambda: items, tmp_path / name, 4)

    both = together(ADA, BEN).answer(asked("both"), Reporter())
    alone = together(BEN).answer(asked("alone"), Reporter())
    assert both["ben-best-of-3"].equals(alone["panel"])
    assert alone["ben-best-of-3"].equals(alone["panel"])
    assert set(both["panel"]["authors"].explode()) <= {"ada", "ben"}


def test_what_it_depends_on_is_in_the_settings() -> None:
    settings = together(ADA, BEN).settings()
    assert [member["name"] for member in settings["members"]] == ["ada", "ben"]
    assert settings["generate"]["num_draws"] == 3
    assert settings["seed"] == 0
