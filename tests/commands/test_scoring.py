"""`peeralign score`: what it prints, and its mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peeralign.cli import app, guarded

ROWS = [
    {"id": 1, "prediction": "0.12", "answer": "12%", "split": "human", "image": "a"},
    {"id": 2, "prediction": "12", "answer": "12%", "split": "augmented", "image": "b"},
    {"id": 3, "prediction": None, "answer": "7", "split": "[red]\x1b[2J", "image": "b"},
]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = guarded(lambda: app(["score", *arguments], standalone_mode=False))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_json(capsys: pytest.CaptureFixture[str], file: str) -> None:
    code, out, err = run(capsys, "ChartQA", file, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["score"], found["protocol"]) == (0.333333, "official")
    assert found["interval"] == [0.0, 1.0]
    assert found["relaxed_accuracy_human"] == 1
    assert found["parse_failure_rate"] == 0.333333


def test_the_protocol_is_named_beside_the_number(
    capsys: pytest.CaptureFixture[str], file: str
) -> None:
    code, out, _ = run(capsys, "chartqa", file, "--protocol", "lmms-eval")
    assert code == 0
    assert "ChartQA, protocol lmms-eval: relaxed_accuracy 0.3333 (0 to 1)" in out
    assert "3 rows, 1 not read and 0 ambiguous" in out
    assert "2 clusters, by image" in out
    assert "relaxed_accuracy_human" in out
    # A name from the file cannot command the terminal.
    assert "\x1b" not in out
    assert "[red]" in out


def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    code, _, err = run(capsys, "chartqa", str(path))
    assert code == 2
    assert err == (
        f"error: no predictions at {path}: the file does not exist; give a JSON lines file\n"
    )
    path.write_text('{"id": 1, "prediction": "x"}\n')
    code, _, err = run(capsys, "chartqa", str(path))
    assert (code, err.count("\n")) == (2, 1)
    assert f"{path}, line 1 has no 'answers'" in err
    code, _, err = run(capsys, "mmbnch", str(path))
    assert code == 2
    assert err.endswith("did you mean 'mmbench'?\n")


def test_it_imports_no_torch(file: str) -> None:
    code = (
        "import sys\nfrom peeralign.cli import app\n"
        f"app(['score', 'chartqa', {file!r}], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
