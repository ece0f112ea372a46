"""Relative scoring as a stage: one call shows several answers, and every answer gets a verdict."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal

from peeralign.classroom.peers import shipped_peer
from peeralign.engines.base import AnswerRequest, Draw, Engine, JudgeRequest, Readout, Sampling
from peeralign.engines.local import LocalEngine
from peeralign.errors import PeeralignError
from peeralign.judging.rubric import LABELS
from peeralign.judging.verdict import Verdict, parse_verdict
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.records import CANDIDATE_SCHEMA, JUDGMENT_SCHEMA, QUESTION_SCHEMA
from peeralign.stages.aggregate import AggregateConfig, aggregate
from peeralign.stages.generate import answer_id, distinct_answers
from peeralign.stages.judge import JudgeConfig, judge, read_rubric
from peeralign.store.run import Stage

NAMES = ("ada", "ben")
PANEL = Panel(tuple(Member(name=name, model="none") for name in NAMES))
SHOWN = re.compile(r"Answer ([A-Z])\n(=== [0-9a-f]{6})\n(.*?)\n\2", re.DOTALL)


def shown_in(text: str) -> list[str]:
    """The answers of a filled rubric, in the order of their labels."""
    found = SHOWN.findall(text)
    assert [label for label, _, _ in found] == list(LABELS[: len(found)])
    return [answer for _, _, answer in found]


class Worth:
    """Knows what each answer is worth: the number in it. Fails or refuses where it is told to."""

    def __init__(self, refuses: Callable[[list[str]], bool] = lambda shown: False) -> None:
        self.refuses = refuses
        self.calls: list[list[str]] = []
        self.readouts: set[str] = set()

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        raise AssertionError("nobody is to answer here")

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        self.readouts.add(readout)
        return [[self.verdict(request)] for request in requests]

    def verdict(self, request: JudgeRequest) -> Verdict:
        (text,) = request.texts
        shown = shown_in(text)
        assert request.form.axes == tuple(LABELS[: len(shown)])
        if "broken" in shown:
            raise IndexError("token out of range")
        self.calls.append(shown)
        if self.refuses(shown):
            return Verdict(None, "no JSON object in the reply", "I cannot say")
        numbers = [int(answer.split()[-1]) for answer in shown]
        if request.form.distinct:
            numbers = [sum(other >= number for other in numbers) for number in numbers]
        return parse_verdict(request.form.write(numbers), request.form)

    def close(self) -> None: ...


def questions(number: int) -> pl.DataFrame:
    data = io.BytesIO()
    Image.new("RGB", (48, 48), "red").save(data, "PNG")
    image = {"bytes": data.getvalue(), "path": None}
    rows = [(f"q{place}", f"what {place}?", "General", image) for place in range(number)]
    return pl.DataFrame(rows, schema=QUESTION_SCHEMA, orient="row")


def candidates(*drawn: tuple[str, str]) -> pl.DataFrame:
    """Candidates of ada, given as (question, text)."""
    rows = [
        (f"c{place:03d}", q, answer_id(q, text), "ada", place, "clean", text, 1, None)
        for place, (q, text) in enumerate(drawn)
    ]
    return pl.DataFrame(rows, schema=CANDIDATE_SCHEMA, orient="row")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., pl.DataFrame]:
    def call(
        drawn: pl.DataFrame,
        engine: Engine | dict[str, Engine],
        folder: str = "run",
        seed: int = 0,
        **settings: Any,
    ) -> pl.DataFrame:
        config = JudgeConfig(**{"rubric": "relative_scores", **settings})
        asked = questions(drawn["question_id"].n_unique())
        stages = {member.name: Stage(tmp_path / folder / member.name) for member in PANEL.members}

        def opener(member: Member) -> Engine:
            return engine[member.name] if isinstance(engine, dict) else engine

        given = distinct_answers(drawn)
        judge(stages.__getitem__, asked, given, PANEL, config, opener, seed, Reporter())
        rows = pl.concat([stage.read(JUDGMENT_SCHEMA) for stage in stages.values()])
        return rows.join(given.select("answer_id", "text"), on="answer_id", maintain_order="left")

    return call


FEW = candidates(*(("q0", f"answer {n}") for n in (1, 2, 5)), ("q1", "alone 4"))


def test_all_answers_of_a_question_are_graded_in_one_call(
    run: Callable[..., pl.DataFrame],
) -> None:
    engine = Worth()
    rows = run(FEW, engine)
    assert rows.drop("text").schema == JUDGMENT_SCHEMA
    assert sorted(map(len, engine.calls)) == [1, 1, 3, 3]
    assert engine.readouts == {"text"}
    assert len(rows) == 8
    assert rows["id"].n_unique() == 8
    for row in rows.iter_rows(named=True):
        number = int(row["text"].split()[-1])
        assert row["axes"] == [number]
        assert row["score"] == number / 5
        assert (row["reason"], row["label_mass"]) == (None, None)
        assert row["raw"].startswith('{"A": ')


def test_a_ranking_becomes_the_share_of_others_beaten(run: Callable[..., pl.DataFrame]) -> None:
    engine = Worth()
    rows = run(FEW, engine, rubric="relative_ranking").filter(pl.col("judge") == "ada")
    found = {row["text"]: (row["axes"], row["score"]) for row in rows.iter_rows(named=True)}
    assert found == {
        "answer 5": ([1.0], 1.0),
        "answer 2": ([2.0], 0.5),
        "answer 1": ([3.0], 0.0),
        "alone 4": ([1.0], 1.0),
    }


MANY = candidates(*((f"q{q}", f"answer {n}") for q in range(4) for n in range(1, 9)))


def test_the_order_is_drawn_for_every_question_judge_and_seed(
    run: Callable[..., pl.DataFrame],
) -> None:
    engines: dict[str, Engine] = {name: Worth() for name in NAMES}
    first = run(MANY, engines, folder="first", rubric="relative_ranking")
    orders = [tuple(call) for engine in engines.values() for call in engine.calls]
    assert len(set(orders)) == 8
    assert len({tuple(sorted(order)) for order in orders}) == 1
    # Neither blocks nor another process change it; another seed does.
    again = Worth()
    rows = run(MANY, again, folder="blocks", rubric="relative_ranking", block_size=1)
    assert_frame_equal(rows, first)
    assert sorted(map(tuple, again.calls)) == sorted(orders)
    other = Worth()
    run(MANY, other, folder="other", rubric="relative_ranking", seed=1)
    assert not {tuple(call) for call in other.calls} & set(orders)


LONG = candidates(*(("q0", f"draw{n} {n % 5 + 1}") for n in range(20)), ("q1", "alone 4"))


def test_a_long_list_is_split_and_every_answer_is_scored(
    run: Callable[..., pl.DataFrame],
) -> None:
    engine = Worth()
    rows = run(LONG, engine, answers_per_call=8, shared_answers=2)
    calls = [call for call in engine.calls if len(call) > 1]
    assert len(calls) == 6
    assert {len(call) for call in calls} == {8}
    assert len(set().union(*calls)) == 20
    assert len(rows) == 42
    assert rows["score"].to_list() == [int(text.split()[-1]) / 5 for text in rows["text"]]
    # What was shown twice keeps both replies.
    replies = rows.filter(pl.col("judge") == "ada")["raw"].str.split("\n").list.len()
    assert sorted(replies)[:17] == [1] * 17
    assert replies.sum() == 24 + 1


def test_a_long_ranking_keeps_the_order(run: Callable[..., pl.DataFrame]) -> None:
    drawn = candidates(*(("q0", f"answer {n}") for n in range(1, 13)))
    rows = run(drawn, Worth(), rubric="relative_ranking", answers_per_call=8, shared_answers=6)
    for name in NAMES:
        mine = rows.filter(pl.col("judge") == name)
        found = {int(text.split()[-1]): s for text, s in mine["text", "score"].iter_rows()}
        # Places of a group say little of distances, so the truth is met only nearly.
        assert all(abs(found[n] - (n - 1) / 11) <= 2 / 11 for n in found)
        assert sum(found.values()) == pytest.approx(6.0)


THREE = {"answers_per_call": 3, "shared_answers": 2}


def test_an_unscored_group_leaves_its_answers_to_the_other(
    run: Callable[..., pl.DataFrame],
) -> None:
    # Two calls show three of four answers each, so the first and the last in order stand alone.
    drawn = candidates(*(("q0", f"answer {n}") for n in range(1, 5)))
    lost = 0
    for seed in range(10):
        engine = Worth(refuses=lambda shown: "answer 2" not in shown)
        rows = run(drawn, {"ada": engine, "ben": Worth()}, folder=str(seed), seed=seed, **THREE)
        assert len(engine.calls) == 2
        read = {answer for call in engine.calls if "answer 2" in call for answer in call}
        lost += 4 - len(read)
        for row in rows.iter_rows(named=True):
            if row["text"] in read or row["judge"] == "ben":
                assert (row["score"], row["reason"]) == (int(row["text"][-1]) / 5, None)
            else:
                assert (row["score"], row["axes"]) == (None, None)
                assert row["reason"] == "no JSON object in the reply"
                assert row["raw"] == "I cannot say"
    assert 0 < lost < 10


def test_a_call_that_fails_costs_its_own_group_only(run: Callable[..., pl.DataFrame]) -> None:
    drawn = candidates(("q0", "one 1"), ("q0", "broken"), ("q1", "one 3"), ("q1", "two 2"))
    rows = run(drawn, Worth())
    lost = rows.filter(pl.col("question_id") == "q0")
    assert lost["score"].null_count() == len(lost) == 4
    assert set(lost["reason"]) == {"IndexError: token out of range"}
    kept = rows.filter(pl.col("question_id") == "q1")
    assert kept["score"].to_list() == [int(text[-1]) / 5 for text in kept["text"]]


def test_answers_are_hidden_from_judges_as_in_absolute_scoring(
    run: Callable[..., pl.DataFrame],
) -> None:
    """Nobody but ada wrote these, so only ben may grade them, and "self" leaves them to ada."""
    for judges, names in (("others", {"ben"}), ("self", {"ada"}), ("all", {"ada", "ben"})):
        rows = run(FEW, Worth(), folder=judges, judges=judges)
        assert set(rows["judge"]) == names
        assert len(rows) == 4 * len(names)


def test_relative_scores_are_merged_like_any(run: Callable[..., pl.DataFrame]) -> None:
    rows = run(FEW, Worth())
    rewards = aggregate(FEW, rows.drop("text"), AggregateConfig())
    found = dict(rewards.select("text", "reward").iter_rows())
    assert found == {"answer 1": 0.2, "answer 2": 0.4, "answer 5": 1.0, "alone 4": 0.8}
    assert set(rewards["num_judges"]) == {2}


def test_random_scores_of_a_relative_rubric_need_no_model(
    run: Callable[..., pl.DataFrame],
) -> None:
    drawn = candidates(*((f"q{q}", f"answer {n}") for q in range(10) for n in range(20)))
    engine = Worth()
    rows = run(drawn, engine, readout="random")
    assert not engine.readouts
    assert len(rows) == 400
    counts = dict(rows.group_by("score").len().iter_rows())
    # 400 uniform draws: 80 of each, standard deviation 8.
    assert set(counts) == {0.2, 0.4, 0.6, 0.8, 1.0}
    assert all(50 < count < 110 for count in counts.values())


@pytest.mark.parametrize("readout", ["greedy", "expected", "random"])
def test_a_ranking_needs_what_the_judge_writes(readout: str) -> None:
    config = JudgeConfig(rubric="relative_ranking", readout=readout)  # type: ignore[arg-type]
    with pytest.raises(PeeralignError) as caught:
        read_rubric(config)
    assert str(caught.value) == (
        "rubric 'relative_ranking' asks for a ranking, whose places cannot be read one by one; "
        'set judge.readout = "text"'
    )
    assert read_rubric(JudgeConfig(rubric="relative_ranking")).kind == "ranking"


@pytest.mark.parametrize("rubric", ["relative_scores", "relative_ranking"])
def test_calls_must_share_fewer_answers_than_they_show(rubric: str) -> None:
    for per_call, shared in ((2, 2), (8, 9)):
        config = JudgeConfig(rubric=rubric, answers_per_call=per_call, shared_answers=shared)
        with pytest.raises(PeeralignError) as caught:
            read_rubric(config)
        assert str(caught.value) == (
            f"judge.shared_answers is {shared} and judge.answers_per_call is {per_call}; "
            "calls must share fewer answers than they show"
        )
    assert read_rubric(JudgeConfig(rubric=rubric, answers_per_call=2, shared_answers=1))
    # One answer a call shares nothing, whatever the settings say.
    assert read_rubric(JudgeConfig(answers_per_call=2, shared_answers=9)).kind == "absolute"


def test_a_rubric_that_does_not_fit_stops_before_any_engine(
    run: Callable[..., pl.DataFrame],
) -> None:
    with pytest.raises(PeeralignError, match="shared_answers"):
        run(FEW, {}, answers_per_call=2, shared_answers=2)


def test_a_tiny_peer_grades_answers_together(run: Callable[..., pl.DataFrame]) -> None:
    """A real engine, whose scores mean nothing here: it never saw this rubric."""
    drawn = candidates(
        *(("q0", text) for text in ("red", "blue", "a red circle", "two", "left", "<image>")),
        ("q1", "green"),
    )

    def engines() -> dict[str, Engine]:
        return {n: LocalEngine(str(shipped_peer(n)), "cpu", min_label_mass=0) for n in NAMES}

    settings: dict[str, Any] = {"readout": "expected", "answers_per_call": 4, "min_label_mass": 0}
    rows = run(drawn, engines(), **settings)
    assert len(rows) == 14
    assert rows["reason"].null_count() == 14
    for row in rows.iter_rows(named=True):
        (value,) = row["axes"]
        assert 0.2 <= row["score"] <= 1
        assert row["score"] == min(max(value, 1), 5) / 5
        assert 0 < row["label_mass"] < 1
    # The expectation is no whole number, and the same in another block size.
    assert any(axes[0] != round(axes[0]) for axes in rows["axes"])
    again = run(drawn, engines(), folder="again", block_size=1, **settings)
    assert_frame_equal(again, rows, abs_tol=1e-3)
