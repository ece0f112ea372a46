"""The local engine on a real, untrained peer: draws, readouts, and what does not load."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from peeralign.engines.base import AnswerRequest, JudgeRequest, Sampling
from peeralign.engines.local import LocalEngine, VerdictSkeleton, load_checkpoint, sample
from peeralign.errors import PeeralignError
from peeralign.images.load import open_image
from peeralign.judging.rubric import Rubric, load_rubric
from peeralign.judging.verdict import parse_verdict

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def engine(peer_folder: Path) -> LocalEngine:
    return LocalEngine(str(peer_folder), "cpu", min_label_mass=0.0)


@pytest.fixture(scope="module")
def judge_requests(scenes: list[dict[str, Any]]) -> list[JudgeRequest]:
    rubric = load_rubric("classroom")
    answers = ["red", "a long answer of many words", "2", "", "no"]
    return [
        JudgeRequest(open_image(scene["image"]), rubric.fill(scene["question"], answer))
        for scene, answer in zip(scenes, answers, strict=False)
    ]


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
    for batch_size in (1, 7, 12):
        other = LocalEngine(str(peer_folder), "cpu", batch_size=batch_size)
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


PROBABILITIES = [0.4, 0.05, 0.25, 0.0, 0.2, 0.1]


def drawn(uniforms: Any, temperature: float = 1.0, top_p: float = 1.0) -> np.ndarray:
    logits = torch.tensor(PROBABILITIES).log().expand(len(uniforms), -1)
    tokens = sample(logits, torch.as_tensor(uniforms), temperature, top_p)
    return np.bincount(tokens.numpy(), minlength=6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_are_drawn_with_their_probabilities(temperature: float) -> None:
    powered = np.array(PROBABILITIES) ** (1 / temperature)
    expected = powered / powered.sum()
    # Evenly spaced numbers leave a token at most one draw off.
    even = drawn((np.arange(10_000) + 0.5) / 10_000, temperature)
    assert np.abs(even - 10_000 * expected).max() <= 1
    counts = drawn(np.random.default_rng(0).random(20_000), temperature)
    assert counts[3] == 0
    possible = expected > 0
    assert chisquare(counts[possible], 20_000 * expected[possible]).pvalue > 0.001


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (1.0, {0, 1, 2, 4, 5}),
        (0.96, {0, 1, 2, 4, 5}),
        (0.94, {0, 2, 4, 5}),
        (0.86, {0, 2, 4, 5}),
        (0.84, {0, 2, 4}),
        (0.5, {0, 2}),
        (0.41, {0, 2}),
        (0.39, {0}),
        (1e-9, {0}),
    ],
)
def test_top_p_keeps_the_fewest_likeliest_tokens(top_p: float, kept: set[int]) -> None:
    counts = drawn((np.arange(5000) + 0.5) / 5000, top_p=top_p)
    assert set(np.flatnonzero(counts).tolist()) == kept
    masses = np.array([p if token in kept else 0.0 for token, p in enumerate(PROBABILITIES)])
    assert np.abs(counts - 5000 * masses / masses.sum()).max() <= 1


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-53])
def test_the_ends_of_the_range_draw_possible_tokens(uniform: float) -> None:
    logits = torch.tensor([[0.0, 0.7, 0.0, 0.3, 0.0]]).log()
    token = sample(logits, torch.tensor([uniform], dtype=torch.float64), 1.0, 1.0)
    assert token.tolist() == [1 if uniform == 0.0 else 3]


def test_every_row_is_drawn_by_its_own_number() -> None:
    logits = torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.9, 0.1]]).log()
    uniforms = torch.tensor([0.6, 0.05, 0.95], dtype=torch.float64)
    assert sample(logits, uniforms, 1.0, 1.0).tolist() == [1, 0, 1]
    assert sample(logits, uniforms, 0.0, 1.0).tolist() == [0, 1, 0]


def scores_by_direct_forward(
    model: Any, chat: Any, rubric: Rubric, request: JudgeRequest
) -> tuple[list[float], list[float], list[float]]:
    """Each axis by one whole forward, without a cache: (greedy, expected, label mass)."""
    skeleton = VerdictSkeleton(chat, rubric)
    inputs = chat.encode([chat.prompt(request.text)], [request.image])
    ids = inputs["input_ids"][0].tolist()
    greedy, expected, masses = [], [], []
    for piece, label_ids in zip(skeleton.pieces, skeleton.label_ids, strict=True):
        ids += piece
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), pixel_values=inputs["pixel_values"])
        probabilities = output.logits[0, -1].double().softmax(dim=-1)[label_ids].tolist()
        mass = sum(probabilities)
        best = max(range(len(label_ids)), key=lambda place: probabilities[place])
        greedy.append(float(rubric.labels[best]))
        expected.append(
            sum(s * p for s, p in zip(rubric.labels, probabilities, strict=True)) / mass
        )
        masses.append(mass)
        ids.append(label_ids[best])
    return greedy, expected, masses


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_readouts_are_those_of_a_direct_forward(
    engine: LocalEngine,
    untrained: dict[str, Any],
    chat: Any,
    judge_requests: list[JudgeRequest],
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
) -> None:
    rubric = load_rubric("classroom")
    monkeypatch.setattr(engine, "batch_size", batch_size)
    greedy = engine.judge(judge_requests, rubric, "greedy")
    expected = engine.judge(judge_requests, rubric, "expected")
    for place, request in enumerate(judge_requests):
        digits, means, masses = scores_by_direct_forward(untrained["llama"], chat, rubric, request)
        assert greedy[place].axes == digits
        assert expected[place].axes == pytest.approx(means, abs=1e-4)
        for verdict in (greedy[place], expected[place]):
            assert verdict.reason is None
            assert verdict.label_mass == pytest.approx(min(masses), rel=1e-3)
            assert parse_verdict(verdict.raw, rubric).axes == digits


def test_a_scale_of_one_s_own_is_read(
    engine: LocalEngine, untrained: dict[str, Any], chat: Any, judge_requests: list[JudgeRequest]
) -> None:
    rubric = Rubric(version=1, axes=["depth"], scale=(2, 7), prompt="{question}{answer}")
    (verdict,) = engine.judge(judge_requests[:1], rubric, "expected")
    _, means, _ = scores_by_direct_forward(untrained["llama"], chat, rubric, judge_requests[0])
    assert verdict.axes == pytest.approx(means, abs=1e-4)
    assert 2 < means[0] < 7


@pytest.mark.parametrize("readout", ["greedy", "expected"])
def test_a_judge_that_would_write_something_else_is_unscored(
    peer_folder: Path, judge_requests: list[JudgeRequest], readout: Any
) -> None:
    rubric = load_rubric("classroom")
    engine = LocalEngine(str(peer_folder), "cpu", min_label_mass=0.5)
    for verdict in engine.judge(judge_requests, rubric, readout):
        # Untrained, it spreads its probability over the whole vocabulary.
        assert verdict.label_mass is not None
        assert 0 < verdict.label_mass < 0.1
        assert verdict.axes is None
        assert verdict.reason == "less than 0.5 of the probability lies on scores"
        assert verdict.raw.startswith('{"helpfulness": ')


def test_a_judge_s_own_text_is_parsed(
    engine: LocalEngine, judge_requests: list[JudgeRequest]
) -> None:
    verdicts = engine.judge(judge_requests, load_rubric("classroom"), "text")
    assert len(verdicts) == len(judge_requests)
    for verdict in verdicts:
        assert verdict.axes is None
        assert verdict.reason == "no JSON object in the reply"
        assert verdict.raw


def test_scores_of_two_tokens_cannot_be_read_out(chat: Any) -> None:
    # The classroom's tokenizer knows the numbers up to 25; 26 is two tokens.
    rubric = Rubric(version=1, axes=["a"], scale=(1, 30), prompt="{question}{answer}")
    with pytest.raises(PeeralignError, match=r'set judge\.readout = "text"'):
        VerdictSkeleton(chat, rubric)


@pytest.mark.parametrize("name", ["classroom", "five_axis"])
def test_the_known_text_of_a_verdict_is_put_together_again(chat: Any, name: str) -> None:
    rubric = load_rubric(name)
    skeleton = VerdictSkeleton(chat, rubric)
    scores = [5, 1, 4, 2, 3]
    ids: list[int] = []
    for piece, label_ids, score in zip(skeleton.pieces, skeleton.label_ids, scores, strict=True):
        ids += [*piece, label_ids[score - 1]]
    assert ids == chat.text_ids(rubric.verdict(scores))[: len(ids)]
    assert chat.tokenizer.decode(ids) + "}" == rubric.verdict(scores)


def test_no_requests_no_work(engine: LocalEngine) -> None:
    assert engine.answer([], HOT) == []
    assert engine.judge([], load_rubric("classroom"), "expected") == []


def test_a_checkpoint_loads_as_it_was_saved(peer_folder: Path, untrained: dict[str, Any]) -> None:
    model, _ = load_checkpoint(str(peer_folder), CPU)
    assert not model.training
    assert model.dtype == torch.float32
    expected = untrained["llama"].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "nowhere", "a/b/c"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(PeeralignError, match=f"no member at {name}: the folder does not exist"):
        load_checkpoint(name, CPU)


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])


def change_head(folder: Path, change: Callable[[dict[str, Any], str], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights, next(name for name in weights if name.endswith("lm_head.weight")))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_head(folder: Path) -> None:
    change_head(folder, lambda weights, name: weights.pop(name))


def shrink_head(folder: Path) -> None:
    def shrink(weights: dict[str, Any], name: str) -> None:
        weights[name] = weights[name][:-3].contiguous()

    change_head(folder, shrink)


def only_text(folder: Path) -> None:
    for name in ("processor_config.json", "model.safetensors", "chat_template.jinja"):
        (folder / name).unlink()
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no model"),
        (lambda folder: (folder / "config.json").write_text("{"), "does not load|no processor"),
        (lambda folder: (folder / "config.json").write_text("{}"), "does not load|no processor"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no processor that loads"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "no processor that loads"),
        (lambda folder: (folder / "processor_config.json").unlink(), "no (image )?processor"),
        (lambda folder: (folder / "model.safetensors").unlink(), "does not load"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "does not load"),
        (cut_weights, "does not load"),
        (drop_head, "is incomplete: its weights lack .*lm_head"),
        (shrink_head, "does not load"),
        (only_text, "no (image )?processor"),
    ],
    ids=[
        "no config",
        "broken config",
        "empty config",
        "no tokenizer",
        "broken tokenizer",
        "no processor",
        "no weights",
        "empty weights",
        "cut weights",
        "a weight missing",
        "a weight of another size",
        "a text model",
    ],
)
def test_a_checkpoint_that_cannot_be_used(
    peer_folder: Path, tmp_path: Path, damage: Callable[[Path], Any], complaint: str
) -> None:
    folder = tmp_path / "member"
    shutil.copytree(peer_folder, folder)
    damage(folder)
    with pytest.raises(PeeralignError, match=complaint) as caught:
        load_checkpoint(str(folder), CPU)
    assert "member" in str(caught.value)


def test_a_closed_engine_holds_no_model(peer_folder: Path) -> None:
    engine = LocalEngine(str(peer_folder), "cpu")
    engine.close()
    assert not hasattr(engine, "model")
