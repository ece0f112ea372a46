"""A run's folder is its state: a stage is done or absent, never half.

    RUN/inputs/                           what a command drew for its own run (the demo)
    RUN/manifest.json                     settings, their digest, versions
    RUN/summary.json  RUN/report.html     results
    RUN/round-K/STAGE[/MEMBER]/part-00000.parquet ...   tables, sharded by block of questions
    RUN/round-K/STAGE[/MEMBER]/done.json                written last: counts and seconds

A shard is written aside, flushed to disk and renamed, so it is whole or absent. Running the same
command again skips whole shards and done stages; since every row's seed belongs to its item, the
result is the one an uninterrupted run gives.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
from safetensors import SafetensorError

from peeralign.distributed import names_in, rank
from peeralign.errors import PeeralignError
from peeralign.records import make_id

DONE = "done.json"
# Data a command prepared for its own run (the demo's pool and exam) may be there before the run.
INPUTS = "inputs"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise PeeralignError(_disk_full(path)) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR):
            raise PeeralignError(
                f"{path} cannot be written ({error.strerror}); choose another folder with --out"
            ) from error
        raise
    except (SafetensorError, RuntimeError) as error:
        # The writers of safetensors and torch report a full disk in their own words.
        if not any(sign in str(error) for sign in _DISK_FULL_SIGNS):
            raise
        raise PeeralignError(_disk_full(path)) from error


_DISK_FULL_SIGNS = (
    "No space left",
    "File too large",
    "os error 28",
    "os error 27",
    "PytorchStreamWriter failed",
    "unexpected pos",
)


def _disk_full(path: Path) -> str:
    return (
        f"the disk is full: {path} could not be written; free some space and run the same command "
        "again, everything finished so far is kept"
    )


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds all of it or does not exist."""
    # Processes on two machines may have one number.
    aside = path.with_name(f".{path.name}.{os.getpid()}-{rank()}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write a Parquet file (zstd), whole or not at all."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


def write_lines(path: Path, table: pl.DataFrame) -> None:
    """Write a table as JSON lines, whole or not at all."""
    lines = io.BytesIO()
    table.write_ndjson(lines)
    write_whole(path, lines.getvalue())


class Stage:
    """One stage's folder: numbered Parquet shards, and a marker that says it is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_done(self) -> bool:
        return self.done.is_file()

    @property
    def done(self) -> Path:
        return self.folder / DONE

    def shard(self, index: int) -> Path:
        return self.folder / f"part-{index:05d}.parquet"

    def has_shard(self, index: int) -> bool:
        return self.shard(index).is_file()

    def missing(self, count: int) -> list[int]:
        """Which of the first `count` shards are not there yet."""
        there = names_in(self.folder)
        return [index for index in range(count) if self.shard(index).name not in there]

    def write_shard(self, index: int, table: pl.DataFrame) -> None:
        write_table(self.shard(index), table)

    def finish(self, **facts: Any) -> None:
        """Mark the stage done; `facts` (counts, seconds) are kept in the marker."""
        write_json(self.done, facts)

    def facts(self) -> dict[str, Any]:
        return json.loads(self.done.read_text()) if self.is_done else {}

    def read(self, schema: pl.Schema) -> pl.DataFrame:
        """All shards as one table (empty when there are none)."""
        paths = sorted(self.folder.glob("part-*.parquet"))
        if not paths:
            return pl.DataFrame(schema=schema)
        try:
            return pl.read_parquet(paths, hive_partitioning=False, glob=False)
        except pl.exceptions.ComputeError as error:
            raise PeeralignError(
                f"a table in {self.folder} is damaged ({str(error).splitlines()[0]}); remove this "
                "folder and run the same command again"
            ) from error


class Run:
    """A run's folder. `Run.open` makes it or resumes it; `Run.existing` only reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(
        cls,
        folder: Path,
        recipe: str,
        settings: dict[str, Any],
        seed: int,
        may_become: Callable[[dict[str, Any], dict[str, Any]], bool] | None = None,
    ) -> Run:
        """Make the folder, or resume it if it was made with the same settings.

        `may_become` takes the old settings and the new ones, and says whether what is there stays
        right under the new ones, which then replace the old. Raises PeeralignError when the folder
        was made with other settings, naming them.
        """
        run = cls(folder)
        manifest = {
            "recipe": recipe,
            "settings_digest": make_id(json.dumps(settings, sort_keys=True)),
            "seed": seed,
            "settings": settings,
            "versions": installed_versions(),
        }
        path = folder / "manifest.json"
        if path.is_file():
            old = run.manifest()
            is_same = old["settings_digest"] == manifest["settings_digest"]
            if old["recipe"] == recipe and not is_same and may_become:
                is_same = may_become(old["settings"], settings)
                if is_same:
                    write_json(path, manifest)
            if old["recipe"] != recipe or not is_same:
                raise PeeralignError(_other_settings(folder, old, manifest))
        else:
            cls.check_usable(folder)
            write_json(path, manifest)
        return run

    @staticmethod
    def check_usable(folder: Path) -> None:
        """Raise PeeralignError if `folder` holds something that is no run."""
        if folder.exists() and not folder.is_dir():
            raise PeeralignError(f"{folder} is a file, not a folder; choose another --out")
        if (folder / "manifest.json").is_file() or not folder.is_dir():
            return
        foreign = [entry.name for entry in folder.iterdir() if not entry.name.endswith(".part")]
        if set(foreign) - {INPUTS}:
            raise PeeralignError(
                f"{folder} is not empty and is no run of peeralign; choose another --out"
            )

    @classmethod
    def existing(cls, folder: Path) -> Run:
        """Open a run for reading. Raises PeeralignError if there is none at `folder`."""
        if not (folder / "manifest.json").is_file():
            raise PeeralignError(
                f"no run at {folder} (it has no manifest.json); give a run's folder"
            )
        return cls(folder)

    def manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise PeeralignError(
                f"{path} is damaged ({error}); put it back, or choose another folder"
            ) from error

    def stage(self, round_number: int, name: str, member: str = "") -> Stage:
        return Stage(self.round_folder(round_number) / name / member)

    def round_folder(self, round_number: int) -> Path:
        return self.folder / f"round-{round_number}"

    def rounds(self) -> list[int]:
        """Numbers of the rounds that have a folder, in order."""
        names = (path.name.removeprefix("round-") for path in self.folder.glob("round-*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def table(self, round_number: int, name: str, schema: pl.Schema) -> pl.DataFrame:
        """A stage's table over all members, or an empty one."""
        paths = sorted((self.round_folder(round_number) / name).rglob("part-*.parquet"))
        if not paths:
            return pl.DataFrame(schema=schema)
        return pl.read_parquet(paths, hive_partitioning=False, glob=False)

    def checkpoint(self, round_number: int, member: str) -> Path:
        """Where a member's weights after this round lie."""
        return self.round_folder(round_number) / "members" / member

    def scratch(self, round_number: int, member: str) -> Path:
        """Where a member's unfinished training of this round lies; removed when it is done."""
        return self.round_folder(round_number) / "training" / member


def replace_folder(aside: Path, final: Path) -> None:
    """Move a finished folder into place, dropping what an interrupted run left there."""
    with disk_errors(final):
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(final)


def installed_versions() -> dict[str, str]:
    """Versions of the packages that shape results."""
    names = ("peeralign", "torch", "transformers", "accelerate", "tokenizers", "pillow", "polars")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(settings, dict):
        items = [(str(key), value) for key, value in settings.items()]
    elif isinstance(settings, list) and any(isinstance(value, dict) for value in settings):
        items = [(str(index), value) for index, value in enumerate(settings)]
    else:
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat


# Section of the settings -> the first stage whose result depends on it, in the order of a round.
_FIRST_TOUCHED = {
    "file": "rows",
    "content": "rows",
    "image_root": "rows",
    "max_image_pixels": "rows",
    "seed": "questions",
    "sources": "questions",
    "pool": "questions",
    "questions_per_round": "questions",
    "images": "questions",
    "members": "answers",
    "generate": "answers",
    "views": "answers",
    "prompts": "answers",
    "corruptions": "answers",
    "misleading_share": "answers",
    "wave_questions": "answers",
    "judge": "judgments",
    "judges": "judgments",
    "rewards": "judgments",
    "rubric": "judgments",
    "aggregate": "rewards",
    "curate": "pairs",
    "train": "training",
    "instructions": "stage 2",
    "infuse": "stage 2",
    "exam": "exams",
    "rounds": "number of rounds",
}


def _other_settings(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> str:
    if old["recipe"] != new["recipe"]:
        what = f"recipe {old['recipe']}, not {new['recipe']}"
    else:
        before, after = _flat(old["settings"]), _flat(new["settings"])
        changed = sorted(
            key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
        )
        what = ", ".join(f"{key} = {before.get(key)}, not {after.get(key)}" for key in changed[:5])
        what += f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        touched = {key.split(".")[0] for key in changed}
        stages = [stage for section, stage in _FIRST_TOUCHED.items() if section in touched]
        what += f"; this changes everything from the {(stages or ['start'])[0]} on"
    return (
        f"{folder} was made with other settings ({what}); "
        "choose another --out, or give the settings it was made with"
    )
