"""Generate: every author answers every question N times."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.engines.base import AnswerRequest, Draw, Engine, Sampling
from peeralign.images.load import MAX_PIXELS, open_image
from peeralign.panel import Panel
from peeralign.progress import Reporter
from peeralign.records import CANDIDATE_SCHEMA, make_id, normalise_answer, seed_of
from peeralign.stages.blocks import EngineFactory, each_apart, fill_stage
from peeralign.store.run import Stage


class GenerateConfig(BaseModel):
    """How answers are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    num_draws: int = Field(default=15, ge=1)
    """Answers N of each member to each question (paper: 15; 1 is st-PoP)."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy. The paper prints none."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: keep the likeliest tokens up to this probability."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens."""
    batch_size: int = Field(default=64, ge=1)
    """Rows (prompts x draws) of one forward pass; the draws of one question run together."""
    block_size: int = Field(default=256, ge=1)
    """Questions a shard; an interrupted run repeats at most one shard."""


def answer_id(question_id: str, text: str) -> str:
    """One id for all answers to a question that are equal after normalising."""
    return make_id("answer", question_id, normalise_answer(text))


def generate(
    stage_of: Callable[[str], Stage],
    questions: pl.DataFrame,
    panel: Panel,
    config: GenerateConfig,
    open_engine: EngineFactory,
    seed: int,
    reporter: Reporter,
    view: str = "clean",
) -> None:
    """Fill `stage_of(author)` with that author's candidates (CANDIDATE_SCHEMA).

    Every draw's seed comes from (seed, question, author, view, draw), so any part of the work can
    be done at any time, in any order, with the same result.
    """
    sampling = Sampling(config.num_draws, config.temperature, config.top_p, config.max_new_tokens)
    for member in panel.authors:

        def work(engine: Engine, block: pl.DataFrame, author: str = member.name) -> pl.DataFrame:
            return answer_block(engine, block, author, sampling, seed, view)

        fill_stage(
            stage_of(member.name),
            questions,
            config.block_size,
            member,
            open_engine,
            work,
            reporter,
            f"{member.name} answers",
        )


def answer_block(
    engine: Engine, block: pl.DataFrame, author: str, sampling: Sampling, seed: int, view: str
) -> pl.DataFrame:
    """One author's candidates for a block of questions."""
    rows = block.select("id", "text", "image").rows()
    requests = [
        AnswerRequest(
            open_image(image, MAX_PIXELS),
            text,
            tuple(
                seed_of("draw", seed, question_id, author, view, draw)
                for draw in range(sampling.num_draws)
            ),
        )
        for question_id, text, image in rows
    ]
    drawn = each_apart(
        lambda some: engine.answer(some, sampling),
        requests,
        lambda reason: [Draw(None, 0, reason)] * sampling.num_draws,
    )
    candidates = [
        {
            "id": make_id("candidate", question_id, author, view, number),
            "question_id": question_id,
            "answer_id": answer_id(question_id, draw.text or ""),
            "author": author,
            "draw": number,
            "view": view,
            "text": draw.text,
            "num_tokens": draw.num_tokens,
            "reason": draw.reason,
        }
        for (question_id, _, _), draws in zip(rows, drawn, strict=True)
        for number, draw in enumerate(draws)
    ]
    return pl.DataFrame(candidates, schema=CANDIDATE_SCHEMA)


def distinct_answers(candidates: pl.DataFrame) -> pl.DataFrame:
    """The answers worth judging: (question_id, answer_id, text, authors), in a fixed order."""
    return (
        candidates.filter(pl.col("text").is_not_null())
        .sort("question_id", "answer_id", "id")
        .group_by("question_id", "answer_id", maintain_order=True)
        .agg(pl.col("text").first(), pl.col("author").unique().sort().alias("authors"))
    )
