"""The demo: Panel of Peers on the classroom, from shipped peers to a table of scores."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
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
from peeralign.errors import PeeralignError
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
# In settings, in place of a file's path.
PREFIX = "classroom:"
TABLES = ("pool", "key", "exam", "replay")
KEYS = ("path", "answers", "replay")


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


def draw_key(seed: int, num_questions: int = POOL_QUESTIONS) -> pl.DataFrame:
    """The exact answers of the pool of that seed: id, answer. For teachers, never for a panel."""
    skills = list(SKILLS)
    rows = []
    for index in range(num_questions):
        rng = np.random.default_rng(seed_of("pool", seed, index))
        _, item = draw_item(rng, skills[index % len(skills)])
        rows.append({"id": make_id("pool", seed, index), "answer": item.answer})
    return pl.DataFrame(rows, schema={"id": pl.String, "answer": pl.String})


def classroom_table(name: str) -> pl.DataFrame:
    """A table by name: "pool-SEED", its exact answers "key-SEED", "exam-SEED", or "replay-PEER", a
    peer's own instruction data.

    Raises PeeralignError for a name that is none of these.
    """
    check_name(name)
    kind, _, which = name.partition("-")
    if kind == "replay":
        weak = PEERS[which][1]
        return lessons(
            LESSON_SEED, REPLAY_IMAGES, weak, num_questions=2, num_verdicts=1, caption=False
        )
    return {"pool": draw_pool, "key": draw_key, "exam": draw_exam}[kind](int(which))


def check_name(name: str) -> None:
    """Raise PeeralignError if the classroom has no table of that name."""
    kind, _, which = name.partition("-")
    if not (which in PEERS if kind == "replay" else kind in TABLES and which.isdecimal()):
        raise PeeralignError(
            f"the classroom has no table '{name}'; there are pool-SEED, key-SEED, exam-SEED and "
            f"replay-PEER, with a peer of {', '.join(PEERS)}"
        )


def write_classroom(folder: Path, names: Iterable[str], reporter: Reporter | None = None) -> None:
    """Write tables of the classroom to `folder`/NAME.parquet, those that are not there yet."""
    missing = [name for name in names if not (folder / f"{name}.parquet").is_file()]
    for name in missing:
        check_name(name)
    if missing:
        with (reporter or Reporter()).bar("drawing the classroom", len(missing)) as tick:
            for name in missing:
                write_table(folder / f"{name}.parquet", classroom_table(name))
                tick(1)


def demo_settings(seed: int, exam_seed: int) -> dict[str, Any]:
    """The demo's settings as a plain dictionary; its data are named, not drawn."""
    with resources.as_file(resources.files("peeralign.classroom") / "demo.toml") as path:
        settings = read_toml(path)
    settings["seed"] = seed
    settings["pool"] = {"path": f"{PREFIX}pool-{seed}"}
    settings["exam"]["path"] = f"{PREFIX}exam-{exam_seed}"
    for member in settings["members"]:
        member["replay"] = f"{PREFIX}replay-{member['name']}"
    return settings


def in_folder(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings in which tables of the classroom are the files that `write_classroom` makes of them.

    "classroom:pool" is the pool of the run's own seed.
    """
    changed = copy.deepcopy(settings)
    for place, key in _places(changed):
        if name := _table_name(place[key], changed.get("seed", 0)):
            place[key] = str(folder / f"{name}.parquet")
    return changed


def tables_in(settings: dict[str, Any]) -> list[str]:
    """The classroom's tables that settings name, in their order."""
    names = (_table_name(place[key], settings.get("seed", 0)) for place, key in _places(settings))
    return list(dict.fromkeys(name for name in names if name))


def _places(settings: Any) -> Iterator[tuple[Any, Any]]:
    """Every (table or list, key) whose value names a table of the classroom."""
    entries = settings.items() if isinstance(settings, dict) else enumerate(settings)
    for key, value in entries:
        if isinstance(value, dict | list):
            yield from _places(value)
        elif key in KEYS and _table_name(value, 0):
            yield settings, key


def _table_name(value: Any, seed: Any) -> str | None:
    if not isinstance(value, str) or not value.startswith(PREFIX):
        return None
    name = value.removeprefix(PREFIX)
    if name.partition("-")[0] not in TABLES:
        # A peer: "classroom:ada".
        return None
    return f"pool-{seed}" if name == "pool" else name
