"""Judge: every judge grades every distinct answer, without knowing who wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.engines.base import Engine, JudgeRequest, Readout
from peeralign.errors import PeeralignError
from peeralign.escape import without_surrogates
from peeralign.images.load import MAX_PIXELS, open_image
from peeralign.judging.relative import groups_of, merge_groups, worths
from peeralign.judging.rubric import Rubric, load_rubric
from peeralign.judging.verdict import Verdict
from peeralign.panel import Panel
from peeralign.progress import Reporter
from peeralign.records import JUDGMENT_SCHEMA, make_id, seed_of
from peeralign.stages.blocks import EngineFactory, fill_stage, in_parts
from peeralign.store.run import Stage


class JudgeConfig(BaseModel):
    """How answers are judged; the rubric says whether singly, together or in pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rubric: str = "five_axis"
    """A shipped rubric's name, or the path of a rubric's TOML file."""
    readout: Literal["text", "greedy", "expected", "random"] = "text"
    """"text": the judge writes its verdict and it is parsed. "greedy": the verdict's known text is
    fed and only the scores are chosen. "expected": the same, each score read as its expectation
    over the scale. "random": a control, scores drawn at random. "text" is needed for a ranking, for
    scores that are not one token, and locally where the reason comes first."""
    judges: Literal["all", "others", "self"] = "all"
    """Who judges an answer: every judge, all but its author, or (a control) its author alone."""
    min_label_mass: float = Field(default=0.5, ge=0, le=1)
    """"greedy" and "expected": with less probability than this on scores, a verdict is unscored."""
    answers_per_call: int = Field(default=8, ge=2, le=26)
    """Relative rubrics: most answers one call shows."""
    shared_answers: int = Field(default=2, ge=1)
    """Relative rubrics: answers that neighbouring calls share when there are more than that."""
    orders: Literal["both", "one"] = "both"
    """Pairwise rubrics: show two answers in both orders, so that a judge's liking for what stands
    first cancels, or in the given order alone."""
    block_size: int = Field(default=256, ge=1)
    """Questions a shard; an interrupted run repeats at most one shard."""


ONE_BY_ONE = ("absolute", "relative", "ranking")


def read_rubric(
    config: JudgeConfig, kinds: tuple[str, ...] = ONE_BY_ONE, has_reference: bool = False
) -> Rubric:
    """The rubric of these settings. Raises PeeralignError if they do not go together.

    It must be one of `kinds`, and may ask for a reference answer only if there are any.
    """
    rubric = load_rubric(config.rubric)
    if rubric.kind not in kinds:
        raise PeeralignError(
            f"rubric '{config.rubric}' is {rubric.kind}, and needed here is one that is "
            f"{' or '.join(kinds)}; set judge.rubric to such a one"
        )
    if rubric.needs_reference and not has_reference:
        raise PeeralignError(
            f"rubric '{config.rubric}' shows the judge a reference answer, and there is none here; "
            "use a rubric without {reference}, or `peeralign judge` on a file with references"
        )
    if rubric.kind == "ranking" and config.readout != "text":
        # Nor can places be drawn at random one by one: no two answers may get the same.
        raise PeeralignError(
            f"rubric '{config.rubric}' asks for a ranking, whose places cannot be read one by one; "
            'set judge.readout = "text"'
        )
    if rubric.kind in ("relative", "ranking") and config.shared_answers >= config.answers_per_call:
        raise PeeralignError(
            f"judge.shared_answers is {config.shared_answers} and judge.answers_per_call is "
            f"{config.answers_per_call}; calls must share fewer answers than they show"
        )
    return rubric


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

    `answers` is the table of `distinct_answers`: equal answers are judged once. `questions` may
    have a column `reference`, for rubrics that show one.
    """
    rubric = read_rubric(config, has_reference="reference" in questions.columns)
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question, and the answers that one judge is to grade."""

    question_id: str
    text: str
    image: dict[str, Any]
    reference: str | None
    answer_ids: list[str]
    answers: list[str]


def judge_block(
    engine: Engine,
    asked: pl.DataFrame,
    judge_name: str,
    rubric: Rubric,
    config: JudgeConfig,
    seed: int,
) -> pl.DataFrame:
    """One judge's verdicts on a block of (question, answer) rows."""
    if "reference" not in asked.columns:
        asked = asked.with_columns(reference=pl.lit(None, pl.String))
    grouped = asked.group_by("id", maintain_order=True).agg(
        pl.col("text", "image", "reference").first(), pl.col("answer_id", "answer")
    )
    questions = [_Asked(*row) for row in grouped.rows()]
    if config.readout == "random":
        graded = [[_random(rubric, seed, a, judge_name) for a in q.answer_ids] for q in questions]
    elif rubric.kind == "absolute":
        graded = _absolute(engine, questions, rubric, config.readout)
    else:
        seeds = [seed_of("order", seed, q.question_id, judge_name) for q in questions]
        graded = _relative(engine, questions, rubric, config, seeds)
    judgments = [
        {
            "id": make_id("judgment", answer_id, judge_name),
            "question_id": question.question_id,
            "answer_id": answer_id,
            "judge": judge_name,
            "score": score,
            "axes": verdict.axes,
            "label_mass": verdict.label_mass,
            "reason": verdict.reason,
            "raw": without_surrogates(verdict.raw),
        }
        for question, verdicts in zip(questions, graded, strict=True)
        for answer_id, (score, verdict) in zip(question.answer_ids, verdicts, strict=True)
    ]
    return pl.DataFrame(judgments, schema=JUDGMENT_SCHEMA)


Graded = tuple[float | None, Verdict]


def _absolute(
    engine: Engine, questions: list[_Asked], rubric: Rubric, readout: Readout
) -> list[list[Graded]]:
    requests = (
        JudgeRequest(
            open_image(question.image, MAX_PIXELS),
            tuple(rubric.fill(question.text, question.answers, question.reference)),
            rubric.form(),
        )
        for question in questions
    )
    return [
        [(None if v.axes is None else rubric.reward(v.axes), v) for v in verdicts]
        for verdicts in ask_judge(engine, requests, readout)
    ]


def _relative(
    engine: Engine,
    questions: list[_Asked],
    rubric: Rubric,
    config: JudgeConfig,
    seeds: list[int],
) -> list[list[Graded]]:
    assert config.readout != "random"
    calls = [
        (place, group)
        for place, (question, seed) in enumerate(zip(questions, seeds, strict=True))
        for group in groups_of(
            len(question.answers), config.answers_per_call, config.shared_answers, seed
        )
    ]
    requests = (
        JudgeRequest(
            open_image(questions[place].image, MAX_PIXELS),
            (_together(rubric, questions[place], group),),
            rubric.form(len(group)),
        )
        for place, group in calls
    )
    replies: list[list[tuple[list[int], Verdict]]] = [[] for _ in questions]
    for (place, group), (verdict,) in zip(
        calls, ask_judge(engine, requests, config.readout), strict=True
    ):
        replies[place].append((group, verdict))
    return [
        _spread(found, len(question.answers), rubric)
        for question, found in zip(questions, replies, strict=True)
    ]


def _together(rubric: Rubric, question: _Asked, group: list[int]) -> str:
    return rubric.fill_together(question.text, [question.answers[number] for number in group])


def _spread(
    replies: list[tuple[list[int], Verdict]], num_answers: int, rubric: Rubric
) -> list[Graded]:
    """Every answer's verdict from the verdicts of the calls that showed it."""
    values = merge_groups(
        [group for group, _ in replies], [verdict.axes for _, verdict in replies], num_answers
    )
    graded: list[Graded] = []
    for number, score in enumerate(worths(values, rubric)):
        about = [verdict for group, verdict in replies if number in group]
        raw = "\n".join(verdict.raw for verdict in about)
        masses = [verdict.label_mass for verdict in about if verdict.label_mass is not None]
        mass = min(masses) if masses else None
        value = values[number]
        if value is None:
            graded.append((None, Verdict(None, about[0].reason, raw, mass)))
        else:
            graded.append((score, Verdict([value], None, raw, mass)))
    return graded


def ask_judge(
    engine: Engine, requests: Iterable[JudgeRequest], readout: Readout
) -> list[list[Verdict]]:
    """All verdicts; what breaks a batch is found by asking by question, then by answer."""

    def apart(request: JudgeRequest, reason: str) -> list[Verdict]:
        if len(request.texts) == 1:
            return [Verdict(None, reason, "")]
        singles = [replace(request, texts=(text,)) for text in request.texts]
        return [verdict for verdicts in ask_judge(engine, singles, readout) for verdict in verdicts]

    return in_parts(lambda some: engine.judge(some, readout), requests, apart)


def _random(rubric: Rubric, seed: int, answer: str, judge_name: str) -> Graded:
    rng = np.random.default_rng(seed_of("random verdict", seed, answer, judge_name))
    form = rubric.form()
    scores = rng.integers(form.scale[0], form.scale[1] + 1, size=len(form.axes)).tolist()
    axes = [float(score) for score in scores]
    return rubric.reward(axes), Verdict(axes, None, form.write(scores))
