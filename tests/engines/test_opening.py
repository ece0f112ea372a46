"""An engine that several stages of one member share."""

from __future__ import annotations

from contextlib import closing

import pytest

from peeralign.engines.opening import kept_open
from peeralign.panel import Member

ADA = Member(name="ada", model="classroom:ada")


class Counted:
    """An engine that only knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def answer(self, requests: object, sampling: object) -> list[list[object]]:
        assert not self.closed
        return [["answer"]]

    def judge(self, requests: object, readout: object) -> list[list[object]]:
        assert not self.closed
        return [["verdict"]]

    def close(self) -> None:
        self.closed += 1


def test_it_is_loaded_once_and_closed_at_the_end() -> None:
    opened: list[Counted] = []

    def open_one(member: Member) -> Counted:
        opened.append(Counted())
        return opened[-1]

    with kept_open(open_one) as factory:  # type: ignore[arg-type]
        for _ in range(2):
            with closing(factory(ADA)) as engine:
                assert engine.answer([], None) == [["answer"]]  # type: ignore[arg-type]
                assert engine.judge([], None) == [["verdict"]]  # type: ignore[arg-type]
        (engine,) = opened
        assert engine.closed == 0
    assert engine.closed == 1


def test_nobody_is_loaded_without_work_and_a_failure_closes_too() -> None:
    opened: list[Counted] = []

    def open_one(member: Member) -> Counted:
        opened.append(Counted())
        return opened[-1]

    with kept_open(open_one):  # type: ignore[arg-type]
        pass
    assert not opened

    def fail() -> None:
        with kept_open(open_one) as factory:  # type: ignore[arg-type]
            factory(ADA)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert opened[0].closed == 1
