"""What the recipes share that judge and train nobody: settings, the panel, and asking it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from peeralign.engines.base import Engine
from peeralign.engines.blind import BlindEngine
from peeralign.engines.opening import check_member, open_engine
from peeralign.errors import PeeralignError
from peeralign.images.load import MAX_PIXELS
from peeralign.judging.rubric import Rubric
from peeralign.panel import Member, Panel, check_panel
from peeralign.progress import Reporter
from peeralign.records import make_id
from peeralign.stages.compare import compare
from peeralign.stages.judge import JudgeConfig, judge
from peeralign.store.run import Run, write_lines


class GradeConfig(BaseModel):
    """How a file of answers is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    judge: JudgeConfig = JudgeConfig()
    """The rubric, the readout, and the orders in which pairs are shown."""
    seed: int = 0
    """Seed of drawn wordings and orders."""
    image_root: str | None = None
    """The folder that image paths are relative to and may not leave; default the file's folder."""
    max_image_pixels: int = Field(default=MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Rows with images of more pixels than this are set aside."""


def judging_panel(judges: Sequence[Member], config: GradeConfig) -> Panel:
    """The members as judges and nothing else. Raises PeeralignError if they cannot be."""
    members = tuple(
        member.model_copy(update={"answers": False, "judges": True, "learns": False})
        for member in judges
    )
    check_panel(members, ("judges",))
    if config.judge.judges != "all":
        raise PeeralignError('a file names no authors; leave judge.judges at "all"')
    return Panel(members)


def begin(
    out: Path,
    recipe: str,
    data: str,
    digest: str,
    panel: Panel,
    config: GradeConfig,
    rubric: Rubric,
    set_aside: pl.DataFrame,
) -> None:
    """Make or resume the folder of what is judged, and write what was set aside.

    `digest` changes with whatever of the file is judged. Raises PeeralignError for judges that
    cannot be used, before there is a folder, and for a folder made with other settings.
    """
    if not (out / "manifest.json").is_file():
        for member in panel.members:
            check_member(member)
    settings: dict[str, Any] = {
        "file": data,
        "content": digest,
        "rubric": make_id(rubric.model_dump_json()),
        "judges": [member.model_dump(mode="json") for member in panel.members],
        **config.model_dump(mode="json"),
    }
    Run.open(out, recipe, settings, config.seed)
    write_lines(out / "set-aside.jsonl", set_aside)


def stage_of(rubric: Rubric, is_blind: bool = False) -> str:
    """Where verdicts by the rubric lie: the stage's name is that of its table in a run."""
    name = "comparisons" if rubric.kind == "pairwise" else "judgments"
    return f"{name}-black" if is_blind else name


def ask(
    state: Run,
    questions: pl.DataFrame,
    answers: pl.DataFrame,
    panel: Panel,
    config: GradeConfig,
    rubric: Rubric,
    reporter: Reporter,
    is_blind: bool = False,
) -> None:
    """Every judge's verdicts on `answers`, or on pairs if the rubric is pairwise (see `stage_of`).

    The tables are those of `judge`, or of `compare`. With `is_blind` the images are black.
    """

    def engine(member: Member) -> Engine:
        opened = open_engine(member, config.judge.min_label_mass)
        return BlindEngine(opened) if is_blind else opened

    (compare if rubric.kind == "pairwise" else judge)(
        lambda name: state.stage(1, stage_of(rubric, is_blind), name),
        questions,
        answers,
        panel,
        config.judge,
        engine,
        config.seed,
        reporter,
    )
