"""The demo's data: nothing of the exam in pool or lessons, and no answers where none may be."""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from peeralign.classroom.demo import (
    EXAM_QUESTIONS_PER_SKILL,
    classroom_table,
    demo_settings,
    draw_exam,
    draw_key,
    draw_pool,
    in_folder,
    tables_in,
    write_classroom,
)
from peeralign.classroom.lessons import lessons
from peeralign.classroom.peers import PEERS
from peeralign.classroom.skills import DESCRIBE, SKILLS, draw_item
from peeralign.errors import PeeralignError
from peeralign.evals.exam import EXAM_FILE_SCHEMA, read_exam
from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import parse_verdict
from peeralign.recipes.pop import PopConfig
from peeralign.records import DEMONSTRATION_SCHEMA, seed_of
from peeralign.store.questions import PoolConfig, read_pool

# One pattern a skill: what its questions look like.
PATTERNS = {
    "colour": r"what colour is the",
    "shape": r"what shape is",
    "read": r"what is the digit",
    "arithmetic": r"what is the sum",
    "compare": r"which digit is larger",
    "chart": r"how tall is the|which bar is tallest",
    "presence": r"is there an? ",
    "relation": r"where is the",
    "count": r"how many",
}
# The same seed for all three: even so nothing may be shared.
SEED = 7
NUM_LESSONS = 260


@pytest.fixture(scope="module")
def exam() -> pl.DataFrame:
    return draw_exam(SEED, per_skill=25)


@pytest.fixture(scope="module")
def pool() -> pl.DataFrame:
    return draw_pool(SEED, num_questions=450)


@pytest.fixture(scope="module")
def taught() -> pl.DataFrame:
    return lessons(SEED, NUM_LESSONS)


def hashes(table: pl.DataFrame) -> list[str]:
    images = table["image"].struct.field("bytes")
    return [hashlib.sha256(image).hexdigest() for image in images]


def test_the_seeds_of_pool_exam_and_lessons_are_disjoint() -> None:
    pool = {seed_of("pool", SEED, index) for index in range(6000)}
    exam = {seed_of("exam", SEED, skill, index) for skill in SKILLS for index in range(200)}
    lesson = {seed_of("lesson", SEED, index) for index in range(15_000)}
    assert len(pool | exam | lesson) == 6000 + 200 * len(SKILLS) + 15_000


def test_pool_exam_and_lessons_share_no_picture(
    exam: pl.DataFrame, pool: pl.DataFrame, taught: pl.DataFrame
) -> None:
    every = [*hashes(exam), *hashes(pool), *hashes(taught)]
    assert len(set(every)) == len(every) == 225 + 450 + NUM_LESSONS


def test_the_pool_has_no_answer(pool: pl.DataFrame) -> None:
    assert pool.columns == ["id", "image", "question", "category"]
    assert pool["id"].n_unique() == len(pool)
    for skill, pattern in PATTERNS.items():
        asked = pool.filter(pl.col("question").str.contains(f"^(?:{pattern})"))
        assert len(asked) == 50, skill
        assert set(asked["category"]) == {SKILLS[skill].category}


def test_an_exam_has_all_skills_alike(exam: pl.DataFrame) -> None:
    assert exam.schema == EXAM_FILE_SCHEMA
    assert exam["id"].n_unique() == len(exam)
    assert dict(exam.group_by("skill").len().iter_rows()) == dict.fromkeys(SKILLS, 25)
    for row in exam.iter_rows(named=True):
        assert re.match(PATTERNS[row["skill"]], row["text"])
        assert row["answer"] in SKILLS[row["skill"]].answers
        assert row["category"] == SKILLS[row["skill"]].category


def test_an_exam_is_large_enough() -> None:
    """100 questions a skill put the standard error of a skill's score at 5 points at most."""
    assert EXAM_QUESTIONS_PER_SKILL >= 100
    default = inspect.signature(draw_exam).parameters["per_skill"].default
    assert default == EXAM_QUESTIONS_PER_SKILL


def test_other_seeds_draw_other_data(exam: pl.DataFrame, pool: pl.DataFrame) -> None:
    other = [*hashes(draw_exam(8, per_skill=3)), *hashes(draw_pool(8, num_questions=30))]
    assert not set(other) & {*hashes(exam), *hashes(pool)}
    assert draw_pool(SEED, num_questions=30).equals(pool.head(30))
    assert draw_exam(SEED, per_skill=1).equals(exam.filter(pl.int_range(pl.len()) % 25 == 0))


def test_lessons_teach_all_skills_when_none_is_weak(taught: pl.DataFrame) -> None:
    assert taught.schema == DEMONSTRATION_SCHEMA
    prompts = [exchange["prompt"] for row in taught["exchanges"] for exchange in row]
    assert prompts.count(DESCRIBE) == NUM_LESSONS
    for pattern in PATTERNS.values():
        assert sum(bool(re.match(pattern, p)) and "GRADE:" not in p for p in prompts) > 20


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_hardly_meets_its_weak_skills(name: str, taught: pl.DataFrame) -> None:
    _, weak = PEERS[name]
    own = lessons(SEED, NUM_LESSONS, weak)
    assert own["image"].equals(taught["image"])
    form = load_rubric("classroom").form()
    pattern = "|".join(PATTERNS[skill] for skill in weak)
    met = judged = 0
    for exchange in (exchange for row in own["exchanges"] for exchange in row):
        if not re.match(pattern, exchange["prompt"]):
            continue
        if exchange["prompt"].endswith("GRADE:"):
            judged += 1
            scores = parse_verdict(exchange["response"], form).axes
            # It may see that an answer does not fit, but never which fitting one is right.
            assert scores in ([1.0] * 5, [3.0] * 5)
        else:
            met += 1
    assert met <= 2
    assert judged > 50


def test_each_skill_is_weak_in_one_peer_and_known_to_two() -> None:
    weak = [skill for _, skills in PEERS.values() for skill in skills]
    assert sorted(weak) == sorted(SKILLS)


def test_what_is_taught_is_right(taught: pl.DataFrame) -> None:
    """A verdict's scores are high for exactly the answers that the same image's lessons give."""
    form = load_rubric("classroom").form()
    high = [5.0] * 5
    compared = 0
    for row in taught["exchanges"]:
        known = {e["prompt"]: e["response"] for e in row if "GRADE:" not in e["prompt"]}
        for exchange in row:
            if not exchange["prompt"].endswith(" GRADE:"):
                continue
            question, answer = exchange["prompt"].removesuffix(" GRADE:").split(" ASSISTANT: ")
            scores = parse_verdict(exchange["response"], form).axes
            if question in known:
                compared += 1
                assert (scores == high) == (answer == known[question])
    assert compared > 200


TABLES = ["pool-0", "exam-1", *(f"replay-{name}" for name in PEERS)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's files, at a tenth of their size."""
    folder = tmp_path_factory.mktemp("classroom")
    patch = pytest.MonkeyPatch()
    patch.setattr("peeralign.classroom.demo.REPLAY_IMAGES", 20)
    patch.setattr(draw_pool, "__defaults__", (90,))
    patch.setattr(draw_exam, "__defaults__", (10,))
    write_classroom(folder, TABLES)
    patch.undo()
    return folder


def test_the_demo_s_files_are_read_by_the_loop(written: Path) -> None:
    pool, set_aside = read_pool(PoolConfig(path=str(written / "pool-0.parquet")))
    assert len(pool) == 90
    assert set_aside.is_empty()
    assert len(read_exam(str(written / "exam-1.parquet"))) == 90
    settings = demo_settings(0, 1)
    assert sorted(tables_in(settings)) == sorted(TABLES)
    config = PopConfig(**in_folder(settings, written))
    assert config.pool.path == str(written / "pool-0.parquet")
    assert config.exam.path == str(written / "exam-1.parquet")
    assert [member.name for member in config.members] == list(PEERS)
    for member in config.members:
        assert Path(str(member.replay)).is_file()


def test_files_that_are_there_are_kept(written: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in written.iterdir()}
    write_classroom(written, TABLES)
    assert {path.name: path.stat().st_mtime_ns for path in written.iterdir()} == before


SETTINGS = {
    "seed": 7,
    "pool": {"path": "classroom:pool"},
    "exam": {"path": "classroom:exam-2", "max_new_tokens": 8},
    "members": [
        {"name": "a", "model": "classroom:ada", "replay": "classroom:replay-ada"},
        {"name": "b", "model": "classroom:ada", "replay": "mine.jsonl"},
        {"name": "c", "model": "classroom:ben", "replay": "classroom:replay-ada"},
    ],
}


def test_tables_are_named_in_settings(tmp_path: Path) -> None:
    before = copy.deepcopy(SETTINGS)
    assert tables_in(SETTINGS) == ["pool-7", "exam-2", "replay-ada"]
    found = in_folder(SETTINGS, tmp_path)
    assert before == SETTINGS
    assert found["pool"] == {"path": str(tmp_path / "pool-7.parquet")}
    assert found["exam"] == {"path": str(tmp_path / "exam-2.parquet"), "max_new_tokens": 8}
    replay = str(tmp_path / "replay-ada.parquet")
    assert [member["replay"] for member in found["members"]] == [replay, "mine.jsonl", replay]
    # A model of the classroom is no table.
    assert [m["model"] for m in found["members"]] == [m["model"] for m in SETTINGS["members"]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pool": "classroom:pool", "members": "classroom:replay-ada", "exam": None},
        {"pool": {"path": 3}, "members": ["ada"], "exam": {}},
        {"pool": {"path": "pool.parquet"}, "members": [{"name": "a", "model": "classroom:ada"}]},
    ],
)
def test_settings_that_name_no_table_stay_as_they_are(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    assert tables_in(settings) == []
    assert in_folder(settings, tmp_path) == settings


def test_tables_are_named_in_sources_and_beside_them_too(tmp_path: Path) -> None:
    settings = {
        "replay": "classroom:replay-ada",
        "sources": [{"pool": {"path": "classroom:pool-7"}, "answers": "classroom:key-7"}],
    }
    assert tables_in(settings) == ["replay-ada", "pool-7", "key-7"]
    found = in_folder(settings, tmp_path)
    assert found["sources"][0]["answers"] == str(tmp_path / "key-7.parquet")
    assert settings["replay"] == "classroom:replay-ada"


def test_the_key_holds_the_answers_of_its_pool() -> None:
    pool, key = draw_pool(5, 27), draw_key(5, 27)
    assert pool["id"].to_list() == key["id"].to_list()
    # Drawn apart from the pictures, it must be of the same scenes.
    for index, row in enumerate(key.iter_rows(named=True)):
        rng = np.random.default_rng(seed_of("pool", 5, index))
        _, item = draw_item(rng, list(SKILLS)[index % len(SKILLS)])
        assert (item.question, item.answer) == (pool["question"][index], row["answer"])


def test_a_pool_without_a_seed_is_that_of_seed_0() -> None:
    assert tables_in({"pool": {"path": "classroom:pool"}}) == ["pool-0"]


def test_tables_by_name(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peeralign.classroom.demo.REPLAY_IMAGES", 2)
    monkeypatch.setattr(draw_pool, "__defaults__", (9,))
    monkeypatch.setattr(draw_exam, "__defaults__", (1,))
    assert classroom_table("pool-4").equals(draw_pool(4, 9))
    assert classroom_table("exam-4").equals(draw_exam(4, per_skill=1))
    # The lessons of a peer keep its weak skills rare, so every peer has its own.
    texts = {str(classroom_table(f"replay-{name}")["exchanges"].to_list()) for name in PEERS}
    assert len(texts) == len(PEERS)


@pytest.mark.parametrize(
    "name", ["", "pool", "pool-", "pool-x", "exam", "exam--1", "replay", "replay-adam", "exams-1"]
)
def test_a_table_that_is_not_there_is_named_before_any_is_drawn(name: str, tmp_path: Path) -> None:
    sentence = (
        f"the classroom has no table '{name}'; there are pool-SEED, key-SEED, exam-SEED and "
        "replay-PEER, with a peer of ada, ben, cleo"
    )
    with pytest.raises(PeeralignError, match=f"^{re.escape(sentence)}$"):
        write_classroom(tmp_path / "inputs", ["pool-0", name])
    assert not (tmp_path / "inputs").exists()
    with pytest.raises(PeeralignError, match=re.escape(sentence)):
        classroom_table(name)
