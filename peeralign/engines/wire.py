"""Send requests to an OpenAI-compatible server: limits, retries, time-outs, replies checked.

The retries are our own. Those of the `openai` client would escape the limit of requests a minute,
do not know a reply that cannot be read, and drop a Retry-After of more than two minutes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import email.utils
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from peeralign.errors import PeeralignError
from peeralign.panel import Server

log = logging.getLogger(__name__)
T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# A server that asks for more wants to be left alone, and a run should not sleep unseen.
LONGEST_RETRY_AFTER_SECONDS = 600.0
POLL_SECONDS = 0.5
RETRIED_STATUSES = (408, 409, 425, 429)
MAX_SHOWN_CHARACTERS = 200


class Refused(Exception):
    """The server will not take this request (4xx); others may go through."""


class Unavailable(Exception):
    """No usable reply, after all retries."""


class NotServed(PeeralignError):
    """The server has no such model, or no such address."""


class Alternative(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None = None


class ReplyToken(Alternative):
    top_logprobs: list[Alternative] | None = None


class ReplyLogprobs(BaseModel):
    content: list[ReplyToken] | None = None


class Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    index: int = 0
    message: Message
    finish_reason: str | None = None
    logprobs: ReplyLogprobs | None = None


class Usage(BaseModel):
    completion_tokens: int | None = None


class Reply(BaseModel):
    """The part of a chat completion that is used; the rest is not looked at."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


class ListedModel(BaseModel):
    id: str


class Listing(BaseModel):
    data: list[ListedModel]


async def together(jobs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order; the first error stops the other jobs and is raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class Wire:
    """The connection to one server. Its event loop has a thread of its own.

    So it works inside a notebook or an actor, whose thread runs a loop already. Raises
    PeeralignError if the key is missing or the `openai` package is.
    """

    def __init__(self, model: str, settings: Server) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise PeeralignError(
                f"member model '{model}' is behind a server, and the openai package is not "
                "installed; run pip install 'peeralign[openai]'"
            ) from None
        self.model, self.settings = model, settings
        self.where = _where(settings.base_url)
        self._key = _api_key(settings)
        self.slots = asyncio.Semaphore(settings.max_concurrency)
        self.has_answered = False
        self._next_start = 0.0
        self._client = AsyncOpenAI(
            base_url=settings.base_url,
            # Never None: the client would send OPENAI_API_KEY to whatever server this is.
            api_key=self._key or "none",
            max_retries=0,
            timeout=settings.timeout_seconds,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)
        self._thread.start()

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """The job's result, waited for."""
        future = asyncio.run_coroutine_threadsafe(job, self._loop)
        try:
            # Polars lets interrupted system calls go on: an endless wait would not see Ctrl-C.
            while not future.done():
                concurrent.futures.wait([future], POLL_SECONDS)
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cut the connections and end the loop. Harmless if called again."""
        if self._loop.is_closed():
            return
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    async def chat(self, messages: list[Any], fields: Mapping[str, Any]) -> Reply:
        """One chat completion. Raises Refused, Unavailable, or PeeralignError to stop the run."""
        body = {**fields, **self.settings.extra_body}

        async def send() -> str:
            create = self._client.chat.completions.with_raw_response.create
            return (await create(model=self.model, messages=messages, extra_body=body)).text

        reply = await self._retry(send, Reply.model_validate_json, self.settings.max_retries)
        self.has_answered = True
        return reply

    async def listing(self) -> list[str] | None:
        """Names of the models the server says it has; None if it does not say."""

        async def send() -> str:
            return (await self._client.models.with_raw_response.list()).text

        try:
            found = await self._retry(send, Listing.model_validate_json, 0, {403, 404, 405})
        except (Refused, Unavailable):
            return None
        return [entry.id for entry in found.data]

    async def _retry(
        self,
        send: Callable[[], Awaitable[str]],
        read: Callable[[str], T],
        max_retries: int,
        refusals: Iterable[int] = (),
    ) -> T:
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        attempt = 0
        while True:
            wait = None
            try:
                await self._turn()
                async with asyncio.timeout(self.settings.timeout_seconds):
                    text = await send()
                return read(text)
            except APIStatusError as error:
                reason = self._status_reason(error.status_code, _words(error.body), refusals)
                wait = retry_after_seconds(error.response.headers.get("retry-after"))
            except (APITimeoutError, TimeoutError):
                reason = f"no reply within {self.settings.timeout_seconds:g} seconds"
            except APIConnectionError as error:
                reason = self._connection_reason(error.__cause__)
            except ValidationError as error:
                first = error.errors()[0]
                spot = ".".join(str(part) for part in first["loc"])
                reason = self._shown(f"malformed reply: {spot} {first['msg']}")
            except APIError as error:
                reason = self._shown(f"malformed reply: {error.message}")
            if attempt >= max_retries:
                raise Unavailable(reason)
            if wait is not None and wait > LONGEST_RETRY_AFTER_SECONDS:
                raise PeeralignError(
                    f"{self.where} asks to be left alone for {wait:.0f} seconds ({reason}); "
                    "run the same command again later"
                )
            await asyncio.sleep(self._pause(attempt) if wait is None else wait)
            attempt += 1
            log.debug("attempt %d at %s after: %s", attempt + 1, self.where, reason)

    @staticmethod
    def _pause(attempt: int) -> float:
        longest = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.5, 1.0)

    async def _turn(self) -> None:
        """Wait for this request's turn; starts are evenly apart, so that no minute has too many."""
        if self.settings.requests_per_minute is None:
            return
        now = time.monotonic()
        start = max(now, self._next_start)
        self._next_start = start + 60 / self.settings.requests_per_minute
        await asyncio.sleep(start - now)

    def _status_reason(self, status: int, message: str, refusals: Iterable[int]) -> str:
        """Why to try again; raises what is not worth another try."""
        reason = self._shown(f"status {status}: {message}")
        if status >= 500 or status in RETRIED_STATUSES:
            return reason
        if status in refusals:
            raise Refused(reason)
        if status == 401:
            name = self.settings.api_key_env
            raise PeeralignError(
                f"{self.where} does not accept the key in the environment variable {name}; "
                "put a valid key there"
                if name
                else f"{self.where} wants a key; set server.api_key_env to the name of the "
                "environment variable that holds it"
            )
        if status == 403 and self.has_answered:
            # Gateways answer so to a text or an image that their moderation does not like.
            raise Unavailable(reason)
        advice = {
            402: "see to the account's payment",
            403: "check the key's rights to this model",
            404: "check the member's model and that server.base_url ends with /v1",
            405: "check that server.base_url ends with /v1",
        }.get(status)
        if advice:
            kind = NotServed if status == 404 else PeeralignError
            raise kind(f"{self.where} does not serve '{self.model}' ({reason}); {advice}")
        raise Refused(reason)

    def _connection_reason(self, cause: BaseException | None) -> str:
        # By name: the openai package has changed its HTTP library between versions.
        kind = type(cause).__name__
        if kind in ("ConnectError", "UnsupportedProtocol") and not self.has_answered:
            raise PeeralignError(
                f"cannot connect to {self.where} ({self._shown(str(cause))}); start it, or correct "
                "server.base_url, and run the same command again"
            ) from None
        return self._shown(f"the connection failed: {kind} {cause}")

    def _shown(self, text: str) -> str:
        """A server's words on one short line, without the key, which some repeat."""
        line = " ".join(text.split())
        if self._key:
            line = line.replace(self._key, "[key]")
        return line[:MAX_SHOWN_CHARACTERS]


def _words(body: object) -> str:
    """What the body of an error says."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return str(body)


def retry_after_seconds(header: str | None) -> float | None:
    """Seconds a Retry-After header asks for (a number, or a date); None if it cannot be read."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        date = email.utils.parsedate_tz(header)
        if date is None:
            return None
        seconds = email.utils.mktime_tz(date) - time.time()
    return max(seconds, 0.0) if seconds == seconds else None


def _where(base_url: str) -> str:
    """The server in words, without what a URL may hold of passwords."""
    parts = urlsplit(base_url)
    try:
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        is_address = False
    if not is_address:
        raise PeeralignError("server.base_url is no web address; write it as http://HOST:PORT/v1")
    host = parts.netloc.rpartition("@")[2]
    return f"the server at {parts.scheme}://{host}{parts.path}"


def _api_key(settings: Server) -> str | None:
    name = settings.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise PeeralignError(
            f"server.api_key_env names the environment variable {name}, which is not set; "
            "put the server's key there"
        )
    if not (key.isascii() and key.isprintable()):
        raise PeeralignError(
            f"the environment variable {name} holds characters no key can have; set it anew"
        )
    return key
