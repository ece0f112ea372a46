"""From a member to the engine that runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from peeralign.describing.prompts import load_prompts
from peeralign.engines.base import AnswerRequest, Draw, Engine, JudgeRequest, Readout, Sampling
from peeralign.judging.verdict import Verdict
from peeralign.panel import Member


def open_engine(member: Member, min_label_mass: float = 0.5) -> Engine:
    """Load the member, or connect to it. Raises PeeralignError if that cannot be done."""
    engine = _open(member, min_label_mass)
    if member.describe is None:
        return engine
    from peeralign.engines.describing import DescribingEngine

    return DescribingEngine(engine, member.describe)


def _open(member: Member, min_label_mass: float) -> Engine:
    if member.server is not None:
        from peeralign.engines.openai import ServerEngine

        return ServerEngine(member.model, member.server, min_label_mass)
    if member.vllm is not None:
        from peeralign.engines.vllm import VllmEngine

        return VllmEngine(member, min_label_mass)
    from peeralign.engines.local import LocalEngine

    return LocalEngine(
        member.checkpoint(),
        member.device,
        member.dtype,
        member.memory_gib,
        member.trust_remote_code,
        min_label_mass,
    )


class _Borrowed:
    """An engine whose closing is left to whoever lent it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        return self.engine.answer(requests, sampling)

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        return self.engine.judge(requests, readout)

    def close(self) -> None: ...


@contextmanager
def kept_open(open_one: Callable[[Member], Engine]) -> Iterator[Callable[[Member], Engine]]:
    """`open_one` for several stages of one member: it is loaded once, if one of them has work."""
    held: list[_Borrowed] = []

    def lend(member: Member) -> Engine:
        if not held:
            held.append(_Borrowed(open_one(member)))
        return held[0]

    try:
        yield lend
    finally:
        for borrowed in held:
            borrowed.engine.close()


def check_member(member: Member) -> None:
    """Raise PeeralignError, before a run's folder is made, if the member cannot be used."""
    if member.describe is not None:
        load_prompts(member.describe.prompts)
    if member.server is not None:
        from peeralign.engines.openai import ServerEngine

        engine = ServerEngine(member.model, member.server, 0.0)
        try:
            engine.check()
        finally:
            engine.close()
        return
    from peeralign.engines.loading import load_processor

    load_processor(member.checkpoint(), member.trust_remote_code)
