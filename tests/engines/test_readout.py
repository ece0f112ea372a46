"""Reading scores: equal to whole forward passes, and to what the judge would write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peeralign.classroom.demo import draw_pool
from peeralign.classroom.peers import shipped_peer
from peeralign.engines.base import JudgeRequest
from peeralign.engines.local import LocalEngine
from peeralign.engines.readout import VerdictSkeleton
from peeralign.errors import PeeralignError
from peeralign.images.load import open_image
from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import Form, Verdict, parse_verdict


@pytest.fixture(scope="module")
def engine(peer_folder: Path) -> LocalEngine:
    return LocalEngine(str(peer_folder), "cpu", min_label_mass=0.0)


@pytest.fixture(scope="module")
def judge_requests(scenes: list[dict[str, Any]]) -> list[JudgeRequest]:
    rubric = load_rubric("classroom")
    answers = ["red", "a long answer of many words", "2", "", "no"]
    return [
        JudgeRequest(
            open_image(scene["image"]),
            tuple(rubric.fill(scene["question"], answers[: 1 + place])),
            rubric.form(),
        )
        for place, scene in enumerate(scenes[:5])
    ]


def flat(verdicts: list[list[Verdict]]) -> list[Verdict]:
    return [verdict for row in verdicts for verdict in row]


def scores_by_direct_forward(
    model: Any, chat: Any, request: JudgeRequest, text: str
) -> tuple[list[float], list[float], list[float]]:
    """Each axis by one whole forward, without a cache: (greedy, expected, label mass)."""
    skeleton = VerdictSkeleton(chat, request.form)
    inputs = chat.encode([chat.prompt(text)], [request.image])
    ids = inputs["input_ids"][0].tolist()
    greedy, expected, masses = [], [], []
    for piece, label_ids in zip(skeleton.pieces, skeleton.label_ids, strict=True):
        ids += piece
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), pixel_values=inputs["pixel_values"])
        probabilities = output.logits[0, -1].double().softmax(dim=-1)[label_ids].tolist()
        mass = sum(probabilities)
        best = max(range(len(label_ids)), key=lambda place: probabilities[place])
        greedy.append(float(request.form.labels[best]))
        expected.append(
            sum(s * p for s, p in zip(request.form.labels, probabilities, strict=True)) / mass
        )
        masses.append(mass)
        ids.append(label_ids[best])
    return greedy, expected, masses


@pytest.mark.parametrize("memory_gib", [1e-3, 3e-3, 1.0])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_readouts_are_those_of_a_direct_forward(
    peer_folder: Path,
    untrained: dict[str, Any],
    chat: Any,
    judge_requests: list[JudgeRequest],
    memory_gib: float,
    share_prefix: bool,
) -> None:
    engine = LocalEngine(
        str(peer_folder),
        "cpu",
        memory_gib=memory_gib,
        min_label_mass=0.0,
        share_prefix=share_prefix,
    )
    greedy = engine.judge(judge_requests, "greedy")
    expected = engine.judge(judge_requests, "expected")
    for place, request in enumerate(judge_requests):
        assert len(greedy[place]) == len(expected[place]) == len(request.texts)
        for number, text in enumerate(request.texts):
            digits, means, masses = scores_by_direct_forward(
                untrained["llama"], chat, request, text
            )
            assert greedy[place][number].axes == digits
            assert expected[place][number].axes == pytest.approx(means, abs=1e-4)
            for verdict in (greedy[place][number], expected[place][number]):
                assert verdict.reason is None
                assert verdict.label_mass == pytest.approx(min(masses), rel=1e-3)
                assert parse_verdict(verdict.raw, request.form).axes == digits


def test_a_scale_of_one_s_own_is_read(
    engine: LocalEngine, untrained: dict[str, Any], chat: Any, judge_requests: list[JudgeRequest]
) -> None:
    request = replace(judge_requests[0], form=Form(("depth",), (2, 7)))
    verdicts = engine.judge([request], "expected")[0]
    for verdict, text in zip(verdicts, request.texts, strict=True):
        _, means, _ = scores_by_direct_forward(untrained["llama"], chat, request, text)
        assert verdict.axes == pytest.approx(means, abs=1e-4)
        assert 2 < means[0] < 7


def test_forms_may_be_mixed_in_one_call(
    engine: LocalEngine, judge_requests: list[JudgeRequest]
) -> None:
    forms = [Form(("A", "B", "C")[: 1 + place % 3], (1, 5)) for place in range(len(judge_requests))]
    mixed = [replace(r, form=form) for r, form in zip(judge_requests, forms, strict=True)]
    found = engine.judge(mixed, "expected")
    for request, verdicts in zip(mixed, found, strict=True):
        (alone,) = engine.judge([request], "expected")
        assert [len(v.axes or []) for v in verdicts] == [len(request.form.axes)] * len(verdicts)
        for one, other in zip(verdicts, alone, strict=True):
            assert one.axes == pytest.approx(other.axes, abs=1e-5)


@pytest.mark.parametrize("readout", ["greedy", "expected"])
def test_a_judge_that_would_write_something_else_is_unscored(
    peer_folder: Path, judge_requests: list[JudgeRequest], readout: Any
) -> None:
    engine = LocalEngine(str(peer_folder), "cpu", min_label_mass=0.5)
    for verdict in flat(engine.judge(judge_requests, readout)):
        # Untrained, it spreads its probability over the whole vocabulary.
        assert verdict.label_mass is not None
        assert 0 < verdict.label_mass < 0.1
        assert verdict.axes is None
        assert verdict.reason == "less than 0.5 of the probability lies on scores"
        assert verdict.raw.startswith('{"helpfulness": ')


def test_a_judge_s_own_text_is_parsed(
    engine: LocalEngine, judge_requests: list[JudgeRequest]
) -> None:
    verdicts = flat(engine.judge(judge_requests, "text"))
    assert len(verdicts) == sum(len(request.texts) for request in judge_requests)
    for verdict in verdicts:
        assert verdict.axes is None
        assert verdict.reason == "no JSON object in the reply"
        assert verdict.raw


def test_scores_of_two_tokens_cannot_be_read_out(chat: Any) -> None:
    # The classroom's tokenizer knows the numbers up to 25; 26 is two tokens.
    with pytest.raises(PeeralignError, match=r'set judge\.readout = "text"'):
        VerdictSkeleton(chat, Form(("a",), (1, 30)))


@pytest.mark.parametrize("name", ["classroom", "five_axis"])
def test_the_known_text_of_a_verdict_is_put_together_again(chat: Any, name: str) -> None:
    form = load_rubric(name).form()
    skeleton = VerdictSkeleton(chat, form)
    scores = [5, 1, 4, 2, 3]
    ids: list[int] = []
    for piece, label_ids, score in zip(skeleton.pieces, skeleton.label_ids, scores, strict=True):
        ids += [*piece, label_ids[score - 1]]
    assert ids == chat.text_ids(form.write(scores))[: len(ids)]
    assert chat.tokenizer.decode(ids) + "}" == form.write(scores)


def test_what_a_judge_would_write_is_what_greedy_reads() -> None:
    engine = LocalEngine(str(shipped_peer("ben")), "cpu")
    rubric = load_rubric("classroom")
    requests = [
        JudgeRequest(
            open_image(row["image"]),
            tuple(rubric.fill(row["question"], ["red", "blue square", "3", "no"])),
            rubric.form(),
        )
        for row in draw_pool(5, 24).to_dicts()
    ]
    written = flat(engine.judge(requests, "text"))
    read = flat(engine.judge(requests, "greedy"))
    assert len({verdict.raw for verdict in written}) > 3
    for one, other in zip(written, read, strict=True):
        assert one.reason is None
        assert (one.axes, one.raw) == (other.axes, other.raw)


@pytest.mark.parametrize("name", ["json", "mark"])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_comparison_is_read_from_the_probabilities_of_its_labels(
    peer_folder: Path,
    untrained: dict[str, Any],
    chat: Any,
    judge_requests: list[JudgeRequest],
    name: str,
    share_prefix: bool,
) -> None:
    engine = LocalEngine(str(peer_folder), "cpu", min_label_mass=0.0, share_prefix=share_prefix)
    mark = "Verdict:" if name == "mark" else None
    form = Form(("better",), (0, 1), choices=("1", "2", "3"), mark=mark, reason="after")
    skeleton = VerdictSkeleton(chat, form)
    request = replace(judge_requests[2], form=form)
    (expected,) = engine.judge([request], "expected")
    (greedy,) = engine.judge([request], "greedy")
    for text, soft, hard in zip(request.texts, expected, greedy, strict=True):
        inputs = chat.encode([chat.prompt(text)], [request.image])
        ids = inputs["input_ids"][0].tolist() + skeleton.pieces[0]
        with torch.no_grad():
            output = untrained["llama"](
                input_ids=torch.tensor([ids]), pixel_values=inputs["pixel_values"]
            )
        probabilities = output.logits[0, -1].double().softmax(-1)[skeleton.label_ids[0]]
        shares = (probabilities / probabilities.sum()).tolist()
        assert soft.shares == pytest.approx(shares, abs=1e-5)
        assert hard.shares == pytest.approx(shares, abs=1e-5)
        assert soft.axes == pytest.approx([shares[0] + shares[2] / 2], abs=1e-5)
        assert soft.label_mass == pytest.approx(probabilities.sum().item(), rel=1e-3)
        best = max(range(3), key=shares.__getitem__)
        assert hard.axes == [form.values[best]]
        assert soft.raw == hard.raw == form.write([form.labels[best]])
        assert parse_verdict(soft.raw, form).axes == hard.axes


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (Form(("score",), (0, 100), mark="Score:"), "every score as one token"),
        (Form(("better",), (0, 1), choices=("A", "B", "undecidable")), "every score as one token"),
        (Form(("score",), (1, 5), reason="first"), "the reason before the score"),
    ],
)
@pytest.mark.parametrize("readout", ["greedy", "expected"])
def test_forms_that_cannot_be_read_out_say_so(
    engine: LocalEngine, judge_requests: list[JudgeRequest], form: Form, said: str, readout: Any
) -> None:
    with pytest.raises(PeeralignError, match=said) as caught:
        engine.judge([replace(judge_requests[0], form=form)], readout)
    assert 'set judge.readout = "text"' in str(caught.value)


def test_a_score_of_two_tokens_is_read_from_a_judge_s_own_text(
    engine: LocalEngine, chat: Any, judge_requests: list[JudgeRequest], monkeypatch: Any
) -> None:
    lengths = []

    def draw(branches: Any, logits_KV: Any, seeds: Any, sampling: Any, ends: Any) -> Any:
        lengths.append(sampling.max_new_tokens)
        return [chat.text_ids("it is so. final score: 85")] * len(logits_KV)

    monkeypatch.setattr("peeralign.engines.local.draw", draw)
    form = Form(("score",), (0, 100), mark="Final score:", reason="first")
    engine.memory.context_tokens, was = 4096, engine.memory.context_tokens
    monkeypatch.setattr(engine, "window", 4096)
    found = flat(engine.judge([replace(judge_requests[1], form=form)], "text"))
    engine.memory.context_tokens = was
    assert [verdict.axes for verdict in found] == [[85.0], [85.0]]
    assert set(lengths) == {512}
