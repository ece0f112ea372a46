"""Work through questions in fixed blocks, each one shard; a broken item never stops the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

import polars as pl

from peeralign.engines.base import Engine
from peeralign.errors import PeeralignError
from peeralign.images.load import BrokenImage
from peeralign.panel import Member
from peeralign.progress import Reporter
from peeralign.store.run import Stage

log = logging.getLogger(__name__)
In = TypeVar("In")
Out = TypeVar("Out")
EngineFactory = Callable[[Member], Engine]
# What a model or its processor raises on an input it cannot take.
ITEM_ERRORS = (ValueError, TypeError, IndexError, KeyError, RuntimeError, BrokenImage)


def fill_stage(
    stage: Stage,
    questions: pl.DataFrame,
    block_size: int,
    member: Member,
    open_engine: EngineFactory,
    work: Callable[[Engine, pl.DataFrame], pl.DataFrame],
    reporter: Reporter,
    label: str,
) -> None:
    """Write the missing shards of a stage; shard n covers questions n*block_size and on.

    The engine is opened only if a shard is missing, and closed afterwards.
    """
    starts = range(0, len(questions), block_size)
    missing = [start for start in starts if not stage.has_shard(start // block_size)]
    if not missing:
        if not stage.is_done:
            stage.finish(questions=len(questions))
        return
    ready = len(questions) - sum(min(block_size, len(questions) - start) for start in missing)
    with ExitStack() as stack:
        tick = stack.enter_context(reporter.bar(label, len(questions), ready))
        engine = open_engine(member)
        stack.callback(engine.close)
        for start in missing:
            block = questions.slice(start, block_size)
            try:
                table = work(engine, block)
            except RuntimeError as error:
                if "memory" not in str(error) or not _is_fatal(error):
                    raise
                raise PeeralignError(
                    f"{label}: out of memory; set a smaller batch_size for this stage and run the "
                    "same command again, finished shards are kept"
                ) from error
            stage.write_shard(start // block_size, table)
            tick(len(block))
    stage.finish(questions=len(questions))


def each_apart(
    call: Callable[[Sequence[In]], list[Out]],
    requests: Sequence[In],
    broken: Callable[[str], Out],
) -> list[Out]:
    """`call` on all requests at once; if that fails, one by one, so only the culprit is lost.

    Running out of memory or a dead device is not an item's fault and is raised.
    """
    try:
        return call(requests)
    except ITEM_ERRORS as error:
        if _is_fatal(error):
            raise
        log.warning("a batch of %d failed (%s); trying its items apart", len(requests), error)
    results: list[Out] = []
    for request in requests:
        try:
            results += call([request])
        except ITEM_ERRORS as error:
            if _is_fatal(error):
                raise
            results.append(broken(f"{type(error).__name__}: {str(error)[:200]}"))
    return results


# After these, other items fail too: no memory is left, or the device has stopped working.
_FATAL = ("out of memory", "can't allocate memory", "not enough memory", "cuda error", "hip error")


def _is_fatal(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _FATAL)
