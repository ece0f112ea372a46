"""Critic data from pools, teachers and files; and that critics learn judgement and reason alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from peeralign.chat import ChatFormat
from peeralign.classroom.demo import draw_key, draw_pool
from peeralign.classroom.peers import shipped_peer
from peeralign.config import build
from peeralign.engines.base import JudgeRequest, Readout
from peeralign.engines.loading import load_processor
from peeralign.errors import PeeralignError
from peeralign.images.load import open_image
from peeralign.judging.verdict import Form, Verdict, parse_verdict
from peeralign.panel import Member
from peeralign.recipes import critic_data
from peeralign.recipes.critic_data import CriticDataConfig, make_critic_data
from peeralign.stages.train import demonstration_tree
from peeralign.store.demonstrations import read_demonstrations
from peeralign.training.layout import TreeCollator

Row = dict[str, Any]
ADA = {"name": "ada", "model": "classroom:ada", "judges": False}
TEACHER = {"name": "teacher", "model": "classroom:cleo", "answers": False}
POINTWISE = (
    'version = 1\naxes = ["score"]\nscale = [1, 5]\nreason = "after"\n'
    'prompt = "{question}|{answer}"\n'
)
PAIRWISE = (
    'version = 1\nkind = "pairwise"\nreason = "first"\nmark = "Verdict:"\n'
    'prompt = "Verdict: {question}|{answer_a}|{answer_b}"\n'
)


class Teacher:
    """Likes long answers, says why, and cannot read what ends in "e"."""

    def __init__(self, asked: list[JudgeRequest]) -> None:
        self.asked = asked

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        self.asked += requests
        return [[self.said(text, r.form) for text in r.texts] for r in requests]

    def said(self, text: str, form: Form) -> Verdict:
        _, *answers = text.split("|")
        if not form.choices:
            reply = form.write([min(5, len(answers[0]))], "that long")
            return parse_verdict("hm" if answers[0].endswith("e") else reply, form)
        one, other = map(len, answers)
        label = "A" if one > other else "B" if other > one else "tie"
        return parse_verdict(form.write([label], f"{label}, by length"), form)

    def close(self) -> None: ...


@pytest.fixture
def place(tmp_path: Path) -> Path:
    draw_pool(3, 18).write_parquet(tmp_path / "pool.parquet")
    draw_key(3, 18).write_parquet(tmp_path / "key.parquet")
    (tmp_path / "point.toml").write_text(POINTWISE)
    (tmp_path / "pair.toml").write_text(PAIRWISE)
    return tmp_path


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[JudgeRequest]:
    """What the teacher was asked; everybody else is a real model."""
    asked: list[JudgeRequest] = []
    real = critic_data.open_engine

    def opened(member: Member, min_label_mass: float = 0.5) -> Any:
        return Teacher(asked) if member.name == "teacher" else real(member, min_label_mass)

    monkeypatch.setattr(critic_data, "open_engine", opened)
    return asked


def config(place: Path, source: Row, **settings: Any) -> CriticDataConfig:
    pool = {} if "file" in source else {"pool": {"path": str(place / "pool.parquet")}}
    return build(
        CriticDataConfig,
        {
            "members": [ADA, TEACHER],
            "sources": [{"name": "first", **pool, **source}],
            "generate": {"num_draws": 4, "temperature": 3.0, "max_new_tokens": 3},
            **settings,
        },
        "test",
    )


def teachers(place: Path) -> Row:
    return {"pointwise": str(place / "point.toml"), "pairwise": str(place / "pair.toml")}


def made(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "samples.parquet")


def test_a_teacher_s_scores_comparisons_and_reasons(
    place: Path, taught: list[JudgeRequest]
) -> None:
    out = place / "out"
    summary = make_critic_data(config(place, teachers(place)), out)
    samples = made(out)
    assert set(samples["kind"]) == {"pointwise", "pairwise"}
    assert samples["with_reason"].all()
    for row in samples.iter_rows(named=True):
        _, *answers = row["prompt"].split("|")
        if row["kind"] == "pointwise":
            assert json.loads(row["response"]) == {
                "score": min(5, len(answers[0])),
                "reason": "that long",
            }
            assert not answers[0].endswith("e")
        else:
            one, other = map(len, answers)
            label = "A" if one > other else "B" if other > one else "tie"
            assert row["response"] == f"{label}, by length\nVerdict: {label}"
    # Both orders were asked, and one of the two is the sample.
    pairs = samples.filter(kind="pairwise")
    assert sum(len(r.texts) for r in taught if r.form.choices) >= 2 * len(pairs)
    assert set(pairs["level"]) >= {"first", "second"}
    assert summary["samples"] == len(samples)
    assert summary == json.loads((out / "summary.json").read_text())
    left_out = summary["sources"]["first"]["left_out"]
    assert left_out["verdicts that could not be read"] > 0
    rows = read_demonstrations(str(out / "critic.parquet"))
    assert len(rows) == len(samples)
    for image in rows["image"].to_list()[:3]:
        open_image(image, 10**6)


def test_exact_answers_teach_without_any_judge(place: Path) -> None:
    source = {
        "teacher": "exact",
        "answers": str(place / "key.parquet"),
        "pointwise": "classroom",
        "pairwise": "classroom_pairwise",
        "scenario": "exact",
    }
    key = dict(draw_key(3, 18).iter_rows())
    given = config(place, source, members=[ADA])
    summary = make_critic_data(given, place / "out")
    samples = made(place / "out").filter(kind="pointwise")
    for row in samples.iter_rows(named=True):
        answer = row["prompt"].removesuffix(" GRADE:").split("ASSISTANT: ")[1]
        assert row["level"] == ("5" if answer == key[row["question_id"]] else "1")
    assert {row["scenario"] for row in summary["by_scenario"]} == {"exact"}
    grouped = make_critic_data(given.model_copy(update={"group_by_image": True}), place / "grouped")
    assert grouped["samples"] == summary["samples"]
    rows = pl.read_parquet(place / "grouped" / "critic.parquet")
    assert len(rows) <= 18
    assert rows["exchanges"].list.len().sum() == summary["samples"]


def test_totals_are_shared_out_over_scenarios(place: Path) -> None:
    (place / "0.png").write_bytes(draw_pool(3, 1)["image"][0]["bytes"])
    rows = [
        {"image": "0.png", "question": f"{n}?", "chosen": "yes", "rejected": "no"}
        for n in range(30)
    ]
    (place / "human.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = {"file": str(place / "human.jsonl"), "name": "few", "pairwise": "pairwise"}
    given = config(place, {**few, "name": "many"}, members=[], pairwise_samples=20)
    settings = given.model_dump(mode="json")
    settings["sources"].append({**few, "name": "other", "scenario": "other"})
    summary = make_critic_data(CriticDataConfig.model_validate(settings), place / "out")
    assert [(row["scenario"], row["samples"]) for row in summary["by_scenario"]] == [
        ("many", 10),
        ("other", 10),
    ]
    assert summary["by_scenario"][0]["levels"] == {"first": 5, "second": 5}
    assert not made(place / "out")["with_reason"].any()


def test_the_same_call_again_asks_nobody_and_killed_it_goes_on(
    place: Path,
    taught: list[JudgeRequest],
    run_killed: Callable[[Callable[[], Any], tuple[str, str | int]], None],
) -> None:
    given = config(place, teachers(place))
    whole, cut = place / "whole", place / "cut"
    make_critic_data(given, whole)
    asked = len(taught)
    make_critic_data(given, whole)
    assert len(taught) == asked
    for moment in (
        ("after", "candidates/ada/done.json"),
        ("before", "comparisons/teacher/part-00000.parquet"),
        ("after", "samples/part-00000.parquet"),
        ("before", "critic.parquet"),
    ):
        run_killed(lambda: make_critic_data(given, cut), moment)
    make_critic_data(given, cut)
    for name in ("critic.parquet", "samples.parquet", "summary.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    other = given.model_copy(update={"seed": 1})
    with pytest.raises(PeeralignError, match="was made with other settings"):
        make_critic_data(other, cut)


def test_references_are_shown_to_the_teacher(place: Path, taught: list[JudgeRequest]) -> None:
    (place / "point.toml").write_text(
        POINTWISE.replace("{question}|{answer}", "{question} {reference}|{answer}")
    )
    source = {"pointwise": str(place / "point.toml"), "answers": str(place / "key.parquet")}
    make_critic_data(config(place, source), place / "out")
    answers = set(draw_key(3, 18)["answer"])
    shown = {text.split("|")[0].split()[-1] for request in taught for text in request.texts}
    assert shown
    assert shown <= answers


def test_only_judgement_and_reason_are_learnt(place: Path, taught: list[JudgeRequest]) -> None:
    """The loss lies on the response's tokens, behind exactly what a judge is shown."""
    out = place / "out"
    make_critic_data(config(place, teachers(place)), out)
    chat = ChatFormat(load_processor(str(shipped_peer("ada"))))
    rows = read_demonstrations(str(out / "critic.parquet"))
    trees = [demonstration_tree(chat, row) for row in rows.iter_rows(named=True)]
    collate = TreeCollator(chat, lambda cell: open_image(cell, 10**6), 4096, share_prefix=False)
    seen = 0
    for row, tree in zip(rows.iter_rows(named=True), trees, strict=True):
        (batch,) = collate([tree]).passes
        ((exchange,),) = [row["exchanges"]]
        learnt = batch.token_id_S.tolist()
        assert learnt == chat.response_ids(exchange["response"])
        image = open_image(row["image"], 10**6)
        asked = chat.encode([chat.prompt(exchange["prompt"])], [image])["input_ids"][0].tolist()
        (whole,) = batch.model_inputs["input_ids"].tolist()
        assert whole[: len(asked)] == asked
        # The first learnt token is predicted from the prompt's last.
        assert int(batch.source_column_S[0]) == len(asked) - 1
        assert len(batch.source_column_S) == len(learnt)
        seen += 1
    assert seen == len(rows) > 0


FILE = {"file": "x.jsonl"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, "name a rubric"),
        ({**FILE, "pool": {"path": "x"}}, "either a pool or a file"),
        ({**FILE, "pointwise": "visual_chat"}, "a file holds judgements"),
        ({"teacher": "exact", "pairwise": "pairwise"}, "needs a file of answers"),
        ({"pairwise": "visual_chat"}, "is absolute, and needed here is one that is pairwise"),
        ({"pointwise": "pairwise"}, "is pairwise, and needed here is one that is absolute"),
        ({"pointwise": "hallucination"}, "shows a reference answer; give answers"),
        (
            {"pointwise": "visual_chat", "teacher": "exact", "answers": "k"},
            "gives no reasons, and rubric 'visual_chat' asks for one",
        ),
        ({"pairwise": "pairwise", "name": "a b"}, "name"),
    ],
)
def test_settings_that_do_not_go_together(place: Path, source: Row, said: str) -> None:
    with pytest.raises(PeeralignError, match=said):
        make_critic_data(config(place, source), place / "out")
    assert not (place / "out").exists()


def test_a_teacher_behind_a_server_need_not_say_that_it_does_not_learn(place: Path) -> None:
    server = {"server": {"base_url": "http://127.0.0.1:9/v1"}}
    given = config(place, {"pairwise": "pairwise"}, members=[ADA, {**TEACHER, **server}])
    # It is only that nobody answers there.
    with pytest.raises(PeeralignError, match=r"127\.0\.0\.1:9") as caught:
        make_critic_data(given, place / "out")
    assert "learn" not in str(caught.value)


def test_sources_and_members_that_cannot_be_used(place: Path) -> None:
    given = config(place, {"pairwise": "pairwise"})
    twice = given.model_copy(update={"sources": given.sources * 2})
    with pytest.raises(PeeralignError, match="two sources are named 'first'"):
        make_critic_data(twice, place / "out")
    for members, said in (([ADA], "no member judges"), ([TEACHER], "no member answers")):
        alone = given.model_copy(update={"members": tuple(Member(**m) for m in members)})
        with pytest.raises(PeeralignError, match=said):
            make_critic_data(alone, place / "out")
    empty = {**teachers(place), "teacher": "exact", "answers": str(place / "key.parquet")}
    (place / "key.jsonl").write_text('{"id": "other", "answer": "x"}\n')
    nothing = {**empty, "pointwise": "classroom", "answers": str(place / "key.jsonl")}
    nothing.pop("pairwise")
    with pytest.raises(PeeralignError, match="no sample could be made"):
        make_critic_data(config(place, nothing, members=[ADA]), place / "none")
