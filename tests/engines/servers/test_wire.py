"""The wire to a server that misbehaves in every way on purpose: limits, retries, keys, endings."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from peeralign.engines.base import Draw, Sampling
from peeralign.engines.openai import ServerEngine
from peeralign.engines.wire import retry_after_seconds
from peeralign.errors import PeeralignError
from peeralign.panel import Server

KEY = "sk-secret-0123456789"
NOW = {"Retry-After": "0"}
Open = Callable[..., ServerEngine]


def texts(found: list[list[Draw]]) -> list[list[str | None]]:
    return [[draw.text for draw in draws] for draws in found]


def test_starts_keep_apart(questions: Any, serve: Any, connect: Open, completion: Any) -> None:
    server = serve(lambda asked: completion("red"))
    connect(server, requests_per_minute=600).answer(questions(6), Sampling())
    starts = sorted(asked.at for asked in server.asked)
    assert starts[-1] - starts[0] > 0.3  # five tenths of a second, less what connecting takes


LATE = {"choices": [{"message": {"content": "too late"}}]}
FAULTS: dict[str, dict[str, Any]] = {
    "busy": {"body": {"error": {"message": "slow down"}}, "status": 429, "headers": NOW},
    "broken": {"body": "oops", "status": 500},
    "gateway": {"body": "<html>", "status": 502, "headers": {**NOW, "Content-Type": "text/html"}},
    "slow": {"body": LATE, "after_seconds": 1.2},
    "trickling": {"body": LATE, "pause_seconds": 0.25},
    "hung up": {"body": "", "cut": 0},
    "cut": {"body": {"choices": "x" * 500}, "cut": 40},
    "no JSON": {"body": "<html>"},
    "no choices": {"body": {"error": "out of cheese"}},
    "empty choices": {"body": {"choices": []}},
    "odd choices": {"body": {"choices": [{"message": {"content": 5}}]}},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_retried(
    questions: Any, serve: Any, connect: Open, completion: Any, told: Any, fault: str
) -> None:
    def script(asked: Any) -> Any:
        is_hit = asked.text == "question 1" and asked.attempt == 0
        return told(**FAULTS[fault]) if is_hit else completion(asked.text)

    server = serve(script)
    found = connect(server, timeout_seconds=0.8).answer(questions(3), Sampling())
    assert texts(found) == [["question 0"], ["question 1"], ["question 2"]]
    assert len(server.asked) == 4


@pytest.mark.parametrize("fault", ["busy", "gateway"])
def test_an_item_that_always_fails_is_set_aside(
    questions: Any, serve: Any, connect: Open, completion: Any, told: Any, fault: str
) -> None:
    def script(asked: Any) -> Any:
        return told(**FAULTS[fault]) if asked.text == "question 1" else completion(asked.text)

    server = serve(script)
    found = connect(server).answer(questions(3, 2), Sampling(2, 0.0))
    assert texts(found) == [["question 0"] * 2, [None] * 2, ["question 2"] * 2]
    status = FAULTS[fault]["status"]
    assert found[1][0].reason is not None
    assert found[1][0].reason.startswith(f"status {status}")
    assert sum(asked.text == "question 1" for asked in server.asked) == 3


@pytest.mark.parametrize("fault", ["busy", "gateway", "hung up", "no JSON"])
def test_a_server_that_fails_on_most_items_stops_the_run(
    questions: Any, serve: Any, connect: Open, completion: Any, told: Any, fault: str
) -> None:
    def script(asked: Any) -> Any:
        return told(**FAULTS[fault]) if asked.text > "question 1" else completion(asked.text)

    server = serve(script)
    with pytest.raises(PeeralignError, match="failed on 3 of 5 items of one call"):
        connect(server, max_retries=1).answer(questions(5), Sampling())


def test_a_retry_after_is_kept(
    questions: Any, serve: Any, connect: Open, completion: Any, told: Any
) -> None:
    busy = told("", 429, {"Retry-After": "1"})
    server = serve(lambda asked: completion("red") if asked.attempt else busy)
    connect(server).answer(questions(1), Sampling())
    first, second = server.asked
    assert second.at - first.at >= 0.99
    assert retry_after_seconds("2.5") == 2.5
    assert (retry_after_seconds(formatdate(time.time() + 60)) or 0) > 50
    assert retry_after_seconds("soon") is None


def test_a_server_that_sends_us_away_for_long_stops_the_run(
    questions: Any, serve: Any, connect: Open, told: Any
) -> None:
    server = serve(lambda asked: told("", 429, {"Retry-After": "7200"}))
    with pytest.raises(PeeralignError, match="left alone for 7200 seconds"):
        connect(server).answer(questions(1), Sampling())
    assert len(server.asked) == 1


def test_a_refused_item_is_set_aside_at_once(
    questions: Any, serve: Any, connect: Open, completion: Any, told: Any
) -> None:
    def script(asked: Any) -> Any:
        long = told({"error": {"message": "context too long"}}, 400)
        return long if asked.text == "question 0" else completion(asked.text)

    server = serve(script)
    found = connect(server).answer(questions(2), Sampling())
    assert found[0] == [Draw(None, 0, "status 400: context too long")]
    assert texts(found)[1] == ["question 1"]
    assert len(server.asked) == 2


def test_a_server_that_refuses_everything_stops_the_run(
    questions: Any, serve: Any, connect: Open, completion: Any, told: Any
) -> None:
    server = serve(lambda asked: told({"detail": "no images here"}, 422))
    with pytest.raises(PeeralignError, match=r"refuses every request .*no images here"):
        connect(server).answer(questions(4), Sampling())
    # Not if it has answered before, or is asked for few: then the items may be at fault.
    server.script = lambda asked: completion("red")
    engine = connect(server)
    engine.answer(questions(1), Sampling())
    server.script = lambda asked: told({"detail": "no images here"}, 422)
    assert texts(engine.answer(questions(4), Sampling())) == [[None]] * 4
    assert texts(connect(server).answer(questions(2), Sampling())) == [[None], [None]]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not accept the key in the environment variable PANEL_KEY"),
        (402, "payment"),
        (403, "key's rights"),
        (404, "ends with /v1"),
    ],
)
def test_no_access_stops_the_run_and_no_key_is_told(
    questions: Any,
    serve: Any,
    connect: Open,
    told: Any,
    status: int,
    words: str,
    monkeypatch: Any,
    caplog: Any,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PANEL_KEY", KEY)
    server = serve(lambda asked: told({"error": {"message": f"bad: {KEY}"}}, status))
    with pytest.raises(PeeralignError, match=words) as caught:
        connect(server, api_key_env="PANEL_KEY").answer(questions(4), Sampling())
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_key_comes_only_from_the_variable_that_is_named(
    questions: Any, serve: Any, connect: Open, completion: Any, told: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("PANEL_KEY", raising=False)
    server = serve(lambda asked: completion("red"))
    connect(server).answer(questions(1), Sampling())
    assert KEY not in str(server.asked[0].headers)
    for value in (None, " ", "sk-\u00e9\u00e9"):
        if value:
            monkeypatch.setenv("PANEL_KEY", value)
        with pytest.raises(PeeralignError, match="environment variable PANEL_KEY"):
            connect(server, api_key_env="PANEL_KEY")
    keyless = serve(lambda asked: told("", 401))
    with pytest.raises(PeeralignError, match=r"set server\.api_key_env"):
        connect(keyless).answer(questions(1), Sampling())


def test_a_server_that_is_not_there_stops_the_run_at_once(
    questions: Any,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:{KEY}@127.0.0.1:{free.getsockname()[1]}/v1"
        engine = ServerEngine("judge-7b", Server(base_url=url))
        for attempt in (lambda: engine.answer(questions(2), Sampling()), engine.check):
            with pytest.raises(PeeralignError, match="cannot connect to the server at") as caught:
                attempt()
            assert KEY not in str(caught.value)
        engine.close()
    for address in ("127.0.0.1:80/v1", "http://127.0.0.1:port/v1", "http:///v1"):
        with pytest.raises(PeeralignError, match="is no web address"):
            ServerEngine("judge-7b", Server(base_url=address))


def test_a_server_that_goes_away_stops_the_run(
    questions: Any, serve: Any, connect: Open, completion: Any
) -> None:
    server = serve(lambda asked: completion("red"))
    engine = connect(server, max_retries=1)
    engine.answer(questions(1), Sampling())
    server.stop()
    with pytest.raises(PeeralignError, match="the connection failed: ConnectError"):
        engine.answer(questions(1), Sampling())


def test_an_interrupt_ends_the_wait_and_leaves_nothing_behind(
    questions: Any, serve: Any, connect: Open, completion: Any
) -> None:
    def script(asked: Any) -> Any:
        reply = completion("red")
        reply.after_seconds = 8.0
        return reply

    engine = connect(serve(script))
    interrupt = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    # A shell starts jobs in the background with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.answer(questions(3), Sampling())
    finally:
        signal.signal(signal.SIGINT, before)
    engine.close()
    assert time.monotonic() - began < 6
    interrupt.join()
