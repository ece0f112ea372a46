"""A user's mistake is one sentence and exit code 2; a broken item is set aside and counted."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from peeralign.classroom.peers import shipped_peer


def _refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    for word in words:
        assert word in done.stderr


def _without_image_processor(folder: Path) -> Path:
    source = shipped_peer("ada")
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


def test_mistakes_end_with_one_sentence(workplace, tmp_path: Path) -> None:
    empty = tmp_path / "empty.parquet"
    pl.read_parquet(workplace.folder / "pool.parquet").head(0).write_parquet(empty)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes((workplace.folder / "pool.parquet").read_bytes()[:500])
    hollow = tmp_path / "hollow"
    hollow.mkdir()
    blind = _without_image_processor(tmp_path / "blind")
    cases = {
        "pool.path=nowhere.parquet": ("nowhere.parquet",),
        f"pool.path={torn}": (torn.name,),
        f"pool.path={empty}": (empty.name,),
        "pool.question_column=qestion": ("qestion", "question"),
        "train.learnig_rate=1": ("learnig_rate", "learning_rate"),
        f"members.0.model={hollow}": (str(hollow), "config.json"),
        f"members.0.model={blind}": (str(blind), "image processor"),
    }
    for number, (assignment, words) in enumerate(cases.items()):
        out = tmp_path / f"run-{number}"
        run = workplace.here if number else workplace.run
        done = run("run", "recipe.toml", "--out", str(out), "--set", assignment)
        _refused(done, *words)


@pytest.mark.slow
def test_disk_full_keeps_what_is_done_and_the_same_command_goes_on(
    workplace, finished: Path, tmp_path: Path, assert_same_result
) -> None:
    """A file-size limit makes the kernel refuse writes, as a full disk does."""
    out = tmp_path / "full"
    command = workplace.command("run", "recipe.toml", "--out", str(out))

    def small_files() -> None:
        # Tables fit, the checkpoints of training do not.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = subprocess.run(
        command,
        cwd=workplace.folder,
        env=workplace.environment,
        capture_output=True,
        text=True,
        preexec_fn=small_files,
        timeout=300,
    )
    _refused(done, "full")
    assert (out / "round-1/pairs/done.json").is_file()
    again = workplace.run("run", "recipe.toml", "--out", str(out))
    assert again.returncode == 0, again.stdout + again.stderr
    assert_same_result(finished, out)


def _huge_png() -> bytes:
    """A valid PNG header of 13000 x 13000 px in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 13000, 13000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(13001) * 13000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def odd_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, size=(48, 48, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(folder / "fine.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rng.integers(0, 65535, size=(48, 48), dtype=np.uint16)).save(
        folder / "sixteen.png"
    )
    picture.save(folder / "moving.gif", save_all=True, append_images=[picture.rotate(90)])
    picture.convert("P").save(folder / "palette.png", transparency=3)
    picture.resize((1, 1)).save(folder / "dot.png")
    (folder / "torn.png").write_bytes((folder / "fine.png").read_bytes()[:900])
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "huge.png").write_bytes(_huge_png())
    names = [path.name for path in sorted(folder.iterdir())] + ["missing.png", "../outside.png"]
    rows = [{"image": name, "question": f"what is in {name}?"} for name in names]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pool.jsonl"


def test_odd_images_are_converted_or_set_aside_and_counted(
    workplace, odd_pool: Path, tmp_path: Path
) -> None:
    out = tmp_path / "odd"
    done = workplace.run("run", "recipe.toml", "--out", str(out), "--set", f"pool.path={odd_pool}")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = pl.read_parquet(out / "round-1/questions/part-00000.parquet")
    used = {Path(image["path"]).name for image in asked["image"]}
    assert used == {"fine.png", "cmyk.jpg", "sixteen.png", "moving.gif", "palette.png", "dot.png"}
    facts = json.loads((out / "round-1/questions/done.json").read_text())
    assert facts["questions"] == 6
    assert facts["set_aside"] == 6
    assert sum(facts["reasons"].values()) == 6
    candidates = pl.read_parquet(out / "round-1/candidates/ada/part-*.parquet")
    assert candidates["question_id"].n_unique() == 6
