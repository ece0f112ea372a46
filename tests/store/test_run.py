"""The run folder: whole shards or none, the same settings or a refusal, one sentence on failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from peeralign.errors import PeeralignError
from peeralign.store.run import Run, Stage, replace_folder, write_whole

SCHEMA = pl.Schema({"n": pl.Int64})
SETTINGS = {"rounds": 3, "judge": {"axes": 5}, "members": [{"name": "ada"}, {"name": "ben"}]}


def numbers(*values: int) -> pl.DataFrame:
    return pl.DataFrame({"n": values}, schema=SCHEMA)


def fill_disk_at(path: Path) -> None:
    """Let the next write to `path` meet a real "no space left on device"."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-0.part")
    aside.parent.mkdir(parents=True, exist_ok=True)
    aside.symlink_to("/dev/full")


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "judgments")
    assert stage.read(SCHEMA).equals(numbers())
    for index in (11, 2, 0):
        stage.write_shard(index, numbers(index))
    assert stage.read(SCHEMA)["n"].to_list() == [0, 2, 11]
    assert [stage.has_shard(index) for index in range(3)] == [True, False, True]
    stage.write_shard(2, numbers(5))
    assert stage.read(SCHEMA)["n"].to_list() == [0, 5, 11], "a shard may be written anew"


def test_a_stage_is_done_only_after_finish(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "pairs")
    stage.write_shard(0, numbers(1))
    assert not stage.is_done
    assert stage.facts() == {}
    stage.finish(pairs=1, seconds=0.5)
    assert Stage(tmp_path / "pairs").is_done
    assert stage.facts() == {"pairs": 1, "seconds": 0.5}


def test_a_writer_that_dies_midway_leaves_no_shard(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "candidates")
    stage.write_shard(0, numbers(0))
    # The kernel kills the process at the 1000th byte of a file.
    script = f"""
import resource, signal
from pathlib import Path
from peeralign.store.run import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_whole(Path({str(stage.shard(1))!r}), b"x" * 5000)
"""
    died = subprocess.run([sys.executable, "-c", script], check=False)
    assert died.returncode == -signal.SIGXFSZ
    leftovers = [path for path in stage.folder.iterdir() if path != stage.shard(0)]
    assert [path.stat().st_size for path in leftovers] == [1000]
    assert leftovers[0].suffix == ".part"

    assert not stage.has_shard(1)
    assert stage.read(SCHEMA).equals(numbers(0))
    stage.write_shard(1, numbers(1))
    assert stage.read(SCHEMA).equals(numbers(0, 1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "rewards")
    stage.write_shard(0, numbers(0))
    for index in (0, 1):
        fill_disk_at(stage.shard(index))
        with pytest.raises(PeeralignError, match=r"the disk is full: .*same command again"):
            stage.write_shard(index, numbers(9))
    assert [path.name for path in stage.folder.iterdir()] == ["part-00000.parquet"]
    assert stage.read(SCHEMA).equals(numbers(0)), "what was there before is kept"
    fill_disk_at(stage.folder / "done.json")
    with pytest.raises(PeeralignError, match="the disk is full"):
        stage.finish(rewards=1)
    assert not stage.is_done


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PeeralignError, match=r"cannot be written .*; choose another folder"):
        write_whole(tmp_path / "file" / "round-1" / "x", b"x")
    with pytest.raises(PeeralignError, match="is a file, not a folder"):
        Run.open(tmp_path / "file", "pop", SETTINGS, seed=0)


def test_the_same_settings_resume(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", "pop", SETTINGS, seed=7)
    run.stage(1, "candidates", "ada").write_shard(0, numbers(1))
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    again = Run.open(tmp_path / "run", "pop", dict(reversed(SETTINGS.items())), seed=7)
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before
    assert again.stage(1, "candidates", "ada").has_shard(0)
    assert again.manifest()["seed"] == 7
    assert again.manifest()["settings"] == SETTINGS


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    Run.open(folder, "pop", SETTINGS, seed=0)
    other = {
        "rounds": 4,
        "judge": {"axes": 5},
        "members": [{"name": "ada"}, {"name": "cy"}],
        "new": True,
    }
    with pytest.raises(PeeralignError) as caught:
        Run.open(folder, "pop", other, seed=0)
    message = str(caught.value)
    for change in ("rounds = 3, not 4", "members.1.name = ben, not cy", "new = None, not True"):
        assert change in message
    for unchanged in ("axes", "ada"):
        assert unchanged not in message
    with pytest.raises(PeeralignError, match="recipe pop, not stic"):
        Run.open(folder, "stic", SETTINGS, seed=0)
    assert Run.existing(folder).manifest()["settings"] == SETTINGS


def test_settings_may_become_others_if_the_recipe_says_so(tmp_path: Path) -> None:
    def may_grow(old: dict[str, Any], new: dict[str, Any]) -> bool:
        return set(old["names"]) <= set(new["names"])

    Run.open(tmp_path, "eval", {"names": ["a"]}, 0, may_grow)
    run = Run.open(tmp_path, "eval", {"names": ["a", "b"]}, 0, may_grow)
    assert run.manifest()["settings"] == {"names": ["a", "b"]}
    with pytest.raises(PeeralignError, match="other settings"):
        Run.open(tmp_path, "eval", {"names": ["b"]}, 0, may_grow)
    with pytest.raises(PeeralignError, match="recipe eval, not pop"):
        Run.open(tmp_path, "pop", {"names": ["a", "b", "c"]}, 0, may_grow)
    assert run.manifest()["settings"] == {"names": ["a", "b"]}


def test_damaged_files_are_named(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "answers")
    stage.write_shard(0, pl.DataFrame({"a": [1]}))
    stage.shard(0).write_bytes(b"nothing")
    with pytest.raises(PeeralignError, match=r"answers is damaged .* remove this folder"):
        stage.read(pl.Schema({"a": pl.Int64}))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(PeeralignError, match=r"manifest\.json is damaged"):
        Run(tmp_path).manifest()


def test_many_changes_are_counted(tmp_path: Path) -> None:
    Run.open(tmp_path / "run", "pop", {f"s{index}": 0 for index in range(8)}, seed=0)
    with pytest.raises(PeeralignError, match=r"s4 = 0, not 1 and 3 more; "):
        Run.open(tmp_path / "run", "pop", {f"s{index}": 1 for index in range(8)}, seed=0)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PeeralignError, match="is not empty and is no run"):
        Run.open(tmp_path, "pop", SETTINGS, seed=0)
    with pytest.raises(PeeralignError, match="no run at"):
        Run.existing(tmp_path)
    with pytest.raises(PeeralignError, match="no run at"):
        Run.existing(tmp_path / "absent")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    assert Run.open(tmp_path / "empty", "pop", SETTINGS, seed=0).manifest()["recipe"] == "pop"


def test_a_leftover_of_the_manifest_does_not_block_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".manifest.json.123.part").write_text("{")
    assert Run.open(tmp_path, "pop", SETTINGS, seed=0).manifest()["recipe"] == "pop"


def test_a_folder_with_brackets_in_its_name(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "run[1]")
    stage.write_shard(0, numbers(1))
    assert stage.read(SCHEMA).equals(numbers(1))


def test_a_table_is_over_all_members(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", "pop", SETTINGS, seed=0)
    assert run.table(1, "candidates", SCHEMA).equals(numbers())
    run.stage(1, "candidates", "ben").write_shard(0, numbers(3))
    run.stage(1, "candidates", "ada").write_shard(1, numbers(2))
    run.stage(1, "candidates", "ada").write_shard(0, numbers(1))
    run.stage(2, "candidates", "ada").write_shard(0, numbers(9))
    (run.stage(1, "candidates", "ada").folder / ".part-00002.parquet.9.part").write_bytes(b"PAR1")
    assert run.table(1, "candidates", SCHEMA)["n"].to_list() == [1, 2, 3]
    assert run.rounds() == [1, 2]


def test_a_checkpoint_replaces_what_was_left(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", "pop", SETTINGS, seed=0)
    aside, final = run.scratch(1, "ada"), run.checkpoint(1, "ada")
    for folder, name in ((aside, "new"), (final, "stale")):
        folder.mkdir(parents=True)
        (folder / name).touch()
    replace_folder(aside, final)
    assert [path.name for path in final.iterdir()] == ["new"]
    assert not aside.exists()
