"""Critic data: judgements with reasons, from teachers and published sets, as demonstrations.

    OUT/manifest.json                       settings
    OUT/sources/NAME/questions, candidates, judgments, comparisons      of a source with a pool
    OUT/sources/NAME/samples, set-aside     what came of a source, and what did not
    OUT/critic.parquet                      what a critic is trained on: image, prompt, response
    OUT/samples.parquet  OUT/summary.json   the same without images; counts

LLaVA-Critic, section 3. The same call again resumes.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from peeralign.distributed import meet, on_main
from peeralign.engines.opening import check_member, open_engine
from peeralign.errors import PeeralignError
from peeralign.images.load import MAX_PIXELS
from peeralign.judging.rubric import load_rubric
from peeralign.panel import Member, Panel, check_panel
from peeralign.progress import Reporter
from peeralign.records import (
    CANDIDATE_SCHEMA,
    COMPARISON_SCHEMA,
    JUDGMENT_SCHEMA,
    QUESTION_SCHEMA,
    make_id,
    seed_of,
)
from peeralign.stages import teaching
from peeralign.stages.compare import compare
from peeralign.stages.critic_samples import SAMPLE_SCHEMA, balance, reasonless, statistics
from peeralign.stages.generate import GenerateConfig, check_sampler, distinct_answers, generate
from peeralign.stages.judge import JudgeConfig, judge
from peeralign.stages.preference_rewards import all_pairs
from peeralign.store.answers import read_key
from peeralign.store.preferences import reason_counts
from peeralign.store.questions import PoolConfig, check_images, draw_questions, read_pool
from peeralign.store.rated import IMAGES_SCHEMA, read_rated_set
from peeralign.store.run import Run, Stage, write_json, write_table

Summary = dict[str, Any]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Source(BaseModel):
    """Where samples come from: a pool that members answer and a teacher judges, or a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=_NAME)
    """Unique name, used in folders and tables."""
    scenario: str | None = None
    """What its samples are counted and balanced under; left out, the source's name."""
    pool: PoolConfig | None = None
    """Questions for the members with answers = true."""
    questions: int = Field(default=1000, ge=1)
    """Questions drawn from the pool."""
    teacher: Literal["judges", "exact"] = "judges"
    """Who judges the answers: the members with judges = true, or exact answers, by equality."""
    answers: str | None = None
    """Parquet or JSONL file of id and answer: the exact ones, or what {reference} shows."""
    file: str | None = None
    """A published set instead of a pool: ratings, preferences, or written judgements."""
    image_root: str | None = None
    """The folder that the file's image paths are relative to and may not leave."""
    min_gap: float = Field(default=0.6, ge=0)
    """Ratings: answers whose means differ by more are a pair, equal means a tie (paper: 0.6)."""
    pointwise: str | None = None
    """Rubric of one answer for pointwise samples; left out, none are made."""
    pairwise: str | None = None
    """Rubric for pairwise samples; left out, none are made of a pool, "pairwise" of a file."""
    pairs_per_question: int = Field(default=4, ge=1)
    """Most pairs of one question's answers; with exact answers, most ties as well."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.pool is None) == (self.file is None):
            raise ValueError("give either a pool or a file")
        if self.file and (self.pointwise or self.answers or self.teacher == "exact"):
            raise ValueError("a file holds judgements: it takes no pointwise, answers or teacher")
        if self.pool and not (self.pointwise or self.pairwise):
            raise ValueError("name a rubric: pointwise, pairwise, or both")
        if self.teacher == "exact" and not self.answers:
            raise ValueError('teacher "exact" needs a file of answers')
        return self


class CriticDataConfig(BaseModel):
    """What critics learn from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(default=0, ge=0)
    """Seed of everything drawn."""
    members: tuple[Member, ...] = ()
    """Who answers the pools' questions (answers) and who judges them as a teacher (judges)."""
    sources: tuple[Source, ...] = Field(min_length=1)
    """Where samples come from."""
    generate: GenerateConfig = GenerateConfig(num_draws=1)
    """How members answer."""
    judge: JudgeConfig = JudgeConfig()
    """How teachers judge; the rubrics are the sources'."""
    pointwise_samples: int | None = Field(default=None, ge=1)
    """Most pointwise samples, in equal numbers of every scenario, and of every score in it, as far
    as there are any (paper: 72,800); left out, all."""
    pairwise_samples: int | None = Field(default=None, ge=1)
    """Most pairwise samples, in equal numbers of every scenario, and of both sides (paper: 40,100);
    left out, all."""
    tie_share: float = Field(default=0.2, ge=0, le=1)
    """Most ties among a scenario's pairwise samples (paper: 5,000 of 25,000 rated pairs)."""
    group_by_image: bool = False
    """Put all samples of an image into one row: its image is computed once, and training batches
    count images instead of samples."""
    max_image_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Images of more pixels than this are set aside."""


Config = CriticDataConfig


def make_critic_data(
    config: CriticDataConfig, out: Path | str, reporter: Reporter | None = None
) -> Summary:
    """Make, or go on making, critic data in the folder `out`; returns its summary (summary.json).

    Raises PeeralignError for settings, files, pools, members or folders that cannot be used.
    """
    folder = Path(out)
    Run.check_usable(folder)
    with meet(folder):
        on_main("checks", lambda: _check(config))
        settings = {**config.model_dump(mode="json"), "rubric": _rubric_digests(config)}
        on_main("beginning", lambda: Run.open(folder, "critic-data", settings, config.seed))
        for source in config.sources:
            _Source(source, config, folder, reporter or Reporter()).fill()
        return on_main("critic data", lambda: _finish(config, folder))


def _rubric_digests(config: CriticDataConfig) -> dict[str, str]:
    """Of each rubric its content: a file that has changed since would make half of the samples."""
    named = [name for source in config.sources for name in (source.pointwise, source.pairwise)]
    return {name: make_id(load_rubric(name).model_dump_json()) for name in named if name}


def _check(config: CriticDataConfig) -> None:
    names = [source.name for source in config.sources]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise PeeralignError(f"two sources are named '{doubled[0]}'; give each its own name")
    pools = [source for source in config.sources if source.pool]
    if pools:
        asks = any(source.teacher == "judges" for source in pools)
        # Nobody learns here, so a member behind a server need not say that it does not.
        members = tuple(m.model_copy(update={"learns": False}) for m in config.members)
        check_panel(members, ("answers", "judges") if asks else ("answers",))
        check_sampler(config.generate, config.members)
        for member in config.members:
            check_member(member)
    for source in config.sources:
        for kind, name in (("absolute", source.pointwise), ("pairwise", source.pairwise)):
            if name is not None:
                _check_rubric(source, kind, name)


def _check_rubric(source: Source, kind: str, name: str) -> None:
    rubric, where = load_rubric(name), f"source '{source.name}'"
    if rubric.kind != kind:
        raise PeeralignError(
            f"{where}: rubric '{name}' is {rubric.kind}, and needed here is one that is {kind}"
        )
    if rubric.needs_reference and not source.answers:
        raise PeeralignError(
            f"{where}: rubric '{name}' shows a reference answer; give answers, a file of them"
        )
    if (source.file or source.teacher == "exact") and not reasonless(rubric):
        raise PeeralignError(
            f"{where} gives no reasons, and rubric '{name}' asks for one; use a rubric that does "
            "not, or a teacher that judges"
        )


class _Source:
    """One source's way from its pool or file to its samples."""

    def __init__(
        self, source: Source, config: CriticDataConfig, out: Path, reporter: Reporter
    ) -> None:
        self.source = source
        self.config = config
        self.folder = out / "sources" / source.name
        self.reporter = reporter
        self.seed = seed_of("source", config.seed, source.name)

    def stage(self, name: str, member: str = "") -> Stage:
        return Stage(self.folder / name / member)

    def fill(self) -> None:
        """Make the source's samples, unless that is done."""
        done = on_main("look for samples", lambda: self.stage("samples").is_done)
        if not done and self.source.pool:
            self._ask()
        if not done:
            on_main("samples", self._write)

    def _ask(self) -> None:
        """Draw questions, let the members answer, and the teachers judge."""
        config, panel = self.config, Panel(self.config.members)
        on_main("questions", self._draw)
        questions = self.stage("questions").read(QUESTION_SCHEMA)
        engine = partial(open_engine, min_label_mass=config.judge.min_label_mass)
        shared = (engine, self.seed, self.reporter)
        generate(partial(self.stage, "candidates"), questions, panel, config.generate, *shared)
        if self.source.teacher == "exact":
            return
        answers = self._answers()
        for name, rubric, ask in (
            ("judgments", self.source.pointwise, judge),
            ("comparisons", self.source.pairwise, compare),
        ):
            if rubric is None:
                continue
            asked = questions
            if load_rubric(rubric).needs_reference:
                key = self._key().select("id", reference="answer")
                asked = questions.join(key, on="id", how="inner", maintain_order="left")
            judging = config.judge.model_copy(update={"rubric": rubric})
            about = answers if ask is judge else self._pairs(answers)
            ask(partial(self.stage, name), asked, about, panel, judging, *shared)

    def _draw(self) -> None:
        stage, pool = self.stage("questions"), self.source.pool
        assert pool is not None
        if stage.is_done:
            return
        questions, aside = read_pool(pool)
        drawn = draw_questions(questions, self.source.questions, pool.shares, self.seed, 0)
        usable, broken = check_images(
            drawn, min(pool.max_image_pixels, self.config.max_image_pixels)
        )
        if usable.is_empty():
            raise PeeralignError(f"no question of {pool.path} has an image that can be used")
        stage.write_shard(0, usable)
        stage.finish(questions=len(usable), reasons=reason_counts(pl.concat([aside, broken])))

    def _table(self, name: str, schema: pl.Schema) -> pl.DataFrame:
        names = [member.name for member in self.config.members]
        return pl.concat(
            [pl.DataFrame(schema=schema), *(self.stage(name, m).read(schema) for m in names)]
        )

    def _answers(self) -> pl.DataFrame:
        return distinct_answers(self._table("candidates", CANDIDATE_SCHEMA))

    def _pairs(self, answers: pl.DataFrame) -> pl.DataFrame:
        """At most so many pairs a question, drawn with the seed."""
        pairs = all_pairs(answers)
        ids = pairs.select("first_id", "second_id").iter_rows()
        keys = [seed_of("pair", self.seed, *names) for names in ids]
        keyed = pairs.with_columns(pl.Series("key", keys, dtype=pl.Int64))
        place = pl.col("key").rank("ordinal").over("question_id")
        return keyed.filter(place <= self.source.pairs_per_question).drop("key")

    def _key(self) -> pl.DataFrame:
        assert self.source.answers is not None
        return read_key(self.source.answers)

    def _write(self) -> None:
        lost: Counter[str] = Counter()
        if self.source.file:
            samples, images, facts = self._of_file(lost)
        else:
            questions = self.stage("questions").read(QUESTION_SCHEMA)
            samples = self._of_pool(questions, lost)
            images = questions.select("image", question_id="id")
            facts = self.stage("questions").facts()
        lost.update(facts.get("reasons", {}))
        table = pl.DataFrame(samples, schema=SAMPLE_SCHEMA)
        table = table.unique("id", keep="first", maintain_order=True)
        used = images.select("question_id", "image").unique("question_id", maintain_order=True)
        used = used.join(table.select("question_id").unique(), on="question_id", how="semi")
        self.stage("images").write_shard(0, used.select(IMAGES_SCHEMA.names()))
        stage = self.stage("samples")
        stage.write_shard(0, table)
        stage.finish(samples=len(table), left_out=dict(lost.most_common()))
        left = ", ".join(f"{number} {reason}" for reason, number in lost.most_common())
        self.reporter.say(
            f"{self.source.name}: {len(table)} samples" + (f"; left out: {left}" if left else "")
        )

    def _of_pool(self, questions: pl.DataFrame, lost: Counter[str]) -> list[dict[str, Any]]:
        source = self.source
        asked = teaching.Questions(
            source.name,
            source.scenario or source.name,
            questions,
            self._key() if source.answers else None,
            self.seed,
        )
        pointwise, pairwise = (
            None if name is None else load_rubric(name)
            for name in (source.pointwise, source.pairwise)
        )
        if source.teacher == "exact":
            return teaching.exact_samples(
                asked, self._answers(), pointwise, pairwise, source.pairs_per_question, lost
            )
        samples: list[dict[str, Any]] = []
        answers = self._answers()
        if pointwise is not None:
            judgments = self._table("judgments", JUDGMENT_SCHEMA)
            samples += teaching.judged_samples(asked, answers, judgments, pointwise, lost)
        if pairwise is not None:
            comparisons = self._table("comparisons", COMPARISON_SCHEMA)
            samples += teaching.compared_samples(asked, answers, comparisons, pairwise, lost)
        return samples

    def _of_file(self, lost: Counter[str]) -> tuple[list[dict[str, Any]], pl.DataFrame, Summary]:
        source = self.source
        assert source.file is not None
        self.reporter.say(f"reading {source.file} and its images")
        given = read_rated_set(
            source.file, source.min_gap, source.image_root, self.config.max_image_pixels
        )
        where = (source.name, source.scenario or source.name)
        rubric = load_rubric(source.pairwise or "pairwise")
        samples = teaching.rated_samples(
            where, given.pairs, rubric, source.pairs_per_question, self.seed, lost
        )
        samples += teaching.written_samples(where, given.written)
        if given.close:
            lost["pairs rated too close"] += given.close
        return samples, given.images, {"reasons": reason_counts(given.set_aside)}


def _finish(config: CriticDataConfig, out: Path) -> Summary:
    folders = {source.name: out / "sources" / source.name for source in config.sources}
    samples = pl.concat([Stage(f / "samples").read(SAMPLE_SCHEMA) for f in folders.values()])
    images = pl.concat([Stage(f / "images").read(IMAGES_SCHEMA) for f in folders.values()])
    samples = samples.unique("id", keep="first", maintain_order=True)
    kinds = {
        "pointwise": config.pointwise_samples,
        "pairwise": config.pairwise_samples,
        "written": None,
    }
    kept = pl.concat(
        [
            balance(samples.filter(kind=kind), most, config.tie_share, config.seed)
            for kind, most in kinds.items()
        ]
    )
    if kept.is_empty():
        raise PeeralignError(
            f"no sample could be made; {out}/sources/NAME/samples/done.json says what was left out"
        )
    images = images.unique("question_id", keep="first", maintain_order=True)
    write_table(out / "critic.parquet", _demonstrations(kept, images, config.group_by_image))
    write_table(out / "samples.parquet", kept)
    summary = {
        "samples": len(kept),
        "by_scenario": statistics(kept),
        "sources": {name: Stage(folder / "samples").facts() for name, folder in folders.items()},
    }
    write_json(out / "summary.json", summary)
    return summary


def _demonstrations(kept: pl.DataFrame, images: pl.DataFrame, by_image: bool) -> pl.DataFrame:
    """Training data as `peeralign sft` reads them, in an order that belongs to the samples."""
    joined = kept.sort("id").join(images, on="question_id", how="inner", maintain_order="left")
    if not by_image:
        return joined.select("id", "scenario", "kind", "image", "prompt", "response")
    names = [make_id(image["path"] or image["bytes"].hex()) for image in joined["image"].to_list()]
    return (
        joined.with_columns(pl.Series("name", names, dtype=pl.String))
        .group_by("name", maintain_order=True)
        .agg(pl.col("image").first(), pl.struct("prompt", "response").alias("exchanges"))
        .select("image", "exchanges", id="name")
    )
