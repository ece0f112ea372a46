"""`peeralign compare`: what it prints and writes, and its mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evals.folders import gqa, write_eval, write_exam_file, write_run

from peeralign.cli import app, guarded

A, B = "111100001100", "111011001100"


@pytest.fixture
def sides(tmp_path: Path) -> list[str]:
    """Two evaluations, of one member each."""
    return [
        str(write_eval(tmp_path / name, {"gqa": {"x": gqa(letters)}}))
        for name, letters in (("a", A), ("b", B))
    ]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = guarded(lambda: app(["compare", *arguments], standalone_mode=False))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_json(capsys: pytest.CaptureFixture[str], sides: list[str]) -> None:
    code, out, err = run(capsys, *sides, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert found["benchmarks"][0]["pairs"][0]["figures"]["accuracy"]["difference"] == 0.083333
    assert (found["seed"], found["resamples"]) == (0, 2000)
    again = json.loads(run(capsys, *sides, "--json", "--seed", "1")[1])
    figures = [each["benchmarks"][0]["pairs"][0]["figures"]["accuracy"] for each in (found, again)]
    assert figures[0]["difference"] == figures[1]["difference"]
    assert figures[0]["p"] != figures[1]["p"]


def test_tables(capsys: pytest.CaptureFixture[str], sides: list[str]) -> None:
    code, out, _ = run(capsys, *sides)
    assert code == 0
    assert "GQA, official" in out
    assert "+0.083" in out


def test_members_rounds_and_benchmarks_are_chosen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    exam = write_exam_file(tmp_path / "exam.parquet", {"count": 12})
    rounds = {0: {"ada": {"count": A}, "ben": {"count": B}}, 1: {"ada": {"count": B}}}
    folder = str(write_run(tmp_path / "run", exam, rounds))
    options = ["--round", "0", "--against-round", "0", "--member", "ada", "--against", "ben"]
    code, out, _ = run(capsys, folder, folder, *options, "--benchmark", "exam", "--json")
    found = json.loads(out)
    assert (code, found["a"]["round"], found["b"]["round"]) == (0, 0, 0)
    pair = found["benchmarks"][0]["pairs"][0]
    assert (pair["a"], pair["b"], pair["wins"], pair["losses"]) == ("ada", "ben", 2, 1)
    code, _, err = run(capsys, folder, folder, "--against-round", "3")
    assert code == 2
    assert err.endswith(
        "has no exam of round 3, only of 0, 1; give one of them with --against-round\n"
    )
    code, out, _ = run(capsys, folder, folder, "--out", str(tmp_path / "page.html"), "--json")
    assert code == 0
    json.loads(out)
    assert "A and B are the same answers" in (tmp_path / "page.html").read_text()


def test_mistakes_are_one_sentence(
    capsys: pytest.CaptureFixture[str], sides: list[str], tmp_path: Path
) -> None:
    def said(*arguments: str) -> str:
        code, out, err = run(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    assert "cannot hold the page; name a file that ends in .html" in said(*sides, "--out", "x.png")
    assert "no run at" in said(sides[0], str(tmp_path / "none"))
    assert "has no member 'y', it has x" in said(*sides, "--against", "y")
    assert "no benchmark named 'gqq' is in either folder" in said(*sides, "--benchmark", "gqq")


def test_it_imports_no_torch(sides: list[str]) -> None:
    code = (
        "import sys\nfrom peeralign.cli import app\n"
        f"app(['compare', *{sides!r}], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
