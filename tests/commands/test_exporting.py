"""The command `peeralign export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from peeralign.cli import app
from peeralign.errors import PeeralignError


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["export", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def folder_of(tmp_path: Path) -> Path:
    for name, keys in {"gqa": {}, "chair": {}}.items():
        place = tmp_path / "rows" / name / "ada.jsonl"
        place.parent.mkdir(parents=True)
        row = {"id": "1", "question": "what?", "answer": "x", "prediction": "NA", **keys}
        place.write_text(json.dumps(row))
    return tmp_path


def test_files_and_what_is_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    said = run(str(folder), "--to", "vlmevalkit", "--out", str(folder / "kit"))
    file = folder / "kit" / "ada" / "ada_GQA_TestDev_Balanced.tsv"
    assert file.is_file()
    assert f"{file}: 1 rows (1 predictions will be read as missing)" in said
    assert "chair is left out: VLMEvalKit does not have it" in said
    run(str(folder), "--out", str(folder / "kit"), "--dataset", "gqa=GQA_2")
    assert (folder / "kit" / "ada" / "ada_GQA_2.tsv").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "vlmeval"), "did you mean 'vlmevalkit'"),
        (("--dataset", "gqa"), "is not BENCHMARK=NAME"),
        (("--dataset", "gqa=../x"), "is not BENCHMARK=NAME"),
        (("--dataset", "gpa=GQA"), "did you mean 'gqa'"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(PeeralignError, match=message):
        run(str(folder_of(tmp_path)), "--out", str(tmp_path / "kit"), *arguments)
