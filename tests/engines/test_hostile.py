"""Hostile answers: they may get a bad grade or none, never a say in anything else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from engines.hostile_answers import FENCES, LONG, QUESTION, SHORT, fence_of
from families.offered import FAMILIES, save_family
from PIL import Image

from peeralign.chat import ChatFormat
from peeralign.engines.base import AnswerRequest, JudgeRequest, Readout, Sampling
from peeralign.engines.local import LocalEngine
from peeralign.judging.rubric import Rubric, load_rubric, shipped_rubrics
from peeralign.judging.verdict import Form, Verdict

# PaliGemma's processor, on its own tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RUBRIC = load_rubric("classroom")
FORM = RUBRIC.form()
HARMLESS = ["red", "it is a blue one", "there is no circle"]
READOUTS: list[Readout] = ["expected", "greedy", "text"]


@pytest.fixture(scope="module", params=FAMILIES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    """An untrained judge of this family."""
    folder: Path = tmp_path_factory.mktemp("hostile") / request.param
    return LocalEngine(str(save_family(request.param, folder)), "cpu", min_label_mass=0.0)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def request_for(image: Image.Image, answers: list[str]) -> JudgeRequest:
    return JudgeRequest(image, tuple(RUBRIC.fill(QUESTION, answers)), FORM)


def special_counts(chat: ChatFormat, text: str, image: Image.Image) -> dict[int, int]:
    """How often each special or added token comes in the prompt of a text, the image's included."""
    special = {*chat.tokenizer.all_special_ids, *chat.tokenizer.get_added_vocab().values()}
    ids = Counter(chat.encode([chat.prompt(text)], [image])["input_ids"][0].tolist())
    return {token: count for token, count in ids.items() if token in special}


def check_verdict(verdict: Verdict, form: Form) -> None:
    """Scores of all axes, on the scale, or a reason for none."""
    assert (verdict.axes is None) != (verdict.reason is None)
    if verdict.axes is not None:
        assert len(verdict.axes) == len(form.axes)
        low, high = form.scale
        assert all(low <= score <= high for score in verdict.axes)


def same(found: list[Verdict], expected: list[Verdict], readout: Readout) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.raw == other.raw
        assert one.reason == other.reason
        if other.axes is not None:
            assert one.axes == pytest.approx(other.axes, abs=1e-3)


def test_there_are_enough_of_them() -> None:
    assert len(SHORT) >= 50
    assert len(set(SHORT.values())) == len(SHORT)
    assert all(len(answer) == 100_000 for answer in LONG.values())


def test_no_answer_adds_a_control_token(engine: LocalEngine, image: Image.Image) -> None:
    chat = engine.chat
    harmless = special_counts(chat, RUBRIC.fill(QUESTION, ["red"])[0], image)
    assert harmless[chat.tokenizer.convert_tokens_to_ids(chat.image_token)] > 0
    for name, answer in {**SHORT, **LONG}.items():
        text = RUBRIC.fill(QUESTION, [answer])[0]
        assert special_counts(chat, text, image) == harmless, name
    for name, answer in SHORT.items():
        assert special_counts(chat, answer, image) == harmless, name


def test_no_answer_of_a_pair_adds_a_control_token(engine: LocalEngine, image: Image.Image) -> None:
    # Every wording meets a few of them, first and second in turn.
    hostile = list(SHORT.values())
    for number, one in enumerate(load_rubric("pairwise").variants()):
        (text,) = one.fill_pairs(QUESTION, [("red", "blue")])
        harmless = special_counts(engine.chat, text, image)
        for answer in hostile[number % 15 :: 15]:
            for text in one.fill_pairs(QUESTION, [(answer, "blue"), ("red", answer)]):
                assert special_counts(engine.chat, text, image) == harmless


def test_no_question_stops_the_others(engine: LocalEngine, image: Image.Image) -> None:
    # What such texts become is tested above; here, that none of them stops the others.
    texts = ["red?", *list(SHORT.values())[::5]]
    requests = [AnswerRequest(image, text, (0,)) for text in texts]
    draws = engine.answer(requests, Sampling(max_new_tokens=2))
    assert len(draws) == len(requests)
    assert draws[0] == engine.answer(requests[:1], Sampling(max_new_tokens=2))[0]


@pytest.mark.parametrize("readout", READOUTS)
def test_others_are_graded_as_if_they_were_alone(
    engine: LocalEngine, image: Image.Image, readout: Readout
) -> None:
    # Every readout meets a third of them.
    hostile = list(SHORT.values())[READOUTS.index(readout) :: len(READOUTS)]
    middle = len(hostile) // 2
    answers = [HARMLESS[0], *hostile[:middle], HARMLESS[1], *hostile[middle:], HARMLESS[2]]
    (alone,) = engine.judge([request_for(image, HARMLESS)], readout)
    (mixed,) = engine.judge([request_for(image, answers)], readout)
    assert len(mixed) == len(answers)
    for verdict in mixed:
        check_verdict(verdict, FORM)
    same([mixed[0], mixed[middle + 1], mixed[-1]], alone, readout)
    if readout != "text":
        assert all(verdict.axes for verdict in alone)
        assert all(verdict.axes for verdict in mixed)


def test_answers_of_a_hundred_thousand_characters(engine: LocalEngine, image: Image.Image) -> None:
    readout: Readout = "greedy"
    long = [LONG["one letter"], LONG["images"]]
    (alone,) = engine.judge([request_for(image, HARMLESS)], readout)
    (mixed,) = engine.judge([request_for(image, [*HARMLESS, *long])], readout)
    assert [verdict.axes for verdict in mixed[len(HARMLESS) :]] == [None, None]
    for verdict in mixed:
        check_verdict(verdict, FORM)
    same(mixed[: len(HARMLESS)], alone, readout)
    # As questions of their own, in one batch with others.
    engine.memory.batch_hint = 8
    apart = [request_for(image, [answer]) for answer in (LONG["words"], "red", "blue")]
    (refused,), *others = engine.judge(apart, readout)
    check_verdict(refused, FORM)
    assert refused.axes is None
    for verdicts, request in zip(others, apart[1:], strict=True):
        same(verdicts, engine.judge([request], readout)[0], readout)


def test_several_answers_in_one_prompt(engine: LocalEngine, image: Image.Image) -> None:
    rubric = load_rubric("relative_scores")
    form = rubric.form(4)
    hostile = list(SHORT.values())
    groups = [["red", *hostile[at : at + 3]] for at in range(0, len(hostile) - 2, 9)]
    requests = [
        JudgeRequest(image, (rubric.fill_together(QUESTION, group),), form) for group in groups
    ]
    for (verdict,) in engine.judge(requests, "greedy"):
        check_verdict(verdict, form)


def texts_of(rubric: Rubric, answers: list[str]) -> list[str]:
    """What a judge reads of these answers, with a reference if the rubric shows one."""
    reference = "a reference" if rubric.needs_reference else None
    if rubric.kind == "absolute":
        return rubric.fill(QUESTION, answers, reference)
    if rubric.kind == "pairwise":
        return rubric.fill_pairs(QUESTION, [(answers[0], answers[1]), (answers[1], answers[0])])
    return [rubric.fill_together(QUESTION, answers)]


@pytest.mark.parametrize(
    "rubric",
    [
        pytest.param(one, id=f"{name}-{number}")
        for name in shipped_rubrics()
        for number, one in enumerate(load_rubric(name).variants())
        if not name.startswith("classroom")
    ],
)
def test_no_answer_closes_its_fence(rubric: Rubric) -> None:
    def fence_lines(answers: list[str]) -> list[int]:
        """How many lines of each text are this fence."""
        return [text.split("\n").count(fence_of(answers)) for text in texts_of(rubric, answers)]

    harmless = fence_lines(["red", "blue"])
    # Around the question, the reference, and every answer that is shown.
    alone = 6 if rubric.needs_reference else 4
    assert set(harmless) == {alone if rubric.kind == "absolute" else 6}
    for name, answer in {**SHORT, **LONG}.items():
        assert fence_lines([answer, "blue"]) == harmless, name
        assert (fence_of([answer]) == FENCES[0]) == (FENCES[0] not in answer), name
