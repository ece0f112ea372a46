"""A small OpenAI-compatible server whose replies and faults are written in the test."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from peeralign.engines.base import AnswerRequest
from peeralign.engines.openai import ServerEngine
from peeralign.panel import Server


@dataclass
class Asked:
    """One request. Header names in small letters, `at` in seconds, `attempt` from 0."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    attempt: int

    @property
    def text(self) -> str:
        content = self.body["messages"][0]["content"]
        return content if isinstance(content, str) else content[-1]["text"]


@dataclass
class Told:
    """A reply: a JSON value or raw text; `cut` sends only that many bytes and hangs up.

    `pause_seconds` lies between the tenths of the body.
    """

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after_seconds: float = 0.0
    cut: int | None = None
    pause_seconds: float = 0.0


class ScriptedServer(ThreadingHTTPServer):
    """Serves `script(asked)` on loopback, and remembers what was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Callable[[Asked], Told]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.models: Told = Told({"data": [{"id": "judge-7b"}, {"id": "other"}]})
        self.asked: list[Asked] = []
        self.attempts: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has stopped waiting is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""

    def do_GET(self) -> None:
        self.tell(self.server.models)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            server = self.server
            headers = {name.lower(): value for name, value in self.headers.items()}
            attempt = server.attempts[raw.decode()]
            asked = Asked(json.loads(raw), headers, time.monotonic(), attempt)
            server.attempts[raw.decode()] += 1
            server.asked.append(asked)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        told = self.server.script(asked)
        time.sleep(told.after_seconds)
        with self.server.lock:
            self.server.in_flight -= 1
        self.tell(told)

    def tell(self, told: Told) -> None:
        payload = (told.body if isinstance(told.body, str) else json.dumps(told.body)).encode()
        if told.cut == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(told.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        for name, value in (headers | told.headers).items():
            self.send_header(name, value)
        self.end_headers()
        payload = payload[: told.cut]
        tenth = len(payload) // 10 + 1
        for start in range(0, len(payload), tenth):
            time.sleep(told.pause_seconds)
            self.wfile.write(payload[start : start + tenth])


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Asked], Told]], ScriptedServer]]:
    """Start a server from a script: `serve(lambda asked: Told(...))`."""
    started: list[ScriptedServer] = []

    def start(script: Callable[[Asked], Told]) -> ScriptedServer:
        started.append(ScriptedServer(script))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def told() -> type[Told]:
    return Told


@pytest.fixture
def completion() -> Callable[..., Told]:
    """A chat completion of these texts; `choice` are further fields of every choice."""

    def write(*texts: str | None, usage: int | None = None, **choice: Any) -> Told:
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, **choice}
            for i, text in enumerate(texts)
        ]
        body: dict[str, Any] = {"object": "chat.completion", "choices": choices}
        if usage is not None:
            body["usage"] = {"completion_tokens": usage}
        return Told(body)

    return write


@pytest.fixture
def connect() -> Iterator[Callable[..., ServerEngine]]:
    """Open an engine on a server; it is closed behind the test."""
    opened: list[ServerEngine] = []

    def start(server: ScriptedServer, model: str = "judge-7b", **settings: Any) -> ServerEngine:
        settings = {"max_retries": 2, "timeout_seconds": 10, **settings}
        opened.append(ServerEngine(model, Server(base_url=server.url, **settings)))
        return opened[-1]

    yield start
    for engine in opened:
        engine.close()


@pytest.fixture
def questions() -> Callable[..., list[AnswerRequest]]:
    """`questions(3)`: "question 0" to "question 2", each with its image and its seeds."""

    def ask(count: int, num_draws: int = 1) -> list[AnswerRequest]:
        rng = np.random.default_rng(0)
        return [
            AnswerRequest(
                Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)),
                f"question {n}",
                tuple(range(100 * n, 100 * n + num_draws)),
            )
            for n in range(count)
        ]

    return ask
