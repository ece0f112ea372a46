"""What becomes of vLLM's processes and adapters, with the stand-in that `test_vllm.py` explains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import peeralign
from peeralign.engines import adapters, vllm_process, vllm_worker
from peeralign.engines.base import AnswerRequest, Sampling
from peeralign.engines.vllm import VllmEngine
from peeralign.errors import PeeralignError
from peeralign.panel import Member

if TYPE_CHECKING:
    from tests.engines.conftest import Record


def ask(engine: VllmEngine, text: str) -> str | None:
    request = AnswerRequest(Image.new("RGB", (4, 4)), text, (1,))
    return engine.answer([request], Sampling())[0][0].text


# ---- adapters ----------------------------------------------------------------------------------


def save_adapter(
    folder: Path, weights: bytes = b"1", tensor: str = "a.q_proj.lora_A.weight", **config: Any
) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, **config}))
    header = json.dumps({tensor: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    content = len(header).to_bytes(8, "little") + header + weights
    (folder / "adapter_model.safetensors").write_bytes(content)
    return str(folder)


def test_an_adapter_written_again_is_another_adapter(
    member: Callable[..., Member], record: Record, tmp_path: Path
) -> None:
    for weights in (b"1", b"2", b"1"):
        path = save_adapter(tmp_path / "lora", weights)
        engine = VllmEngine(member(adapter=path, between="sleep"))
        ask(engine, "hi")
        # The copy stays as it is, whatever becomes of the folder.
        save_adapter(tmp_path / "lora", b"9")
        ask(engine, "hi")
        engine.close()
    assert len(record.calls("LLM")) == 1, "the base model need not be loaded again"
    assert record.calls("LLM")[0]["max_lora_rank"] == 8
    seen = [call["lora"] for call in record.calls("chat")]
    keys = [(lora["lora_name"], lora["lora_int_id"], lora["lora_path"]) for lora in seen]
    assert keys[0] == keys[1] == keys[4] == keys[5]
    assert keys[2] == keys[3]
    assert all(old != new for old, new in zip(keys[0], keys[2], strict=True))
    for (name, number, path), weights in zip(keys[::2], (b"1", b"2", b"1"), strict=True):
        assert name.removeprefix("peeralign-") == Path(path).name
        assert 0 < number < 2**31
        assert (Path(path) / "adapter_model.safetensors").read_bytes().endswith(weights)


def test_ranks_are_rounded_up_to_what_vllm_reserves(tmp_path: Path) -> None:
    plain = save_adapter(tmp_path / "plain", r=17)
    assert adapters.keep_adapter(plain).max_lora_rank == 32
    pattern = save_adapter(tmp_path / "pattern", rank_pattern={"q_proj": 200})
    assert adapters.keep_adapter(pattern).max_lora_rank == 256
    with pytest.raises(PeeralignError, match="has rank 600, and vLLM takes at most 512"):
        adapters.keep_adapter(save_adapter(tmp_path / "large", r=600))


def test_adapters_that_vllm_would_not_run_as_trained(tmp_path: Path) -> None:
    tensor = "base_model.model.model.vision_tower.layers.0.q_proj.lora_A.weight"
    with pytest.raises(PeeralignError, match="also changes vision_tower, which vLLM would leave"):
        adapters.keep_adapter(save_adapter(tmp_path / "tower", tensor=tensor))
    folder = Path(save_adapter(tmp_path / "pickled"))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(PeeralignError, match=r"has no adapter_model\.safetensors"):
        adapters.keep_adapter(str(folder))
    folder = Path(save_adapter(tmp_path / "broken"))
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(PeeralignError, match="no readable LoRA rank"):
        adapters.keep_adapter(str(folder))


# ---- processes ---------------------------------------------------------------------------------


def test_restart_ends_the_process_and_its_children(
    member: Callable[..., Member], record: Record
) -> None:
    for _ in range(2):
        engine = VllmEngine(member())
        log = engine.worker.log
        assert log.is_file()
        engine.close()
        engine.close()
        assert all(record.gone(pid) for pid in record.pids())
        assert not log.exists()
    assert len(record.calls("LLM")) == 2
    assert not record.calls("sleep", "wake_up")


def test_a_sleeping_model_is_woken(member: Callable[..., Member], record: Record) -> None:
    for _ in range(3):
        engine = VllmEngine(member(between="sleep"))
        assert ask(engine, "hi") == "hi by 1"
        engine.close()
        engine.close()
    kinds = [call["call"] for call in record.calls("LLM", "chat", "sleep", "wake_up")]
    assert kinds == ["LLM", *["chat", "sleep", "wake_up"] * 2, "chat", "sleep"]
    assert record.calls("sleep")[0]["level"] == 1


def test_a_changed_checkpoint_is_not_the_sleeping_one(
    member: Callable[..., Member], record: Record, tmp_path: Path
) -> None:
    VllmEngine(member(between="sleep")).close()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"the next round's")
    VllmEngine(member(between="sleep")).close()
    VllmEngine(member("round-2", between="sleep")).close()
    starts = record.calls("LLM")
    assert len(starts) == 3
    assert not record.calls("wake_up")
    # Old checkpoints do not stay in memory.
    assert all(record.gone(call[kind]) for call in starts[:2] for kind in ("pid", "child"))
    assert not record.gone(starts[2]["pid"], seconds=0.2)


def test_two_members_may_share_a_sleeping_model(
    member: Callable[..., Member], record: Record
) -> None:
    ann = member(between="sleep")
    ben = ann.model_copy(update={"name": "ben"})
    for one in (ann, ben, ann):
        VllmEngine(one).close()
    assert len(record.calls("LLM")) == 1


def test_a_sleeper_that_died_is_replaced(member: Callable[..., Member], record: Record) -> None:
    VllmEngine(member(between="sleep")).close()
    os.kill(record.pids()[0], signal.SIGKILL)
    assert record.gone(record.pids()[0])
    engine = VllmEngine(member(between="sleep"))
    assert ask(engine, "hi") == "hi by 1"
    engine.close()
    assert len(record.calls("LLM")) == 2


PARENT = """
import sys
from PIL import Image
import peeralign.chat
peeralign.chat.escape_any_controls = str
from peeralign.engines.base import AnswerRequest, Sampling
from peeralign.engines.vllm import VllmEngine
from peeralign.panel import Member
first = VllmEngine(Member.model_validate_json(sys.argv[1]))
first.close()
engine = VllmEngine(Member.model_validate_json(sys.argv[2]))
if sys.argv[3] != "leave":
    engine.answer([AnswerRequest(Image.new("RGB", (4, 4)), sys.argv[3], (1,))], Sampling())
"""


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_no_worker_outlives_its_parent(
    member: Callable[..., Member], record: Record, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    # One member sleeps and one is awake; the second parent is killed in the middle of a batch.
    first = member("first", between="sleep").model_copy(update={"name": "ben"})
    arguments = [first.model_dump_json(), member().model_dump_json()]
    root = Path(peeralign.__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(root)]))
    text = "leave" if how == "exit" else "HANG"
    command = [sys.executable, "-W", "error", "-c", PARENT, *arguments, text]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        if how == "kill":
            deadline = time.monotonic() + 60
            while not record.calls("hang"):
                assert parent.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert not any(record.gone(pid, seconds=0.1) for pid in record.pids())
            parent.kill()
        _, printed = parent.communicate(timeout=60)
    assert parent.returncode == (0 if how == "exit" else -signal.SIGKILL)
    assert printed == ""
    assert len(record.pids()) == 4
    assert all(record.gone(pid) for pid in record.pids())
    # An orderly end leaves no logs; they stay where one might want to know what happened.
    logs = list(record.path.parent.glob("peeralign-vllm-*"))
    assert len(logs) == (0 if how == "exit" else 2)


def test_a_worker_started_by_hand_ends_with_its_input(bare_python: str, record: Record) -> None:
    command = [bare_python, str(vllm_process.WORKER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            # Python puts the script's folder first, and a vllm.py that is not vLLM lies in it.
            worker.stdin.write(b'{"id": 5, "do": "load", "model": "m", "options": {}}\n')
            worker.stdin.flush()
            assert json.loads(worker.stdout.readline()) == {"id": 5, "result": {}}
            worker.stdin.close()
            assert worker.wait(timeout=10) == 1
        finally:
            worker.kill()
            # It leads no group of its own, so it leaves alone what it started.
            for call in record.calls("LLM"):
                os.kill(call["child"], signal.SIGKILL)


def test_the_worker_needs_only_the_standard_library(bare_python: str) -> None:
    script = Path(vllm_worker.__file__)
    code = (
        "import runpy, sys; before = set(sys.modules);"
        f"runpy.run_path({str(script)!r}, run_name='worker');"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(new - set(sys.stdlib_module_names)), 'pickle' in new)"
    )
    done = subprocess.run([bare_python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
