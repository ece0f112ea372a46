"""The panel as an answerer (Panel of Peers, section 5.2): answer, judge, and give the best answer.

Nobody is trained. Every author answers every question N times, every judge judges every distinct
answer, and the answer with the highest merged reward is the panel's. Roles make the other ways to
choose among N answers: one author judged by itself, or one author judged by all.

    FOLDER/candidates/AUTHOR/part-*.parquet     answers
    FOLDER/judgments/JUDGE/part-*.parquet       verdicts; comparisons/ for pairwise rubrics
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.config import build, override, read_toml
from peeralign.errors import PeeralignError, nearest
from peeralign.panel import Member, Panel, check_panel
from peeralign.progress import Reporter
from peeralign.recipes.afterwards import members_after
from peeralign.recipes.loop import CONFIG, read_json
from peeralign.records import (
    CANDIDATE_SCHEMA,
    COMPARISON_SCHEMA,
    JUDGMENT_SCHEMA,
    QUESTION_SCHEMA,
    seed_of,
)
from peeralign.stages.aggregate import AggregateConfig, aggregate
from peeralign.stages.blocks import EngineFactory
from peeralign.stages.compare import compare
from peeralign.stages.generate import GenerateConfig, check_sampler, distinct_answers, generate
from peeralign.stages.judge import ONE_BY_ONE, JudgeConfig, judge, read_rubric
from peeralign.stages.preference_rewards import all_pairs, preference_rewards
from peeralign.store.run import Run, Stage

# One row a distinct answer. `verdicts` is one entry a judge that was asked about it: its score, or
# the reason why there is none; empty for pairwise rubrics, whose verdicts are about two answers.
WEIGHED_SCHEMA = pl.Schema(
    {
        "question_id": pl.String,
        "answer_id": pl.String,
        "text": pl.String,
        "authors": pl.List(pl.String),
        "num_draws": pl.Int32,
        "reward": pl.Float64,
        "num_judges": pl.Int32,
        "verdicts": pl.List(
            pl.Struct({"judge": pl.String, "score": pl.Float64, "reason": pl.String})
        ),
    }
)
# One row a question, in the order of the questions. `num_draws` counts the draws of this answer,
# `num_answers` the distinct ones it was chosen from. `reason` is null where rewards decided; with
# a text it says why they did not, without one why there is no answer.
ANSWERED_SCHEMA = pl.Schema(
    {
        "question_id": pl.String,
        "answer_id": pl.String,
        "text": pl.String,
        "authors": pl.List(pl.String),
        "reward": pl.Float64,
        "num_judges": pl.Int32,
        "num_draws": pl.Int32,
        "num_answers": pl.Int32,
        "reason": pl.String,
    }
)
UNSCORED = "nobody scored any answer; this one was drawn most often"
StageOf = Callable[[str, str], Stage]


class AnswerConfig(BaseModel):
    """How a panel answers. Names and defaults are Panel of Peers', so its recipes' sections fit."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    generate: GenerateConfig = GenerateConfig()
    """How answers are drawn."""
    judge: JudgeConfig = JudgeConfig()
    """How answers are judged; a pairwise rubric compares every two answers to a question."""
    aggregate: AggregateConfig = AggregateConfig()
    """How the judges' scores are merged."""
    choose: Literal["best", "weighted"] = "best"
    """"best" (paper): the answer with the highest reward. "weighted": the one with the highest sum
    of rewards over its draws (Li et al., 2023; best-of-N weighted in Snell et al., 2024), so that
    one answer of many that deceives the judges does not win. Where no two draws are equal, as in
    long answers, both are the same."""
    tie_tolerance: float = Field(default=0.0, ge=0)
    """Not in the paper, with "best": answers this close to the highest reward are tied, and a tie
    goes to the one drawn most often (curate.tie_tolerance of a recipe). 0: exact ties only."""


class _PanelFile(AnswerConfig):
    """What is read of a recipe or of a run's settings."""

    seed: int = Field(default=0, ge=0)
    members: tuple[Member, ...]


def panel_from(
    path: Path | str, assignments: list[str] | None = None
) -> tuple[Panel, AnswerConfig, int]:
    """(the panel, its AnswerConfig, the seed) of a TOML file or of a training run's folder.

    A file has [[members]], and may have [generate], [judge], [aggregate], tie_tolerance and seed,
    as any recipe; its other sections are ignored, all but curate.tie_tolerance. Of a run, the
    members have the weights after its last round. `assignments` are laid over it ("--set").
    Nobody learns. Raises PeeralignError for what cannot be read or cannot answer; members are not
    loaded (see `check_answering`).
    """
    path = Path(path)
    given = _of_run(path) if path.is_dir() else read_toml(path, "panel")
    known = {name: given[name] for name in _PanelFile.model_fields if name in given}
    curated = given.get("curate")
    if isinstance(curated, dict) and "tie_tolerance" in curated:
        known.setdefault("tie_tolerance", curated["tie_tolerance"])
    for assignment in assignments or []:
        section = assignment.partition("=")[0].strip().partition(".")[0]
        if section not in _PanelFile.model_fields:
            raise PeeralignError(
                f"--set {assignment}: a panel that answers has no setting '{section}'"
                f"{nearest(section, _PanelFile.model_fields)}"
            )
    read = build(_PanelFile, override(known, assignments or []), str(path))
    # Whoever answers need not be able to learn (a member behind a server).
    members = tuple(m.model_copy(update={"learns": False, "replay": None}) for m in read.members)
    config = AnswerConfig(**{name: getattr(read, name) for name in AnswerConfig.model_fields})
    panel = Panel(members)
    _check_settings(panel, config)
    return panel, config, read.seed


def _of_run(folder: Path) -> dict[str, Any]:
    run = Run.existing(folder)
    settings = dict(read_json(folder / CONFIG) or run.manifest()["settings"])
    *_, (_, panel) = members_after(run)
    settings["members"] = [member.model_dump(mode="json") for member in panel.members]
    return settings


def check_answering(panel: Panel, config: AnswerConfig) -> None:
    """Raise PeeralignError, before anything is written, if the panel cannot answer so."""
    from peeralign.engines.opening import check_member

    _check_settings(panel, config)
    for member in panel.members:
        if member.answers or member.judges:
            check_member(member)


def _check_settings(panel: Panel, config: AnswerConfig) -> None:
    check_panel(panel.members, ("answers", "judges"))
    check_sampler(config.generate, panel.members)
    rubric = read_rubric(config.judge, (*ONE_BY_ONE, "pairwise"))
    who = config.judge.judges
    if rubric.kind == "pairwise" and who != "all":
        raise PeeralignError(
            f'judge.judges = "{who}" is for scores of single answers, and rubric '
            f"'{config.judge.rubric}' compares two, of whose authors a judge may be one; set "
            'judge.judges = "all", or another rubric'
        )
    if rubric.kind == "pairwise" and config.aggregate != AggregateConfig():
        raise PeeralignError(
            f"aggregate has no effect on comparisons (rubric '{config.judge.rubric}'); leave it "
            "out, or set another rubric"
        )
    if rubric.kind == "pairwise" and config.choose == "weighted":
        raise PeeralignError(
            'choose = "weighted" sums rewards, and those of comparisons are below 0 for what loses '
            f"(rubric '{config.judge.rubric}'); set choose = \"best\", or another rubric"
        )
    for author in panel.authors:
        judges = [m.name for m in panel.judges]
        if who == "others" and judges == [author.name]:
            judges = []
        if not judges or (who == "self" and author.name not in judges):
            raise PeeralignError(
                f"nobody judges '{author.name}' with judge.judges = \"{who}\"; set judges = true "
                "for another member, or change judge.judges"
            )


def panel_answers(
    stage_of: StageOf,
    questions: pl.DataFrame,
    panel: Panel,
    config: AnswerConfig,
    open_engine: EngineFactory,
    seed: int,
    reporter: Reporter,
) -> pl.DataFrame:
    """The panel's best answer to each of `questions` (ANSWERED_SCHEMA; Q rows, in their order).

    `questions` has QUESTION_SCHEMA; further columns are not looked at, so no key reaches a judge.
    `stage_of` takes "candidates", "judgments" or "comparisons", and a member's name; shards that
    are there are not made again, so the same call goes on with an interrupted one. Other
    questions, settings or seeds need another folder. Members are opened one after the other, by
    `open_engine`, which sets judge.min_label_mass. Processes share the work (see `fill_stage`).
    """
    draw_answers(stage_of, questions, panel, config, open_engine, seed, reporter)
    judge_answers(stage_of, questions, panel, panel, config, open_engine, seed, reporter)
    weighed = weighed_answers(stage_of, questions, panel, config)
    candidates = _candidates(stage_of, panel)
    return best_answers(questions, candidates, weighed, config, seed)


def draw_answers(
    stage_of: StageOf,
    questions: pl.DataFrame,
    panel: Panel,
    config: AnswerConfig,
    open_engine: EngineFactory,
    seed: int,
    reporter: Reporter,
) -> None:
    """The draws of `panel_answers`, whose first half this is: of all authors of the panel."""
    questions = questions.select(QUESTION_SCHEMA.names())
    generate(
        lambda name: stage_of("candidates", name),
        *(questions, panel, config.generate, open_engine, seed, reporter),
    )


def judge_answers(
    stage_of: StageOf,
    questions: pl.DataFrame,
    panel: Panel,
    judges: Panel,
    config: AnswerConfig,
    open_engine: EngineFactory,
    seed: int,
    reporter: Reporter,
) -> None:
    """The verdicts of `panel_answers`: of some `judges`, on what all authors of `panel` drew."""
    questions = questions.select(QUESTION_SCHEMA.names())
    shared = (judges, config.judge, open_engine, seed, reporter)
    answers = distinct_answers(_candidates(stage_of, panel))
    if _is_pairwise(config):
        compare(lambda name: stage_of("comparisons", name), questions, all_pairs(answers), *shared)
    else:
        judge(lambda name: stage_of("judgments", name), questions, answers, *shared)


def weighed_answers(
    stage_of: StageOf, questions: pl.DataFrame, panel: Panel, config: AnswerConfig
) -> pl.DataFrame:
    """Every distinct answer with its reward and verdicts (WEIGHED_SCHEMA), after `panel_answers`.

    Rewards are those of `aggregate`; of comparisons, those of `preference_rewards`.
    """
    candidates = _candidates(stage_of, panel)
    key = ["question_id", "answer_id"]
    if _is_pairwise(config):
        compared = _tables(stage_of, "comparisons", panel.judges, COMPARISON_SCHEMA)
        rewards = preference_rewards(candidates, compared)
        judgments = pl.DataFrame(schema=JUDGMENT_SCHEMA)
    else:
        judgments = _tables(stage_of, "judgments", panel.judges, JUDGMENT_SCHEMA)
        rewards = aggregate(candidates, judgments, config.aggregate, config.judge.judges, questions)
    authors = distinct_answers(candidates).select(*key, "authors")
    verdicts = (
        judgments.sort("judge")
        .group_by(key, maintain_order=True)
        .agg(pl.struct("judge", "score", "reason").alias("verdicts"))
    )
    return (
        rewards.join(authors, on=key, how="left", maintain_order="left")
        .join(verdicts, on=key, how="left", maintain_order="left")
        .with_columns(pl.col("verdicts").fill_null(pl.lit([], WEIGHED_SCHEMA["verdicts"])))
        .select(WEIGHED_SCHEMA.names())
        .cast(WEIGHED_SCHEMA)
    )


def best_answers(
    questions: pl.DataFrame,
    candidates: pl.DataFrame,
    weighed: pl.DataFrame,
    config: AnswerConfig,
    seed: int,
) -> pl.DataFrame:
    """Each question's best answer (ANSWERED_SCHEMA), from WEIGHED_SCHEMA.

    What is highest by `config.choose`; of answers tied for it the one drawn most often; of those
    the one that a draw by `seed` puts first, which knows no authors. Where nobody scored any
    answer, the one drawn most often. `candidates` tell why a question has no answer.
    """
    lots = [
        seed_of("tie", seed, *row) for row in weighed.select("question_id", "answer_id").iter_rows()
    ]
    worth, tolerance = pl.col("reward"), config.tie_tolerance
    if config.choose == "weighted":
        # A reward may be below 0 (uncertainty_weighted), and more draws are never worth less.
        worth, tolerance = worth.clip(0) * pl.col("num_draws"), 0.0
    # Rounding makes ties of sums that differ only in the last bit.
    worth = worth.round(9)
    best = worth.max().over("question_id")
    best_first = (
        weighed.with_columns(
            pl.Series("lot", lots, dtype=pl.UInt64),
            num_answers=pl.len().over("question_id").cast(pl.Int32),
            # Without any reward all answers are tied.
            tied=(worth >= best - tolerance - 1e-9) | best.is_null(),
        )
        .filter(pl.col("tied").fill_null(False))
        .sort("question_id", "num_draws", "lot", descending=[False, True, False])
        .unique("question_id", keep="first", maintain_order=True)
        # A single answer needs no verdict to be the best.
        .with_columns(
            unscored=pl.when(pl.col("reward").is_null() & (pl.col("num_answers") > 1)).then(
                pl.lit(UNSCORED)
            )
        )
    )
    asked = questions.select(question_id="id")
    return (
        asked.join(best_first, on="question_id", how="left", maintain_order="left")
        .join(_unanswered(candidates), on="question_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("authors").fill_null(pl.lit([], ANSWERED_SCHEMA["authors"])),
            pl.col("num_judges", "num_draws", "num_answers").fill_null(0),
            reason=pl.coalesce("unscored", "unanswered"),
        )
        .select(ANSWERED_SCHEMA.names())
        .cast(ANSWERED_SCHEMA)
    )


def _unanswered(candidates: pl.DataFrame) -> pl.DataFrame:
    """(question_id, unanswered): why nobody answered, for the questions that nobody answered."""
    reason = pl.col("author") + ": " + pl.col("reason").fill_null("no text")
    return (
        candidates.filter(pl.col("text").is_null().all().over("question_id"))
        .sort("question_id", "author", "draw")
        .group_by("question_id", maintain_order=True)
        .agg(reason.unique(maintain_order=True).str.join("; ").alias("unanswered"))
    )


def _is_pairwise(config: AnswerConfig) -> bool:
    return read_rubric(config.judge, (*ONE_BY_ONE, "pairwise")).kind == "pairwise"


def _candidates(stage_of: StageOf, panel: Panel) -> pl.DataFrame:
    return _tables(stage_of, "candidates", panel.authors, CANDIDATE_SCHEMA)


def _tables(stage_of: StageOf, name: str, members: list[Member], schema: pl.Schema) -> pl.DataFrame:
    tables = [stage_of(name, member.name).read(schema) for member in members]
    return pl.concat([pl.DataFrame(schema=schema), *tables])
