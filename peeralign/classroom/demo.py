"""The demo: Panel of Peers on the classroom, from shipped peers to a table of scores."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from peeralign.classroom.lessons import LESSON_SEED, lessons
from peeralign.classroom.peers import PEERS
from peeralign.classroom.skills import SKILLS, draw_item
from peeralign.classroom.world import Scene, render
from peeralign.config import read_toml
from peeralign.evals.exam import EXAM_FILE_SCHEMA
from peeralign.progress import Reporter
from peeralign.records import IMAGE_DTYPE, make_id, seed_of
from peeralign.store.run import write_table

EXAM_QUESTIONS_PER_SKILL = 120
POOL_QUESTIONS = 5400
REPLAY_IMAGES = 3000
# In this share of the pool and of the exam, objects lie further off their cells' centres than in
# any lesson: the world is a little harder than the school.
UNSTEADY_SHARE = 0.3


def _draw(scene: Scene, rng: np.random.Generator, unseen_hands: bool) -> bytes:
    unsteady = rng.random() < UNSTEADY_SHARE
    return render(scene, rng, unseen_hands, jitter_px=2 if unsteady else 1)


def draw_exam(seed: int, per_skill: int = EXAM_QUESTIONS_PER_SKILL) -> pl.DataFrame:
    """An exam (EXAM_FILE_SCHEMA): `per_skill` items a skill, handwriting unseen in training."""
    rows = []
    for skill, kind in SKILLS.items():
        for index in range(per_skill):
            rng = np.random.default_rng(seed_of("exam", seed, skill, index))
            scene, item = draw_item(rng, skill)
            rows.append(
                {
                    "id": make_id("exam", seed, skill, index),
                    "image": {"bytes": _draw(scene, rng, unseen_hands=True), "path": None},
                    "text": item.question,
                    "answer": item.answer,
                    "skill": skill,
                    "category": kind.category,
                }
            )
    return pl.DataFrame(rows, schema=EXAM_FILE_SCHEMA)


def draw_pool(seed: int, num_questions: int = POOL_QUESTIONS) -> pl.DataFrame:
    """A pool of questions without answers: id, image, question, category."""
    rows = []
    skills = list(SKILLS)
    for index in range(num_questions):
        rng = np.random.default_rng(seed_of("pool", seed, index))
        skill = skills[index % len(skills)]
        scene, item = draw_item(rng, skill)
        rows.append(
            {
                "id": make_id("pool", seed, index),
                "image": {"bytes": _draw(scene, rng, unseen_hands=False), "path": None},
                "question": item.question,
                "category": SKILLS[skill].category,
            }
        )
    schema = {"id": pl.String, "image": IMAGE_DTYPE, "question": pl.String, "category": pl.String}
    return pl.DataFrame(rows, schema=schema)


def write_classroom(
    folder: Path, seed: int, exam_seed: int, reporter: Reporter | None = None
) -> None:
    """Write what the demo runs on: pool, exam, and each peer's own instruction data."""
    tables = {
        f"pool-{seed}": lambda: draw_pool(seed),
        f"exam-{exam_seed}": lambda: draw_exam(exam_seed),
    }
    for name, (_, weak) in PEERS.items():
        tables[f"replay-{name}"] = lambda weak=weak: lessons(
            LESSON_SEED, REPLAY_IMAGES, weak, num_questions=2, num_verdicts=1, caption=False
        )
    with (reporter or Reporter()).bar("drawing the classroom", len(tables)) as tick:
        for name, draw in tables.items():
            path = folder / f"{name}.parquet"
            if not path.is_file():
                write_table(path, draw())
            tick(1)


def demo_settings(folder: Path, seed: int, exam_seed: int) -> dict[str, Any]:
    """The demo's settings as a plain dictionary, for data written to `folder`."""
    with resources.as_file(resources.files("peeralign.classroom") / "demo.toml") as path:
        settings = read_toml(path)
    settings["seed"] = seed
    settings["pool"] = {"path": str(folder / f"pool-{seed}.parquet")}
    settings["exam"]["path"] = str(folder / f"exam-{exam_seed}.parquet")
    for member in settings["members"]:
        member["replay"] = str(folder / f"replay-{member['name']}.parquet")
    return settings
