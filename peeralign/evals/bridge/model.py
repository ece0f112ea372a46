"""A member behind lmms-eval's interface of a model: one image and a text in, a reply out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import polars as pl
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from PIL import Image

from peeralign.engines.base import AnswerRequest, Draw, Engine, Sampling
from peeralign.engines.opening import open_engine
from peeralign.errors import PeeralignError
from peeralign.evals.bridge.documents import Opening, only_image
from peeralign.images.load import MAX_PIXELS, BrokenImage
from peeralign.panel import Member
from peeralign.progress import Reporter
from peeralign.records import make_id, seed_of
from peeralign.stages.blocks import in_parts
from peeralign.store.run import Stage

# lmms-eval's newer models take as much where a task does not say how long replies may be.
MAX_NEW_TOKENS = 1024
# Requests that are answered, and kept, together; the engine batches within them.
BLOCK = 64
REPLY_SCHEMA = pl.Schema({"reply": pl.String, "reason": pl.String})
# Every task that says nothing has this one, and it would cut any reply of two paragraphs:
# lmms-eval's newer models leave it out too.
_DEFAULT_UNTIL = "\n\n"
_HONOURED = {"until", "max_new_tokens", "temperature", "top_p", "do_sample"}
_WITHOUT_EFFECT = ("num_beams", 1), ("image_aspect_ratio", "original"), ("use_cache", True)


class Wanted(NamedTuple):
    """How a task wants its replies: drawn so, and cut where one of `until` begins."""

    sampling: Sampling
    until: tuple[str, ...]


class Asked(NamedTuple):
    """One request of lmms-eval's."""

    number: int
    text: str
    wanted: Wanted
    doc_to_visual: Callable[[Any], Any]
    task: str
    split: str
    doc_id: int
    seed: int


class MemberModel(lmms):
    """An engine as lmms-eval's model.

    A request that the engine cannot answer, for one without an image or with several, gets an empty
    reply, and its reason is kept in `reasons`, by task and number of the document. In the folder
    `kept`, blocks of replies outlive the process: the same requests are not answered twice.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_image_pixels: int = MAX_PIXELS,
        image_root: str | None = None,
        seed: int = 0,
        reporter: Reporter | None = None,
        kept: Path | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.max_new_tokens = max_new_tokens
        self.max_image_pixels = max_image_pixels
        self.image_root = image_root
        self.seed = seed
        self.reporter = reporter or Reporter()
        self.kept = kept
        self.replies: dict[tuple[str, int], str | None] = {}
        self.reasons: dict[tuple[str, int], str] = {}
        self.ignored: dict[str, Any] = {}

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> MemberModel:
        """For lmms-eval's own command: `--model peeralign --model_args member=MODEL`."""
        name, _, member = arg_string.partition("=")
        if name.strip() != "member" or not member or "," in member:
            raise PeeralignError(
                f"--model_args is '{arg_string}'; give member=MODEL and nothing else, or use "
                "'peeralign lmms-eval', which has the other settings"
            )
        device = (additional_config or {}).get("device") or "auto"
        return cls(open_engine(Member(name="member", model=member, device=device)))

    def clean(self) -> None:
        """Keep the engine. lmms-eval would delete what it finds of the model here."""

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The replies, in order; "" where there is none."""
        every = list(self._asked(requests))
        replies = [""] * len(every)
        stage = None if self.kept is None else Stage(self.kept / self._digest(every))
        with self.reporter.bar("replies", len(every)) as tick:
            for index, block in enumerate(_blocks(every)):
                if stage is not None and stage.has_shard(index):
                    table = pl.read_parquet(stage.shard(index), glob=False, hive_partitioning=False)
                else:
                    table = pl.DataFrame(self._answered(block), schema=REPLY_SCHEMA, orient="row")
                    if stage is not None:
                        stage.write_shard(index, table)
                for asked, (reply, reason) in zip(block, table.iter_rows(), strict=True):
                    replies[asked.number] = reply or ""
                    self._keep((asked.task, asked.doc_id), reply, reason)
                tick(len(block))
        return replies

    def loglikelihood(self, requests: Sequence[Any]) -> NoReturn:
        """Members answer in words: raises PeeralignError."""
        refuse_type(requests[0].args[-2], "loglikelihood")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> NoReturn:
        """Members answer one question at a time: raises PeeralignError."""
        refuse_type(requests[0].args[-2], "generate_until_multi_round")

    def _wanted(self, given: Mapping[str, Any]) -> Wanted:
        """Greedy unless the task asks for a temperature."""
        for name, value in given.items():
            if name not in _HONOURED and (name, value) not in _WITHOUT_EFFECT:
                self.ignored[name] = value
        temperature = given.get("temperature")
        if temperature is None:
            temperature = 1.0 if given.get("do_sample") else 0.0
        elif given.get("do_sample") is False:
            temperature = 0.0
        until = given.get("until") or []
        ends = [until] if isinstance(until, str) else until
        sampling = Sampling(
            temperature=float(temperature),
            top_p=float(given.get("top_p") or 1.0),
            max_new_tokens=int(given.get("max_new_tokens") or self.max_new_tokens),
        )
        return Wanted(sampling, tuple(end for end in ends if end and end != _DEFAULT_UNTIL))

    def _asked(self, requests: Sequence[Any]) -> Iterator[Asked]:
        seen: Counter[tuple[str, int]] = Counter()
        for number, request in enumerate(requests):
            text, given, doc_to_visual, doc_id, task, split = request.args
            repeat, seen[task, doc_id] = seen[task, doc_id], seen[task, doc_id] + 1
            seed = seed_of(self.seed, task, doc_id, repeat)
            yield Asked(number, text, self._wanted(given), doc_to_visual, task, split, doc_id, seed)

    def _digest(self, every: Sequence[Asked]) -> str:
        """Another one for other questions, or other data."""
        data = {
            (asked.task, asked.split): getattr(
                self.task_dict[asked.task][asked.split], "_fingerprint", ""
            )
            for asked in every
        }
        questions = (
            (asked.task, asked.doc_id, asked.text, asked.wanted, asked.seed) for asked in every
        )
        return make_id(BLOCK, sorted(data.items()), *questions)

    def _answered(self, block: Sequence[Asked]) -> list[tuple[str | None, str | None]]:
        """Reply and reason for each, of which one is None."""
        found: list[tuple[str | None, str | None]] = [(None, None)] * len(block)
        sampling, until = block[0].wanted
        places: list[int] = []

        def pictured() -> Iterator[AnswerRequest]:
            for place, asked in enumerate(block):
                try:
                    image = self._image(asked.doc_to_visual, asked.task, asked.split, asked.doc_id)
                except BrokenImage as broken:
                    found[place] = (None, str(broken))
                    continue
                places.append(place)
                yield AnswerRequest(image, asked.text, (asked.seed,))

        drawn = in_parts(
            lambda some: self.engine.answer(some, sampling),
            pictured(),
            lambda _, reason: [Draw(None, 0, reason)],
        )
        for place, (draw,) in zip(places, drawn, strict=True):
            if draw.text is None:
                found[place] = (None, draw.reason or "no reply")
            else:
                found[place] = (_cut(draw.text, until), None)
        return found

    def _keep(self, key: tuple[str, int], reply: str | None, reason: str | None) -> None:
        # Of several replies to one document the first is the one that is kept.
        if key not in self.replies:
            self.replies[key] = reply
            if reason is not None:
                self.reasons[key] = reason

    def _image(
        self, doc_to_visual: Callable[[Any], Any], task: str, split: str, doc_id: int
    ) -> Image.Image:
        """The one image of a document. Raises BrokenImage with the reason if there is not one."""
        try:
            doc = Opening(
                self.task_dict[task][split][doc_id], self.max_image_pixels, self.image_root
            )
            visuals = doc_to_visual(doc)
        except BrokenImage:
            raise
        except Exception as error:  # the task's own code, on a document it does not fit
            why = f"{type(error).__name__}: {error}".strip().split("\n")[0]
            raise BrokenImage(f"the task finds no image ({why})") from error
        return only_image(list(_flat(visuals)), self.max_image_pixels)


def refuse_type(task: str, kind: str) -> NoReturn:
    """Raise PeeralignError: a task asks for what members do not do."""
    raise PeeralignError(
        f"the task {task} asks for '{kind}', and members answer one question in words; choose "
        "tasks whose output_type is generate_until"
    )


def _blocks(every: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Requests that want the same, at most BLOCK together, in the order of their tasks."""
    wishes = {wanted: n for n, wanted in enumerate(dict.fromkeys(a.wanted for a in every))}
    ordered = sorted(every, key=lambda asked: wishes[asked.wanted])
    for _, alike in groupby(ordered, key=lambda asked: asked.wanted):
        some = list(alike)
        for start in range(0, len(some), BLOCK):
            yield some[start : start + BLOCK]


def _flat(visuals: Any) -> Iterator[Any]:
    if isinstance(visuals, list | tuple):
        for visual in visuals:
            yield from _flat(visual)
    elif visuals is not None:
        yield visuals


def _cut(text: str, until: Sequence[str]) -> str:
    for end in until:
        text = text.split(end)[0]
    return text
