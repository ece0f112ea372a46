"""The local engine on a real, untrained peer: draws, batches, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peeralign.engines.base import AnswerRequest, Sampling
from peeralign.engines.local import LocalEngine
from peeralign.images.load import open_image


@pytest.fixture(scope="module")
def engine(peer_folder: Path) -> LocalEngine:
    return LocalEngine(str(peer_folder), "cpu", min_label_mass=0.0)


def requests(scenes: list[dict[str, Any]], draws: int, seed: int = 0) -> list[AnswerRequest]:
    return [
        AnswerRequest(
            open_image(scene["image"]),
            scene["question"],
            tuple(10_000 * seed + 100 * place + draw for draw in range(draws)),
        )
        for place, scene in enumerate(scenes)
    ]


def texts(engine: LocalEngine, asked: list[AnswerRequest], sampling: Sampling) -> list[list[Any]]:
    return [
        [(draw.text, draw.num_tokens) for draw in draws] for draws in engine.answer(asked, sampling)
    ]


HOT = Sampling(num_draws=3, temperature=1.0, top_p=0.95, max_new_tokens=6)


def test_a_draw_does_not_depend_on_its_batch(
    peer_folder: Path, engine: LocalEngine, scenes: list[dict[str, Any]]
) -> None:
    asked = requests(scenes, draws=3)
    expected = texts(engine, asked, HOT)
    assert [len(draws) for draws in expected] == [3] * 9
    for memory_gib in (5e-4, 1e-3, 3e-3):
        other = LocalEngine(str(peer_folder), "cpu", memory_gib=memory_gib)
        assert texts(other, asked, HOT) == expected
    # Nor on its neighbours, nor on the number of draws beside it.
    assert texts(engine, asked[4:5], HOT) == expected[4:5]
    assert texts(engine, asked[::-1], HOT) == expected[::-1]
    alone = AnswerRequest(asked[2].image, asked[2].text, asked[2].seeds[1:2])
    single = Sampling(1, HOT.temperature, HOT.top_p, HOT.max_new_tokens)
    assert texts(engine, [alone], single) == [expected[2][1:2]]


def test_draws_differ_by_their_seeds(engine: LocalEngine, scenes: list[dict[str, Any]]) -> None:
    first = texts(engine, requests(scenes, draws=3), HOT)
    other = texts(engine, requests(scenes, draws=3, seed=1), HOT)
    assert len({draw for draws in first for draw in draws}) > 20
    assert (
        sum(a == b for x, y in zip(first, other, strict=True) for a, b in zip(x, y, strict=True))
        < 5
    )


def test_greedy_is_the_greedy_of_transformers(
    engine: LocalEngine, untrained: dict[str, Any], chat: Any, scenes: list[dict[str, Any]]
) -> None:
    asked = requests(scenes, draws=1)
    found = engine.answer(asked, Sampling(max_new_tokens=8))
    for request, draws in zip(asked, found, strict=True):
        inputs = chat.encode([chat.prompt(request.text)], [request.image])
        ids = untrained["llama"].generate(**inputs, do_sample=False, max_new_tokens=8)
        answer = ids[0, inputs["input_ids"].shape[1] :]
        assert draws[0].num_tokens == len(answer)
        expected = chat.tokenizer.decode(answer, skip_special_tokens=True).strip()
        assert (draws[0].text or "") == expected


def test_greedy_ignores_the_seed(engine: LocalEngine, scenes: list[dict[str, Any]]) -> None:
    cold = Sampling(num_draws=2, temperature=0.0, max_new_tokens=4)
    first = texts(engine, requests(scenes, draws=2), cold)
    assert first == texts(engine, requests(scenes, draws=2, seed=5), cold)
    assert all(one == two for one, two in first)


def test_an_answer_stops_at_the_end_of_its_turn(
    peer_folder: Path, scenes: list[dict[str, Any]]
) -> None:
    long = Sampling(num_draws=3, temperature=1.0, max_new_tokens=40)
    engine = LocalEngine(str(peer_folder), "cpu")
    whole = texts(engine, requests(scenes, draws=3), long)
    # A common word made an end of turn: draws that hold it stop there, others stay as they were.
    (word,) = engine.chat.text_ids("red")
    engine.end_ids |= {word}
    cut = texts(engine, requests(scenes, draws=3), long)
    pairs = [(x, y) for xs, ys in zip(whole, cut, strict=True) for x, y in zip(xs, ys, strict=True)]
    stopped = [(x, y) for x, y in pairs if x != y]
    assert 0 < len(stopped) < len(pairs)
    for (before, num_before), (after, num_after) in stopped:
        assert num_after < num_before
        assert before.startswith(after)
        assert after.endswith("red")
    assert all("red" not in y[0].split() for x, y in pairs if x == y and y[1] == 40)


def test_nothing_but_an_end_of_turn_is_no_answer(
    peer_folder: Path, scenes: list[dict[str, Any]]
) -> None:
    engine = LocalEngine(str(peer_folder), "cpu")
    head = engine.model.lm_head.weight
    # All logits equal, so greedy writes token 0, the padding, to the end.
    with torch.no_grad():
        head.zero_()
    short = Sampling(max_new_tokens=3)
    for end_ids, num_tokens in ((engine.end_ids, 3), ({0}, 1)):
        engine.end_ids = end_ids
        ((draw,),) = engine.answer(requests(scenes[:1], draws=1), short)
        assert (draw.text, draw.num_tokens, draw.reason) == (None, num_tokens, "empty answer")


def test_no_requests_no_work(engine: LocalEngine) -> None:
    assert engine.answer([], HOT) == []
    assert engine.judge([], "expected") == []


def test_a_closed_engine_holds_no_model(peer_folder: Path) -> None:
    engine = LocalEngine(str(peer_folder), "cpu")
    engine.close()
    assert not hasattr(engine, "model")
