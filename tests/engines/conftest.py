"""A worker's environment for the tests of the vLLM engine, with a stand-in for vLLM."""

from __future__ import annotations

import json
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peeralign.engines import vllm_process
from peeralign.engines.vllm import VllmEngine
from peeralign.panel import Member, VllmWorker

STANDIN = Path(__file__).with_name("vllm_standin")


class Record:
    """What the stand-in wrote of its calls and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def calls(self, *kinds: str) -> list[dict[str, Any]]:
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        return [call for call in map(json.loads, lines) if call["call"] in kinds]

    def pids(self) -> list[int]:
        return [call[kind] for call in self.calls("LLM") for kind in ("pid", "child")]

    @staticmethod
    def gone(pid: int, seconds: float = 10) -> bool:
        """Whether a process ends in time. One that only waits to be reaped has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return True
            if state == "Z":
                return True
            time.sleep(0.05)
        return False


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with nothing installed."""
    if sys.platform != "linux":
        pytest.skip("vLLM runs on Linux")
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    return str(folder / "bin" / "python")


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Record]:
    """Puts the stand-in where a worker finds it; afterwards no worker may be left."""
    record = Record(tmp_path / "calls.jsonl")
    monkeypatch.setenv("PYTHONPATH", str(STANDIN))
    monkeypatch.setenv("VLLM_STANDIN_RECORD", str(record.path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield record
    vllm_process.end_all()
    for pid in record.pids():
        assert record.gone(pid), f"process {pid} was left behind"


@pytest.fixture
def member(bare_python: str, record: Record, tmp_path: Path) -> Callable[..., Member]:
    """Makes a member called ann on a model folder of this name, with these vLLM settings."""

    def make(model: str = "model", fields: dict[str, Any] | None = None, **settings: Any) -> Member:
        folder = tmp_path / model
        folder.mkdir(exist_ok=True)
        if not (folder / "config.json").is_file():
            (folder / "config.json").write_text("{}")
        worker = VllmWorker(**{"python": bare_python, "start_seconds": 30, **settings})
        return Member(name="ann", model=str(folder), vllm=worker, **(fields or {}))

    return make


@pytest.fixture
def engine(member: Callable[..., Member]) -> Iterator[VllmEngine]:
    engine = VllmEngine(member())
    yield engine
    engine.close()
