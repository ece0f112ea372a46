"""How a member's replies are asked for: settings of tasks, seeds, images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lmms_eval.models import get_model

from peeralign.classroom.demo import draw_pool
from peeralign.engines.base import AnswerRequest, Draw, Sampling
from peeralign.engines.local import LocalEngine
from peeralign.engines.opening import open_engine
from peeralign.errors import PeeralignError
from peeralign.evals.bridge import model as bridge_model
from peeralign.evals.bridge.model import MemberModel
from peeralign.images.load import open_image
from peeralign.panel import Member

NUM_DOCS = 12


@pytest.fixture(scope="module")
def docs() -> list[dict[str, Any]]:
    return draw_pool(3, NUM_DOCS).select("image", "question").to_dicts()


@pytest.fixture
def model(docs: list[dict[str, Any]]) -> MemberModel:
    engine = open_engine(Member(name="ada", model="classroom:ada"))
    made = MemberModel(engine, max_new_tokens=12)
    made.task_dict = {"task": {"test": docs}}
    return made


def asked(docs: list[dict[str, Any]], repeats: int = 1, **given: Any) -> list[Any]:
    """What lmms-eval asks of a model: one request a document, each `repeats` times."""

    def visuals(doc: Any) -> Any:
        return [doc["image"]]

    return [
        SimpleNamespace(args=(doc["question"], given, visuals, number, "task", "test"))
        for number, doc in enumerate(docs)
        for _ in range(repeats)
    ]


def test_lmms_eval_knows_the_model() -> None:
    assert get_model("peeralign") is MemberModel
    made = MemberModel.create_from_arg_string("member=classroom:ada", {"batch_size": 1})
    assert isinstance(made, MemberModel)
    with pytest.raises(PeeralignError, match="give member=MODEL"):
        MemberModel.create_from_arg_string("pretrained=x")


def test_replies_are_greedy_unless_a_temperature_is_asked_for(
    model: MemberModel, docs: list[dict[str, Any]]
) -> None:
    greedy = model.generate_until(asked(docs))
    assert any(greedy)
    assert model.generate_until(asked(docs, do_sample=False, temperature=1.5)) == greedy
    assert model.generate_until(asked(docs, temperature=0, until=["\n\n"])) == greedy
    hot = model.generate_until(asked(docs, temperature=1.5))
    assert hot != greedy
    assert model.generate_until(asked(docs, temperature=1.5, do_sample=True)) == hot
    model.seed = 1
    assert model.generate_until(asked(docs, temperature=1.5)) != hot
    assert not model.ignored


def test_repeated_requests_are_drawn_anew(model: MemberModel, docs: list[dict[str, Any]]) -> None:
    replies = model.generate_until(asked(docs, repeats=3, temperature=2.0))
    assert any(len(set(replies[n * 3 : n * 3 + 3])) > 1 for n in range(NUM_DOCS))
    # The first is the one that rows are made of.
    assert [model.replies["task", n] or "" for n in range(NUM_DOCS)] == replies[::3]


def test_lengths_ends_and_what_is_ignored(model: MemberModel, docs: list[dict[str, Any]]) -> None:
    greedy = model.generate_until(asked(docs))
    mark = next(reply for reply in greedy if len(reply) > 2)[1]
    cut = model.generate_until(asked(docs, until=[mark], num_beams=1))
    assert cut == [reply.split(mark)[0] for reply in greedy]
    assert cut != greedy
    assert model.generate_until(asked(docs, until=mark)) == cut
    question = {"image": docs[0]["image"], "question": "describe the picture."}
    model.task_dict = {"task": {"test": [question]}}
    long = model.generate_until(asked([question], max_new_tokens=12))[0]
    short = model.generate_until(asked([question], max_new_tokens=1))[0]
    assert long.startswith(short)
    assert len(short) < len(long)
    model.generate_until(asked([question], num_beams=4))
    assert model.ignored == {"num_beams": 4}


def test_images_that_a_task_opens_itself_are_limited_too(
    model: MemberModel, docs: list[dict[str, Any]]
) -> None:
    opened = [{**doc, "image": open_image(doc["image"]).convert("RGBA")} for doc in docs]
    greedy = model.generate_until(asked(docs))
    model.task_dict = {"task": {"test": opened}}
    assert model.generate_until(asked(opened)) == greedy
    model.max_image_pixels = 100
    assert not any(model.generate_until(asked(opened)))
    model.reasons.clear()
    model.replies.clear()
    model.task_dict = {"task": {"test": [{"question": "what?"}]}}
    assert model.generate_until(asked([{"question": "what?"}])) == [""]
    assert model.reasons == {("task", 0): "the task finds no image (KeyError: 'image')"}


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until_multi_round"])
def test_what_members_do_not_do(kind: str, model: MemberModel, docs: list[dict[str, Any]]) -> None:
    with pytest.raises(PeeralignError, match=f"the task task asks for '{kind}'"):
        getattr(model, kind)(asked(docs))


def test_why_there_is_no_reply_is_said(model: MemberModel, docs: list[dict[str, Any]]) -> None:
    assert model.generate_until(asked(docs[:1], max_new_tokens=10**6)) == [""]
    assert model.reasons["task", 0].endswith("tokens, more than the model's 1024")


class Stopped(Exception):
    """The process ends here."""


def test_replies_that_are_there_are_not_drawn_again(
    model: MemberModel,
    docs: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridge_model, "BLOCK", 4)
    requests = asked(docs, temperature=1.5)
    whole = model.generate_until(requests)
    drawn: list[int] = []
    answer = LocalEngine.answer

    def counted(
        engine: LocalEngine, some: list[AnswerRequest], sampling: Sampling
    ) -> list[list[Draw]]:
        if len(drawn) == 2:
            raise Stopped
        drawn.append(len(some))
        return answer(engine, some, sampling)

    monkeypatch.setattr(LocalEngine, "answer", counted)
    model.kept = tmp_path
    model.replies.clear()
    with pytest.raises(Stopped):
        model.generate_until(requests)
    drawn[:] = [0]
    model.replies.clear()
    assert model.generate_until(requests) == whole
    # Eight of the twelve were there.
    assert drawn == [0, 4]
    assert [model.replies["task", n] or "" for n in range(NUM_DOCS)] == whole
    drawn.clear()
    with pytest.raises(Stopped):
        model.generate_until(asked(docs, temperature=1.4))


def test_a_question_that_the_engine_cannot_take_is_lost_alone(
    model: MemberModel, docs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.generate_until(asked(docs))
    answer = LocalEngine.answer

    def picky(
        engine: LocalEngine, some: list[AnswerRequest], sampling: Sampling
    ) -> list[list[Draw]]:
        if any(request.text == docs[5]["question"] for request in some):
            raise ValueError("not this one")
        return answer(engine, some, sampling)

    monkeypatch.setattr(LocalEngine, "answer", picky)
    model.replies.clear()
    model.reasons.clear()
    found = model.generate_until(asked(docs))
    lost = [n for n in range(NUM_DOCS) if docs[n]["question"] == docs[5]["question"]]
    assert found == ["" if n in lost else reply for n, reply in enumerate(whole)]
    assert {model.reasons["task", n] for n in lost} == {"ValueError: not this one"}
