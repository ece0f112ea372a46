"""Judge: every judge grades every distinct answer, without knowing who wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.engines.base import Engine, JudgeRequest
from peeralign.images.load import MAX_PIXELS, open_image
from peeralign.judging.rubric import Rubric, load_rubric
from peeralign.judging.verdict import Verdict
from peeralign.panel import Panel
from peeralign.progress import Reporter
from peeralign.records import JUDGMENT_SCHEMA, make_id, seed_of
from peeralign.stages.blocks import EngineFactory, each_apart, fill_stage
from peeralign.store.run import Stage


class JudgeConfig(BaseModel):
    """How answers are judged (absolute scoring)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rubric: str = "five_axis"
    """A shipped rubric's name, or the path of a rubric's TOML file."""
    readout: Literal["text", "greedy", "expected", "random"] = "text"
    """"text": the judge writes its JSON and it is parsed. "greedy": the JSON's known text is fed
    and only the scores are chosen. "expected": the same, each score read as its expectation over
    the scale. "random": a control, scores drawn at random."""
    judges: Literal["all", "others", "self"] = "all"
    """Who judges an answer: every judge, all but its author, or (a control) its author alone."""
    min_label_mass: float = Field(default=0.5, ge=0, le=1)
    """"greedy" and "expected": with less probability than this on scores, a verdict is unscored."""
    batch_size: int = Field(default=64, ge=1)
    """Answers of one forward pass."""
    block_size: int = Field(default=256, ge=1)
    """Questions a shard; an interrupted run repeats at most one shard."""


def judge(
    stage_of: Callable[[str], Stage],
    questions: pl.DataFrame,
    answers: pl.DataFrame,
    panel: Panel,
    config: JudgeConfig,
    open_engine: EngineFactory,
    seed: int,
    reporter: Reporter,
) -> None:
    """Fill `stage_of(judge)` with that judge's verdicts (JUDGMENT_SCHEMA).

    `answers` is the table of `distinct_answers`: equal answers are judged once.
    """
    rubric = load_rubric(config.rubric)
    for member in panel.judges:

        def work(engine: Engine, block: pl.DataFrame, name: str = member.name) -> pl.DataFrame:
            mine = _answers_for(name, answers, config.judges)
            asked = block.join(mine, left_on="id", right_on="question_id", maintain_order="left")
            return judge_block(engine, asked, name, rubric, config, seed)

        fill_stage(
            stage_of(member.name),
            questions,
            config.block_size,
            member,
            open_engine,
            work,
            reporter,
            f"{member.name} judges",
        )


def _answers_for(judge_name: str, answers: pl.DataFrame, who: str) -> pl.DataFrame:
    authors = pl.col("authors")
    kept = {
        "all": pl.lit(True),
        "others": ~(authors.list.contains(judge_name) & (authors.list.len() == 1)),
        "self": authors.list.contains(judge_name),
    }[who]
    return answers.filter(kept).select("question_id", "answer_id", answer="text")


def judge_block(
    engine: Engine,
    asked: pl.DataFrame,
    judge_name: str,
    rubric: Rubric,
    config: JudgeConfig,
    seed: int,
) -> pl.DataFrame:
    """One judge's verdicts on a block of (question, answer) rows."""
    rows = asked.select("id", "text", "image", "answer_id", "answer").rows()
    readout = config.readout
    if readout == "random":
        verdicts = [_random_verdict(rubric, seed, row[3], judge_name) for row in rows]
    else:
        images = {row[0]: open_image(row[2], MAX_PIXELS) for row in rows}
        requests = [JudgeRequest(images[row[0]], rubric.fill(row[1], row[4])) for row in rows]
        verdicts = each_apart(
            lambda some: engine.judge(some, rubric, readout),
            requests,
            lambda reason: Verdict(None, reason, ""),
        )
    judgments = [
        {
            "id": make_id("judgment", row[3], judge_name),
            "question_id": row[0],
            "answer_id": row[3],
            "judge": judge_name,
            "score": None if verdict.axes is None else rubric.reward(verdict.axes),
            "axes": verdict.axes,
            "label_mass": verdict.label_mass,
            "reason": verdict.reason,
            "raw": verdict.raw,
        }
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    return pl.DataFrame(judgments, schema=JUDGMENT_SCHEMA)


def _random_verdict(rubric: Rubric, seed: int, answer: str, judge_name: str) -> Verdict:
    rng = np.random.default_rng(seed_of("random verdict", seed, answer, judge_name))
    axes = rng.integers(rubric.scale[0], rubric.scale[1] + 1, size=len(rubric.axes)).tolist()
    return Verdict([float(axis) for axis in axes], None, rubric.verdict(axes))
