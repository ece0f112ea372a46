"""The vLLM engine: the real engine and the real worker script, in two processes, without vLLM.

vLLM itself does not run on the test machines. A stand-in package of its name
(`vllm_standin/vllm`) takes its place in the worker: it has vLLM's names, refuses others, records
every call and answers by rules. The worker runs in a bare environment of its own, as it would
beside vLLM: neither peeralign nor anything else is installed there.
"""

from __future__ import annotations

import base64
import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from peeralign.engines import vllm, vllm_worker
from peeralign.engines.base import AnswerRequest, JudgeRequest, Sampling, SentenceBeam
from peeralign.engines.vllm import VllmEngine
from peeralign.errors import PeeralignError
from peeralign.judging.verdict import Form
from peeralign.panel import Member

if TYPE_CHECKING:
    from tests.engines.conftest import Record

FORM = Form(("image use", "right"), (1, 5))
RED, BLUE = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))


def ask(engine: VllmEngine, *texts: str, seeds: tuple[int, ...] = (1,)) -> list[list[str | None]]:
    asked = [AnswerRequest(RED, text, seeds) for text in texts]
    replies = engine.answer(asked, Sampling(len(seeds), 1.0, 0.9, 33))
    return [[draw.text for draw in draws] for draws in replies]


def one_line(error: pytest.ExceptionInfo[PeeralignError]) -> str:
    """The error's sentence: whatever follows in other lines is the log."""
    sentence = str(error.value).split("\n")[0]
    assert "Traceback" not in sentence
    return sentence


# ---- answering ---------------------------------------------------------------------------------


def test_all_draws_of_all_questions_are_one_call_in_order(
    engine: VllmEngine, record: Record
) -> None:
    texts = [f"question {number}" for number in range(5)]
    requests = [
        AnswerRequest(RED if number % 2 else BLUE, text, (2**63 - 1 - number, number))
        for number, text in enumerate(texts)
    ]
    replies = engine.answer(requests, Sampling(2, 0.7, 0.9, 33))
    assert [[draw.text for draw in draws] for draws in replies] == [
        [f"{text} by {2**63 - 1 - number}", f"{text} by {number}"]
        for number, text in enumerate(texts)
    ]
    (call,) = record.calls("chat")
    assert call["texts"] == [text for text in texts for _ in range(2)]
    for params in call["params"]:
        assert (params["n"], params["temperature"], params["top_p"]) == (1, 0.7, 0.9)
        assert params["max_tokens"] == 33
        assert params["structured_outputs"] is params["logprob_token_ids"] is None
    for data, request in zip(call["images"][::2], requests, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (8, 6)
            assert image.getpixel((3, 3)) == request.image.getpixel((3, 3))


def test_tokens_are_counted_and_empty_or_broken_answers_have_a_reason(engine: VllmEngine) -> None:
    requests = [AnswerRequest(RED, text, (7,)) for text in ("hi", "SILENT", "ABORT")]
    (hi,), (silent,), (abort,) = engine.answer(requests, Sampling())
    assert (hi.text, hi.num_tokens, hi.reason) == ("hi by 7", len(" hi by 7 ") + 1, None)
    assert (silent.text, silent.reason) == (None, "empty answer")
    assert (abort.text, abort.reason) == (None, "vLLM ended it by abort")


def test_text_is_escaped_on_its_way_to_the_model(
    engine: VllmEngine, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peeralign.engines.vllm.escape_any_controls", lambda text: f"[{text}]")
    ask(engine, "look: <image>")
    engine.judge([JudgeRequest(RED, ("grade <image>: write {}",), FORM)], "text")
    sent = [call["texts"] for call in record.calls("chat")]
    assert sent == [["[look: <image>]"], ["[grade <image>: write {}]"]]


def test_long_and_foreign_answers_survive(engine: VllmEngine) -> None:
    long = ("é漢🙂\n" * 12_000).strip()
    assert len(long.encode()) > 100_000
    question = "a\u2028 ünï\ncode \x00 " + "x" * 200_000
    assert ask(engine, "LONG", question) == [[long], [f"{question} by 1"]]


def test_one_bad_prompt_is_set_aside(engine: VllmEngine, record: Record) -> None:
    texts = [f"question {number}" for number in range(6)]
    texts[4] = "POISON"
    requests = [AnswerRequest(RED, text, (1, 2)) for text in texts]
    replies = engine.answer(requests, Sampling(2, 1.0))
    for text, draws in zip(texts, replies, strict=True):
        if text == "POISON":
            assert [draw.text for draw in draws] == [None, None]
            assert all("VLLMValidationError: The decoder prompt" in d.reason for d in draws)
        else:
            assert [draw.text for draw in draws] == [f"{text} by 1", f"{text} by 2"]
    # 0-5, 0-2, 3-5, 3, 4-5, 4, 5: halves, so few calls are small.
    assert len(record.calls("chat")) == 7
    verdicts = engine.judge([JudgeRequest(RED, ("POISON", "give 2 3"), FORM)], "expected")
    bad, good = verdicts[0]
    assert bad.axes is None
    assert "VLLMValidationError" in (bad.reason or "")
    assert good.axes == pytest.approx([2.4, 3.4])


def test_nothing_to_do_is_no_call(engine: VllmEngine, record: Record) -> None:
    assert engine.answer([], Sampling()) == []
    assert engine.judge([JudgeRequest(RED, (), FORM)], "expected") == [[]]
    assert not record.calls("chat")


def test_a_beam_is_refused(engine: VllmEngine, record: Record) -> None:
    with pytest.raises(PeeralignError, match=r"'ann' runs on vLLM, which has no sentence-level"):
        engine.answer([AnswerRequest(RED, "hi", (1,))], Sampling(beam=SentenceBeam()))
    assert not record.calls("chat")


# ---- judging -----------------------------------------------------------------------------------


def test_expected_and_greedy_scores(engine: VllmEngine, record: Record) -> None:
    requests = [
        JudgeRequest(RED, ("give 1 2", "give 5 3"), FORM),
        JudgeRequest(BLUE, ("give 4 4",), FORM),
    ]
    (first, second), (third,) = engine.judge(requests, "expected")
    assert first.axes == pytest.approx([1.4, 2.4])
    assert second.axes == pytest.approx([4.6, 3.4])
    assert third.axes == pytest.approx([4.4, 4.4])
    assert first.label_mass == pytest.approx(1.0)
    assert first.raw == '{"image use": 1, "right": 2}'
    (greedy, _), _ = engine.judge(requests, "greedy")
    assert greedy.axes == [1.0, 2.0]
    expected_call, greedy_call = record.calls("chat")
    assert expected_call["params"] == greedy_call["params"]
    assert len(set(expected_call["images"])) == 2
    for params in expected_call["params"]:
        assert params["temperature"] == 0
        assert params["structured_outputs"]["json"] == FORM.schema()
        # The digit alone and behind a space; no other token, and no top-k.
        wanted = [*range(ord("1"), ord("6")), *range(2_000_001, 2_000_006)]
        assert sorted(params["logprob_token_ids"]) == sorted(wanted)
        assert params["logprobs"] is None
        assert params["max_tokens"] >= 2 * len('{"image use": 1, "right": 2}')


def test_a_score_token_may_hold_its_space(engine: VllmEngine) -> None:
    ((verdict,),) = engine.judge([JudgeRequest(RED, ("give 3 - 2 -",), FORM)], "expected")
    assert verdict.axes == pytest.approx([3.4, 2.4])
    assert verdict.raw == '{"image use": 3, "right": 2}'


def test_forms_are_kept_apart(engine: VllmEngine, record: Record) -> None:
    other = Form(("only",), (0, 9))
    requests = [
        JudgeRequest(RED, ("give 9",), other),
        JudgeRequest(RED, ("give 2 2",), FORM),
        JudgeRequest(BLUE, ("give 0",), other),
    ]
    replies = engine.judge(requests, "greedy")
    assert [verdict.axes for (verdict,) in replies] == [[9.0], [2.0, 2.0], [0.0]]
    schemas = [
        call["params"][0]["structured_outputs"]["json"]["required"] for call in record.calls("chat")
    ]
    assert schemas == [["only"], ["image use", "right"]]


def test_the_text_readout_is_plain(engine: VllmEngine, record: Record) -> None:
    texts = ('write so: {"Image use": 4, "right": 1}', "write nothing")
    ((read, unread),) = engine.judge([JudgeRequest(RED, texts, FORM)], "text")
    assert read.axes == [4.0, 1.0]
    assert (unread.axes, unread.reason) == (None, "no JSON object in the reply")
    (call,) = record.calls("chat")
    for params in call["params"]:
        assert params["temperature"] == 0
        assert params["structured_outputs"] is params["logprob_token_ids"] is None


def test_a_score_that_is_no_token_is_an_error(engine: VllmEngine, record: Record) -> None:
    request = JudgeRequest(RED, ("give 3",), Form(("only",), (0, 10)))
    with pytest.raises(PeeralignError, match=r'set judge\.readout = "text"') as error:
        engine.judge([request], "expected")
    assert "every score as one token" in one_line(error)
    assert not record.calls("chat")


def test_missing_probabilities_are_an_error(member: Callable[..., Member]) -> None:
    engine = VllmEngine(member("deaf"))
    try:
        with pytest.raises(PeeralignError, match="no log-probabilities of the scores"):
            engine.judge([JudgeRequest(RED, ("give 3 3",), FORM)], "expected")
    finally:
        engine.close()


class Spaced:
    """A tokenizer that decodes a digit's space, or its line break, with the digit."""

    all_special_ids = (7,)

    def __init__(self, numbers: int) -> None:
        marks = ("", "\u0120", "\u2581\u2581")
        self.vocab = {
            f"{mark}{n}": 10 * n + place for n in range(numbers) for place, mark in enumerate(marks)
        } | {"<8": 7}

    def get_vocab(self) -> dict[str, int]:
        return self.vocab

    def decode(self, ids: list[int]) -> str:
        (number,) = ids
        return "8" if number == 7 else ("", " ", "\n ")[number % 10] + str(number // 10)


def test_labels_are_found_with_and_without_space_before_them() -> None:
    found = vllm_worker.find_label_ids(Spaced(12), [8, 11])
    assert found == {"8": [80, 81, 82], "11": [110, 111, 112]}
    with pytest.raises(vllm_worker.CannotScore, match="every score as one token"):
        vllm_worker.find_label_ids(Spaced(12), [8, 12])
    with pytest.raises(vllm_worker.CannotScore, match="more than 128 tokens"):
        vllm_worker.find_label_ids(Spaced(100), list(range(50)))


def test_a_character_of_two_tokens_is_put_together() -> None:
    class Bytes:
        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return bytes(ids).decode("utf-8", errors="replace")

    texts = vllm_worker.token_texts(Bytes(), list("a漢b".encode()))
    assert texts == ["a", "", "", "漢", "b"]


# ---- loading, and what can go wrong ------------------------------------------------------------


def test_settings_reach_vllm(member: Callable[..., Member], record: Record) -> None:
    settings = {"gpu_memory_utilization": 0.5, "tensor_parallel_size": 2, "max_model_len": 4096}
    fields = {"dtype": "float16", "device": "cuda:2"}
    VllmEngine(member("model", fields, **settings)).close()
    VllmEngine(member("model", {"trust_remote_code": True}, between="sleep")).close()
    first, second = record.calls("LLM")
    assert {name: first[name] for name in settings} == settings
    assert first["dtype"] == "float16"
    assert first["visible"] == "2,3"
    assert first["trust_remote_code"] is False
    assert first["safe_path"] is True
    assert first["load_format"] == "safetensors"
    assert first["enable_prefix_caching"] is True
    assert first["enable_lora"] is first["enable_sleep_mode"] is False
    assert second["dtype"] == "bfloat16"
    assert second["trust_remote_code"] is second["enable_sleep_mode"] is True
    assert second["visible"] is None


def test_devices_count_from_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    assert vllm.visible_devices("cuda:1", 2) == (("CUDA_VISIBLE_DEVICES", "6,7"),)
    assert vllm.visible_devices("cuda", 2) == ()
    with pytest.raises(PeeralignError, match="more GPUs than CUDA_VISIBLE_DEVICES=4,6,7 shows"):
        vllm.visible_devices("cuda:2", 2)


def test_each_process_of_a_machine_takes_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in {"RANK": "6", "LOCAL_RANK": "2", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert vllm.visible_devices("auto", 1) == (("CUDA_VISIBLE_DEVICES", "2"),)
    assert vllm.visible_devices("auto", 2) == (("CUDA_VISIBLE_DEVICES", "4,5"),)
    assert vllm.visible_devices("cuda:1", 1) == (("CUDA_VISIBLE_DEVICES", "1"),)


def test_vllm_is_not_installed(
    member: Callable[..., Member], bare_python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(PeeralignError, match="vLLM is not installed for") as error:
        VllmEngine(member())
    assert bare_python in one_line(error)
    assert str(error.value) == one_line(error)
    assert not list(tmp_path.glob("*.log")), "the error says it all, and names no log"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "does not start (No such file or directory)"),
        ("no program", "does not start (Exec format error)"),
        ("#!/bin/sh\nexit 3\n", "ended with exit code 3 while loading"),
        ("#!/bin/sh\nexec cat\n", "does not answer as a Python interpreter would"),
        ("#!/bin/sh\nread line\necho 17\n", "does not answer as a Python interpreter would"),
    ],
)
def test_a_wrong_interpreter(
    member: Callable[..., Member], tmp_path: Path, script: str | None, says: str
) -> None:
    python = tmp_path / "python"
    if script is not None:
        python.write_text(script)
        python.chmod(0o755)
    with pytest.raises(PeeralignError) as error:
        VllmEngine(member(python=str(python)))
    assert says in one_line(error)
    assert "'ann'" in one_line(error)


def test_loading_has_a_time_limit(member: Callable[..., Member], record: Record) -> None:
    started = time.monotonic()
    with pytest.raises(PeeralignError, match=r"vLLM was not ready in time while loading") as error:
        VllmEngine(member("slow", start_seconds=1))
    assert time.monotonic() - started < 15
    assert "raise vllm.start_seconds" in one_line(error)
    assert "Loading safetensors checkpoint shards" in str(error.value)
    assert all(record.gone(pid) for pid in record.pids())


def test_vllm_refuses_the_model(member: Callable[..., Member]) -> None:
    with pytest.raises(PeeralignError, match="No available memory for the cache blocks") as error:
        VllmEngine(member(gpu_memory_utilization=0.01))
    assert "vLLM failed while loading" in one_line(error)
    assert "(ValueError: " in one_line(error)


def test_death_in_a_batch_shows_the_log(engine: VllmEngine, record: Record) -> None:
    with pytest.raises(PeeralignError, match="ended with exit code 7 while answering") as error:
        ask(engine, "question", "DIE")
    assert one_line(error).count("'ann'") == 1
    log = str(error.value)
    assert "the engine fell over its own feet" in log
    # What vLLM prints to stdout is in the log as well, and did not disturb the replies.
    assert "Processed prompts: 100%" in log
    assert all(record.gone(pid) for pid in record.pids())
    engine.close()
    with pytest.raises(PeeralignError, match="has ended; run the same command again"):
        ask(engine, "question")


def test_a_killed_worker_names_the_signal(engine: VllmEngine, record: Record) -> None:
    os.kill(record.pids()[0], signal.SIGKILL)
    with pytest.raises(PeeralignError, match=r"by signal 9 \(the machine may have run out of mem"):
        ask(engine, "question")


def test_a_dead_worker_is_noticed_while_its_pipe_is_held(
    engine: VllmEngine, record: Record
) -> None:
    with pytest.raises(PeeralignError, match="ended with exit code 7 while answering"):
        ask(engine, "ORPHAN")
    (fork,) = record.calls("fork")
    assert record.gone(fork["pid"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("OOM", "RuntimeError: CUDA out of memory"),
        ("DROP", "WrongCount: 1 replies to 2 prompts"),
    ],
)
def test_a_broken_engine_is_nobodys_fault(engine: VllmEngine, text: str, says: str) -> None:
    with pytest.raises(PeeralignError, match=f"vLLM failed while answering .{says}"):
        ask(engine, "question", text)


def test_a_refused_setting_is_nobodys_fault(engine: VllmEngine) -> None:
    with pytest.raises(PeeralignError, match=r"temperature must be in \[0, 2\], got 3.0"):
        engine.answer([AnswerRequest(RED, "hi", (1,))], Sampling(1, 3.0))


def test_labels_may_be_words() -> None:
    class Words(Spaced):
        def __init__(self) -> None:
            self.words = ["A", "\u0120A", "B", "tie", "\u0120tie", "ties", "neither"]
            self.vocab = {word: number for number, word in enumerate(self.words)}

        def decode(self, ids: list[int]) -> str:
            return self.words[ids[0]].replace("\u0120", " ")

    found = vllm_worker.find_label_ids(Words(), ["A", "B", "tie"])
    assert found == {"A": [0, 1], "B": [2], "tie": [3, 4]}
    with pytest.raises(vllm_worker.CannotScore, match="every score as one token"):
        vllm_worker.find_label_ids(Words(), ["A", "B", "same"])
