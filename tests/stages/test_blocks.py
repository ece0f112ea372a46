"""Blocks of work: what a failing call costs, and how much lies in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from peeralign.stages import blocks
from peeralign.stages.blocks import each_apart, in_parts


def doubled(items: Sequence[int]) -> list[int]:
    """Twice each number; 13 is an error, as is any batch that holds it."""
    if 13 in items:
        raise ValueError("13 is unlucky")
    return [2 * item for item in items]


def minus_one(item: int, reason: str) -> int:
    return -1


def counted(call: Callable[[Sequence[int]], list[int]]) -> tuple[list[list[int]], Callable]:
    """`call`, and the list of what it was called with."""
    calls: list[list[int]] = []

    def counting(items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        return call(items)

    return calls, counting


def test_each_apart_keeps_order_and_loses_the_culprit() -> None:
    assert each_apart(doubled, [1, 2, 3], minus_one) == [2, 4, 6]
    lost: list[tuple[int, str]] = []

    def broken(item: int, reason: str) -> int:
        lost.append((item, reason))
        return -1

    assert each_apart(doubled, [1, 13, 3, 13], broken) == [2, -1, 6, -1]
    assert lost == [(13, "ValueError: 13 is unlucky")] * 2


def test_each_apart_calls_once_when_nothing_is_wrong() -> None:
    calls, call = counted(doubled)
    each_apart(call, [1, 2, 3], minus_one)
    assert calls == [[1, 2, 3]]


@pytest.mark.parametrize("place", [0, 1, 31, 32, 40, 63])
def test_one_culprit_among_many_costs_few_calls(place: int) -> None:
    items = [100 + n for n in range(64)]
    items[place] = 13
    calls, call = counted(doubled)
    found = each_apart(call, items, minus_one)
    assert found == [-1 if item == 13 else 2 * item for item in items]
    # Two halves at each of six levels, and the whole.
    assert len(calls) <= 13


@pytest.mark.parametrize("number", [1, 2, 3, 5, 7, 12])
def test_only_the_culprits_are_lost_wherever_they_stand(number: int) -> None:
    for culprits in range(2**number):
        items = [13 if culprits >> place & 1 else place for place in range(number)]
        found = each_apart(doubled, items, minus_one)
        assert found == [-1 if item == 13 else 2 * item for item in items]


def test_a_batch_that_only_fails_together_loses_nobody() -> None:
    def call(items: Sequence[int]) -> list[int]:
        if len(items) > 3:
            raise RuntimeError("too many at once")
        return doubled(items)

    assert each_apart(call, list(range(10)), minus_one) == [2 * n for n in range(10)]


def test_each_apart_isolates_an_item_out_of_range() -> None:
    """A real error: an embedding asked for a token it does not have."""
    embedding = torch.nn.Embedding(4, 2)

    def look_up(items: Sequence[int]) -> list[float]:
        return embedding(torch.tensor(items)).sum(dim=1).tolist()

    values = each_apart(look_up, [0, 9, 3], lambda item, reason: -99.0)
    assert values[1] == -99.0
    assert -99.0 not in (values[0], values[2])


def allocate_too_much(items: Sequence[int]) -> list[int]:
    torch.empty(2**60)
    return list(items)


@pytest.mark.parametrize("at", ["the batch", "a half", "an item"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        # After this every call on the device fails, so every further item would be lost.
        RuntimeError("CUDA error: device-side assert triggered"),
        MemoryError(),
    ],
    ids=["cuda", "mps", "dead device", "python"],
)
def test_each_apart_raises_what_is_no_item_s_fault(error: BaseException, at: str) -> None:
    size = {"the batch": 4, "a half": 2, "an item": 1}[at]

    def call(items: Sequence[int]) -> list[int]:
        if len(items) == size:
            raise error
        return doubled(items)

    with pytest.raises(type(error)):
        each_apart(call, [1, 13, 2, 13], minus_one)


def test_each_apart_raises_when_the_processor_s_memory_is_used_up() -> None:
    with pytest.raises(RuntimeError, match="allocate"):
        each_apart(allocate_too_much, [1, 2], minus_one)


def test_each_apart_does_not_hide_other_errors() -> None:
    def call(items: Sequence[int]) -> list[int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        each_apart(call, [1], minus_one)


@dataclass(frozen=True)
class Pictured:
    number: int
    image: Image.Image


@pytest.mark.parametrize(
    ("most", "parts"),
    [
        # A part ends behind the image that fills it; each has 100 pixels.
        (1, [1, 1, 1, 1, 1]),
        (200, [2, 2, 1]),
        (201, [3, 2]),
        (500, [5]),
        (10_000, [5]),
    ],
)
def test_parts_end_where_their_images_are_many(
    monkeypatch: pytest.MonkeyPatch, most: int, parts: list[int]
) -> None:
    monkeypatch.setattr(blocks, "MAX_OPEN_PIXELS", most)
    opened: list[int] = []
    open_at_call: list[int] = []
    sizes: list[int] = []

    def requests() -> Iterator[Pictured]:
        for number in range(5):
            opened.append(number)
            yield Pictured(number, Image.new("RGB", (10, 10)))

    def call(some: Sequence[Pictured]) -> list[int]:
        sizes.append(len(some))
        open_at_call.append(len(opened))
        return [request.number for request in some]

    assert in_parts(call, requests(), lambda request, reason: -1) == [0, 1, 2, 3, 4]
    assert sizes == parts
    # Nothing is opened before its part begins.
    assert open_at_call == [sum(parts[: n + 1]) for n in range(len(parts))]


def test_nothing_to_ask_is_no_call() -> None:
    def call(some: Sequence[Pictured]) -> list[int]:
        raise AssertionError("called for nothing")

    assert in_parts(call, [], lambda request, reason: -1) == []


def test_a_culprit_is_named_to_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_OPEN_PIXELS", 300)

    def call(some: Sequence[Pictured]) -> list[str]:
        if any(request.number == 4 for request in some):
            raise KeyError("a missing weight")
        return [str(request.number) for request in some]

    picture = Image.new("RGB", (10, 10))
    found = in_parts(
        call,
        [Pictured(number, picture) for number in range(7)],
        lambda request, reason: f"{request.number} lost: {reason}",
    )
    assert found == ["0", "1", "2", "3", "4 lost: KeyError: 'a missing weight'", "5", "6"]
