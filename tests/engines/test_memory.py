"""Memory: estimates that plan batches, and what happens when they were wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peeralign.engines.base import AnswerRequest, JudgeRequest, Sampling
from peeralign.engines.local import LocalEngine
from peeralign.engines.memory import GIB, Memory, is_out_of_memory
from peeralign.errors import PeeralignError
from peeralign.images.load import open_image
from peeralign.judging.rubric import load_rubric

CPU = torch.device("cpu")
HOT = Sampling(num_draws=4, temperature=1.0, max_new_tokens=6)


@pytest.fixture
def asked(scenes: list[dict[str, Any]]) -> list[AnswerRequest]:
    return [
        AnswerRequest(
            open_image(scene["image"]), scene["question"], tuple(range(9 * place, 9 * place + 4))
        )
        for place, scene in enumerate(scenes)
    ]


@pytest.fixture
def graded(scenes: list[dict[str, Any]]) -> list[JudgeRequest]:
    rubric = load_rubric("classroom")
    return [
        JudgeRequest(
            open_image(scene["image"]),
            tuple(rubric.fill(scene["question"], ["red", "no", "2", "blue square"])),
            rubric.form(),
        )
        for scene in scenes
    ]


def test_more_of_anything_takes_more(untrained: dict[str, Any]) -> None:
    memory = Memory(untrained["llama"], CPU, 1.0)
    base = {"prompt": 600, "branches": 8, "tail": 480, "fed": 400, "logit_bytes": 44}
    for count in (lambda **n: memory.tree(**n, rows=1), memory.rows):
        least = count(**base)
        for name in base:
            assert count(**{**base, name: 2 * base[name]}) >= least
        assert count(**{**base, "tail": 4 * 480}) > least
        assert count(**{**base, "prompt": 4 * 600}) > least
    # A tree holds its prompt once, rows hold it once a branch.
    assert memory.tree(600, 1, 8, 8 * 60, 8, 44) < memory.rows(600, 8, 60, 1, 44) / 2


def test_the_next_batch_is_as_large_as_fits(untrained: dict[str, Any]) -> None:
    memory = Memory(untrained["llama"], CPU, 1.0)
    for cost, hint in ((GIB // 7, 7), (GIB, 1), (10 * GIB, 1)):
        memory.expect(cost)
        assert memory.batch_hint == hint


def fails_above(engine: LocalEngine, num_tokens: int, error: Callable[[], Exception]) -> list[int]:
    """Let every forward pass over more than `num_tokens` tokens run out of memory."""
    real, failures = engine.model.forward, []

    def forward(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].numel() > num_tokens:
            failures.append(kwargs["input_ids"].numel())
            raise error()
        return real(*args, **kwargs)

    forward.__signature__ = __import__("inspect").signature(real)  # type: ignore[attr-defined]
    engine.model.forward = forward
    return failures


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_halves_and_goes_on(
    peer_folder: Path,
    asked: list[AnswerRequest],
    graded: list[JudgeRequest],
    caplog: pytest.LogCaptureFixture,
    error: Callable[[], Exception],
) -> None:
    engine = LocalEngine(str(peer_folder), "cpu", min_label_mass=0.0)
    answers, verdicts = engine.answer(asked, HOT), engine.judge(graded, "expected")
    engine.memory.limit = 2 * GIB
    failures = fails_above(engine, 90, error)
    with caplog.at_level(logging.INFO, "peeralign"):
        assert engine.answer(asked, HOT) == answers
        found = engine.judge(graded, "expected")
    assert failures
    assert len(caplog.records) == len(failures)
    assert all("out of memory: going on with" in record.message for record in caplog.records)
    for row, expected in zip(found, verdicts, strict=True):
        for verdict, wanted in zip(row, expected, strict=True):
            assert verdict.axes == pytest.approx(wanted.axes, abs=1e-4)


def test_no_memory_at_all_ends_in_one_sentence(
    peer_folder: Path, asked: list[AnswerRequest]
) -> None:
    engine = LocalEngine(str(peer_folder), "cpu")
    fails_above(engine, 0, lambda: torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(PeeralignError, match="out of memory on cpu even with a single answer"):
        engine.answer(asked, HOT)


def test_other_errors_are_not_taken_for_it(peer_folder: Path, asked: list[AnswerRequest]) -> None:
    engine = LocalEngine(str(peer_folder), "cpu")
    fails_above(engine, 0, lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot"):
        engine.answer(asked, HOT)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_answer_too_long_for_memory_is_set_aside(
    peer_folder: Path, graded: list[JudgeRequest]
) -> None:
    engine = LocalEngine(str(peer_folder), "cpu", min_label_mass=0.0, memory_gib=2e-3)
    rubric = load_rubric("classroom")
    engine.memory.context_tokens = 10**9
    mixed = [
        JudgeRequest(r.image, (*r.texts, *rubric.fill("what?", ["red " * 5000])), r.form)
        for r in graded
    ]
    alone = engine.judge(graded, "expected")
    for row, expected in zip(engine.judge(mixed, "expected"), alone, strict=True):
        assert row[-1].axes is None
        assert "more than fit into 0.002 GiB" in (row[-1].reason or "")
        for verdict, wanted in zip(row, expected, strict=False):
            assert verdict.axes == pytest.approx(wanted.axes, abs=1e-4)
