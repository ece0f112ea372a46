"""The server engine against a real server: `transformers serve` with a classroom peer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from peeralign.chat import ChatFormat
from peeralign.classroom.demo import draw_pool
from peeralign.classroom.peers import shipped_peer
from peeralign.engines.base import AnswerRequest, JudgeRequest, Sampling
from peeralign.engines.openai import ServerEngine
from peeralign.errors import PeeralignError
from peeralign.images.load import open_image
from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import parse_verdict
from peeralign.panel import Server

MODEL = str(shipped_peer("ada"))
START_SECONDS = 120
NUM_QUESTIONS = 8


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running `transformers serve`."""
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    start = [program] if program else [sys.executable, "-m", "transformers.cli.transformers"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    settings = ["serve", MODEL, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*start, *settings],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        latest = time.monotonic() + START_SECONDS
        while not _is_up(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < latest, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def engine(url: str) -> Iterator[ServerEngine]:
    opened = ServerEngine(MODEL, Server(base_url=url, max_concurrency=2))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def asked() -> list[AnswerRequest]:
    rows = draw_pool(3, NUM_QUESTIONS).select("image", "question").rows()
    return [
        AnswerRequest(open_image(image), text, (3 * n, 3 * n + 1, 3 * n + 2))
        for n, (image, text) in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def generated() -> Any:
    """What `transformers` itself generates greedily: (image, text, longest) -> reply."""
    model = AutoModelForImageTextToText.from_pretrained(MODEL, dtype="auto").eval()
    chat = ChatFormat(AutoProcessor.from_pretrained(MODEL))

    @torch.inference_mode()
    def reply(image: Any, text: str, longest: int) -> str:
        inputs = chat.encode([chat.prompt(text)], [image])
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        ids = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return chat.tokenizer.decode(new, skip_special_tokens=True).strip()

    return reply


def test_greedy_answers_are_those_of_generate(
    engine: ServerEngine, asked: list[AnswerRequest], generated: Any
) -> None:
    found = engine.answer(asked, Sampling(2, 0.0, max_new_tokens=6))
    wanted = [generated(request.image, request.text, 6) for request in asked]
    assert [[draw.text for draw in draws] for draws in found] == [[text] * 2 for text in wanted]
    assert len(set(wanted)) > 3  # else a server that mixes up its images would not be seen
    assert all(1 <= draws[0].num_tokens <= 6 for draws in found)


@pytest.mark.parametrize("readout", ["text", "greedy"])
def test_verdicts_are_those_of_generate(
    engine: ServerEngine, asked: list[AnswerRequest], generated: Any, readout: Any
) -> None:
    rubric = load_rubric("classroom")
    requests = [
        JudgeRequest(request.image, tuple(rubric.fill(request.text, ["red", "3"])), rubric.form())
        for request in asked
    ]
    found = engine.judge(requests, readout)
    wanted = [
        [parse_verdict(generated(r.image, text, 64), rubric.form()).axes for text in r.texts]
        for r in requests
    ]
    assert [[verdict.axes for verdict in row] for row in found] == wanted
    assert len({str(axes) for row in wanted for axes in row}) > 1


def test_what_it_leaves_out_in_silence_is_seen(
    engine: ServerEngine, asked: list[AnswerRequest], caplog: Any
) -> None:
    found = engine.answer(asked, Sampling(3, 1.0, max_new_tokens=6))
    assert {len(draws) for draws in found} == {3}
    assert "does not give n answers a call" in caplog.text
    assert "seems to ignore the temperature" in caplog.text
    rubric = load_rubric("classroom")
    request = JudgeRequest(asked[0].image, tuple(rubric.fill("what?", ["red"])), rubric.form())
    with pytest.raises(PeeralignError, match="gives no log-probabilities"):
        engine.judge([request], "expected")


def test_it_samples_if_the_generation_config_says_so(
    url: str, asked: list[AnswerRequest], caplog: Any
) -> None:
    config = {"generation_config": '{"do_sample": true}'}
    engine = ServerEngine(MODEL, Server(base_url=url, max_concurrency=1, extra_body=config))
    sampling = Sampling(3, 2.0, max_new_tokens=6)
    first, second = engine.answer(asked, sampling), engine.answer(asked, sampling)
    engine.close()
    assert any(len({draw.text for draw in draws}) > 1 for draws in first)
    assert first == second  # by its seeds, as long as one request runs at a time
    assert "seems to ignore the temperature" not in caplog.text


def test_the_check_knows_the_served_model_from_another(url: str, engine: ServerEngine) -> None:
    engine.check()
    # A busy server cuts a connection now and then; only its answer counts.
    other = ServerEngine("other-model", Server(base_url=url, max_retries=2))
    with pytest.raises(PeeralignError, match=r"no answer from 'other-model' .*is pinned to"):
        other.check()
    other.close()


def test_one_foreign_field_is_refused_and_the_reason_kept(
    url: str, asked: list[AnswerRequest]
) -> None:
    settings = Server(base_url=url, extra_body={"min_tokens": 1})
    engine = ServerEngine(MODEL, settings)
    (draws,) = engine.answer(asked[:1], Sampling())
    engine.close()
    assert draws[0].text is None
    assert "Unexpected fields in the request: {'min_tokens'}" in str(draws[0].reason)
