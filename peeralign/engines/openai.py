"""The server engine: a member behind any OpenAI-compatible server (vLLM, SGLang, TGI, hosted).

Compatible servers ignore in silence what they do not support, so every reply is checked for what
was asked. The server's tokenizer is unknown: all text is sent with control tokens broken.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from PIL.Image import Image

from peeralign.engines.base import (
    AnswerRequest,
    Draw,
    JudgeRequest,
    Readout,
    Sampling,
    refuse_noise,
)
from peeralign.engines.dialect import Dialect
from peeralign.engines.wire import (
    Choice,
    NotServed,
    Refused,
    Reply,
    ReplyLogprobs,
    Unavailable,
    Wire,
    together,
)
from peeralign.engines.written import WrittenToken, read_written
from peeralign.errors import PeeralignError, nearest
from peeralign.escape import escape_any_controls
from peeralign.images.load import png_data_url
from peeralign.judging.verdict import Form, Verdict, parse_verdict
from peeralign.panel import Server

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_VERDICT_TOKENS = 512
# Some servers keep seeds in 32 bits, signed.
SEED_LIMIT = 2**31
NUM_PROMPTS_TO_NOTICE = 5
# Stands for a probability of 0, whose logarithm does not exist.
TINY = 1e-300
# Of a server that has answered nothing, so many refused requests in a row are no coincidence.
NUM_REFUSALS_TO_STOP = 4


class ServerEngine:
    """A model behind a server. Blocking; inside, `settings.max_concurrency` requests fly at once.

    What fails after all retries is set aside with its reason; PeeralignError stops the run where
    going on makes no sense: no connection, no access, no such model, or more than half of the
    answers or verdicts of one call lost to a server that fails.
    """

    def __init__(self, model: str, settings: Server, min_label_mass: float = 0.5) -> None:
        self.min_label_mass = min_label_mass
        self._wire = Wire(model, settings)
        # Items at work: of no more are images kept, and what is learnt of the server comes early.
        self._desk = asyncio.Semaphore(settings.max_concurrency)
        self._dialect = Dialect(self._wire.where)
        self._takes_n: bool | None = None
        self._gives_logprobs = False
        # Prompts of which all draws were equal so far; None once some were not, or it was said.
        self._num_equal: int | None = 0

    def close(self) -> None:
        """Close the connections and the event loop."""
        self._wire.close()

    def check(self) -> None:
        """Raise PeeralignError unless the server can be reached and serves the model.

        Where the server's list does not show the model, one token is asked for: some servers list
        nothing, or only what lies in a cache.
        """
        model, where = self._wire.model, self._wire.where
        listed = self._wire.run(self._wire.listing())
        if listed is not None and model in listed:
            return
        hello = [{"role": "user", "content": "Hello"}]
        try:
            self._wire.run(self._ask(hello, {"max_tokens": 1}))
        except (Refused, Unavailable, NotServed) as error:
            if not listed:
                raise PeeralignError(
                    f"{where} gives no answer from '{model}' ({error}); correct the member's model "
                    "or its server settings"
                ) from None
            raise PeeralignError(
                f"{where} does not serve '{model}', it lists {', '.join(listed[:5])}; correct the "
                f"member's model{nearest(model, listed)}"
            ) from None

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        """Draw answers; at temperature 0 one is asked for and counts for all.

        `num_tokens` is the server's count where a reply holds one answer. Of several it is their
        share of the reply's count by length; without a count, a quarter of the characters.
        """
        refuse_noise(requests)
        if sampling.beam is not None:
            raise PeeralignError(
                "sentence-level beam search needs a member on this machine, and "
                f"'{self._wire.model}' is behind a server; give generate another sampler for it"
            )
        tally = Tally(len(requests), sampling.num_draws * len(requests), self._wire)
        found = self._wire.run(
            together(
                self._at_desk(partial(self._draws, request, sampling, tally))
                for request in requests
            )
        )
        tally.check_refusals()
        if sampling.temperature > 0 and sampling.num_draws > 1:
            self._notice_equal_draws(found)
        return found

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        """Grade every text by itself.

        "greedy" and "expected" ask for the form's JSON schema and for log-probabilities. "expected"
        raises PeeralignError if the server gives none.
        """
        tally = Tally(len(requests), sum(len(request.texts) for request in requests), self._wire)
        found = self._wire.run(
            together(
                self._at_desk(partial(self._verdicts, request, readout, tally))
                for request in requests
            )
        )
        tally.check_refusals()
        return found

    async def _at_desk(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self._desk:
            return await work()

    async def _draws(self, request: AnswerRequest, sampling: Sampling, tally: Tally) -> list[Draw]:
        picture = Picture(request.image)
        num = sampling.num_draws if sampling.temperature > 0 else 1
        fields: dict[str, Any] = {
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens,
        }
        if sampling.top_p < 1:
            fields["top_p"] = sampling.top_p

        async def ask(start: int, count: int) -> list[Draw]:
            wanted = {**fields, "seed": request.seeds[start] % SEED_LIMIT}
            if count > 1:
                wanted["n"] = count
            return read_draws(await self._look(picture, request.text, wanted))[:count]

        async def ask_one(number: int) -> list[Draw]:
            try:
                return await ask(number, 1)
            except (Refused, Unavailable) as error:
                return [Draw(None, 0, tally.lose(error, sampling.num_draws if num == 1 else 1))]

        draws: list[Draw] = []
        if num > 1 and self._takes_n is not False:
            try:
                draws = await self._at_once(ask, num)
            except (Refused, Unavailable) as error:
                return [Draw(None, 0, tally.lose(error, num))] * num
        rest = await together(ask_one(number) for number in range(len(draws), num))
        draws += [draw for single in rest for draw in single]
        return draws if num == sampling.num_draws else draws * sampling.num_draws

    async def _at_once(
        self, ask: Callable[[int, int], Awaitable[list[Draw]]], num: int
    ) -> list[Draw]:
        """What one call for `num` draws gives: fewer if the server ignores `n`, or refuses it."""
        try:
            draws = await ask(0, num)
        except Refused:
            # It may be `n` that is refused, or the item; a call for one tells.
            if self._takes_n:
                raise
            draws = await ask(0, 1)
        if len(draws) < num and self._takes_n is not False:
            log.warning("%s does not give n answers a call: asking singly", self._wire.where)
        self._takes_n = self._takes_n is not False and len(draws) == num
        return draws

    async def _verdicts(
        self, request: JudgeRequest, readout: Readout, tally: Tally
    ) -> list[Verdict]:
        picture = Picture(request.image)
        fields: dict[str, Any] = {"temperature": 0.0, "max_tokens": MAX_VERDICT_TOKENS}
        if readout != "text":
            schema = {"name": "verdict", "strict": True, "schema": request.form.schema()}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
            fields |= {"logprobs": True, "top_logprobs": 1}  # the dialect says how many

        async def grade(text: str) -> Verdict:
            try:
                reply = await self._look(picture, text, fields)
            except (Refused, Unavailable) as error:
                return Verdict(None, tally.lose(error), "")
            return self._read_verdict(reply.choices[0], request.form, readout)

        return await together(grade(text) for text in request.texts)

    def _read_verdict(self, choice: Choice, form: Form, readout: Readout) -> Verdict:
        raw = choice.message.content or ""
        tokens = written_tokens(choice.logprobs) if readout != "text" else []
        self._gives_logprobs = self._gives_logprobs or bool(tokens)
        if readout == "expected" and not self._gives_logprobs and raw:
            raise PeeralignError(
                f"{self._wire.where} gives no log-probabilities, which the readout 'expected' "
                'needs; set judge.readout = "text" or "greedy"'
            )
        if tokens and raw.strip() in "".join(token.text for token in tokens):
            verdict = read_written(tokens, form, readout, self.min_label_mass)
            verdict = replace(verdict, raw=raw)
        else:
            verdict = parse_verdict(raw, form, choice.finish_reason == "length")
            if readout == "expected" and verdict.axes is not None:
                verdict = Verdict(None, "the reply came without its log-probabilities", raw)
        if verdict.axes is None and choice.finish_reason == "length":
            reason = f"{verdict.reason}; it was cut at {MAX_VERDICT_TOKENS} tokens"
            return replace(verdict, reason=reason)
        return verdict

    async def _look(self, picture: Picture, text: str, fields: dict[str, Any]) -> Reply:
        """Ask about an image, when there is a free slot."""
        async with self._wire.slots:
            url = await picture.data_url()
            content = [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": escape_any_controls(text)},
            ]
            return await self._ask([{"role": "user", "content": content}], fields)

    async def _ask(self, messages: list[Any], fields: dict[str, Any]) -> Reply:
        suspect = None
        while True:
            body = self._dialect.word(fields)
            try:
                reply = await self._wire.chat(messages, body)
            except Refused as error:
                # Another request may have found out in the meantime.
                if body != self._dialect.word(fields) or self._dialect.give_up(body, str(error)):
                    continue
                # Not every server names what it refuses.
                if "response_format" in body and "response_format" not in self._dialect.taken:
                    suspect = "response_format"
                    fields = {name: fields[name] for name in fields if name != suspect}
                    continue
                raise
            if suspect and suspect not in self._dialect.taken:
                self._dialect.drop(suspect)
            self._dialect.took(body)
            return reply

    def _notice_equal_draws(self, found: list[list[Draw]]) -> None:
        for draws in found:
            texts = {draw.text for draw in draws}
            if self._num_equal is None or None in texts:
                continue
            self._num_equal = self._num_equal + 1 if len(texts) == 1 else None
        if self._num_equal is not None and self._num_equal >= NUM_PROMPTS_TO_NOTICE:
            log.warning(
                "%s seems to ignore the temperature: all draws of %d prompts were equal (for "
                "`transformers serve` put generation_config = '{\"do_sample\": true}' into "
                "server.extra_body)",
                self._wire.where,
                self._num_equal,
            )
            self._num_equal = None


class Tally:
    """What one call has lost. Raises PeeralignError when that is no longer a matter of items."""

    def __init__(self, num_requests: int, num_items: int, wire: Wire) -> None:
        self.num_requests, self.num_items, self.wire = num_requests, num_items, wire
        self.num_failed = 0
        self.refusal: str | None = None

    def lose(self, error: Refused | Unavailable, num_items: int = 1) -> str:
        """The reason to set items aside with."""
        if isinstance(error, Refused):
            self.refusal = str(error)
            return self.refusal
        self.num_failed += num_items
        if self.num_failed > self.num_items / 2:
            raise PeeralignError(
                f"{self.wire.where} failed on {self.num_failed} of {self.num_items} items of one "
                f"call, the last with: {error}; see to the server and run the same command again"
            )
        return str(error)

    def check_refusals(self) -> None:
        """Raise PeeralignError if the server has never answered and refused a whole call."""
        if (
            self.refusal
            and not self.wire.has_answered
            and self.num_requests >= NUM_REFUSALS_TO_STOP
        ):
            raise PeeralignError(
                f"{self.wire.where} refuses every request ({self.refusal}); correct the member's "
                "model or its server settings"
            )


class Picture:
    """An image on its way to a server: encoded once, when the first request needs it."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._encoding: asyncio.Future[str] | None = None

    async def data_url(self) -> str:
        if self._encoding is None:
            self._encoding = asyncio.ensure_future(asyncio.to_thread(png_data_url, self._image))
        return await asyncio.shield(self._encoding)


def read_draws(reply: Reply) -> list[Draw]:
    """The answers of a reply, each with its number of tokens (see ServerEngine.answer)."""
    choices = sorted(reply.choices, key=lambda choice: choice.index)
    texts = [(choice.message.content or "").strip() for choice in choices]
    total = reply.usage.completion_tokens if reply.usage else None
    lengths = [len(text.encode("utf-8", "replace")) for text in texts]
    draws = []
    for choice, text, length in zip(choices, texts, lengths, strict=True):
        if total is None:
            num_tokens = math.ceil(len(text) / 4)
        elif len(choices) == 1:
            num_tokens = total
        else:
            num_tokens = round(total * length / max(sum(lengths), 1))
        if choice.finish_reason == "content_filter":
            draws.append(Draw(None, num_tokens, "the server's content filter stopped the answer"))
        elif not text and choice.message.refusal:
            draws.append(Draw(None, num_tokens, f"refusal: {choice.message.refusal[:200]}"))
        else:
            draws.append(Draw(text or None, num_tokens, None if text else "empty answer"))
    return draws


def written_tokens(logprobs: ReplyLogprobs | None) -> list[WrittenToken]:
    """The tokens of a reply with their alternatives; none if the server gave no alternatives."""
    content = (logprobs.content if logprobs else None) or []
    if not any(token.top_logprobs for token in content):
        return []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    # A character may be spread over tokens; only their bytes put it together again.
    has_bytes = all(token.bytes is not None for token in content)
    tokens = []
    for token in content:
        text = decoder.decode(bytes(token.bytes or [])) if has_bytes else token.token
        weighed: dict[str, float] = {}
        for other in token.top_logprobs or []:
            # Two tokens may spell the same text.
            both = [other.logprob, weighed.get(other.token, -math.inf)]
            weighed[other.token] = math.log(sum(math.exp(min(lp, 0.0)) for lp in both) or TINY)
        weighed.setdefault(token.token, token.logprob)
        tokens.append(WrittenToken(text, weighed))
    return tokens
