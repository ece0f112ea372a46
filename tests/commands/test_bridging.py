"""The command `peeralign lmms-eval`, where lmms-eval is not installed; tests/bridge is the rest."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from peeralign.cli import app
from peeralign.commands.bridging import lines_of
from peeralign.errors import PeeralignError

ARGUMENTS = ("lmms-eval", "--member", "classroom:ada", "--out", "out")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The command sets these, and they are to go with it.
    for name in ("HF_HUB_DISABLE_TELEMETRY", "WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(
    importlib.util.find_spec("lmms_eval") is not None, reason="lmms-eval is installed"
)
def test_without_lmms_eval() -> None:
    with pytest.raises(PeeralignError, match="'make bridge' sets up"):
        CliRunner().invoke(app, [*ARGUMENTS, "--tasks", "chartqa"], catch_exceptions=False)
    assert not Path("out").exists()


def test_no_task() -> None:
    with pytest.raises(PeeralignError, match="no task was named"):
        CliRunner().invoke(app, [*ARGUMENTS, "--tasks", " ,"], catch_exceptions=False)


def test_what_a_user_reads() -> None:
    score = {
        **{"headline": "accuracy", "score": 0.5, "interval": [0.25, 0.75]},
        "parse_failure_rate": 0.125,
    }
    tasks = {
        "pope": {
            **{"num_items": 8, "num_unanswered": 1, "reasons": {"no image": 1}, "score": score}
        },
        "mine": {"num_items": 2, "num_unanswered": 0, "reasons": {}, "no_rows": "KeyError: 'x'"},
    }
    figures = {"alias": "pope", "pope_accuracy,none": 0.5, "pope_accuracy_stderr,none": 0.1}
    found = lines_of(
        {
            "results": {"pope": figures, "mine": {}},
            "peeralign": {"tasks": tasks, "ignored": {"num_beams": 4}},
        }
    )
    assert found == [
        "pope, 8 items: pope_accuracy 0.5",
        "  by our lmms-eval protocol: accuracy 0.5 (0.25 to 0.75), 12.5% not read",
        "  1 without a reply (1 no image), scored as empty replies",
        "mine, 2 items: no figure",
        "  no rows of ours: KeyError: 'x'",
        "settings of tasks that members do not have: num_beams = 4",
    ]
