"""Compare: what is shown in which order, what is kept of a verdict, and how orders are merged."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from stages.test_judge import questions

from peeralign.engines.base import AnswerRequest, Draw, Engine, JudgeRequest, Readout, Sampling
from peeralign.errors import PeeralignError
from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import Verdict, parse_verdict
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.records import COMPARISON_SCHEMA
from peeralign.stages.compare import compare, merge_judges, merge_orders, order_gap
from peeralign.stages.judge import JudgeConfig
from peeralign.store.run import Stage

BARE = (
    'version = 1\nkind = "pairwise"\nreason = "after"\n'
    'prompt = "{question}|{answer_a}|{answer_b}"\n'
)


class Critic:
    """Prefers the longer answer; as `habit` says, what stands first; knows no models."""

    def __init__(self, habit: str = "") -> None:
        self.habit = habit
        self.requests: list[JudgeRequest] = []

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        raise AssertionError("nobody is to answer here")

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        self.requests += requests
        return [[self.verdict(text, r, readout) for text in r.texts] for r in requests]

    def verdict(self, text: str, request: JudgeRequest, readout: Readout) -> Verdict:
        _, a, b = text.split("|")
        if "broken" in (a, b):
            raise IndexError("token out of range")
        label = "A" if self.habit == "first" or len(a) > len(b) else "B"
        if self.habit != "first" and len(a) == len(b):
            label = "tie"
        if "mute" in (a, b) and a != "mute":
            return parse_verdict("hm", request.form)
        if readout == "expected":
            shares = {"A": [0.7, 0.2, 0.1], "B": [0.2, 0.7, 0.1], "tie": [0.2, 0.2, 0.6]}[label]
            value = shares[0] + shares[2] / 2
            return Verdict([value], None, request.form.write([label]), 0.9, shares)
        return parse_verdict(f'{{"better": "{label}", "reason": "by length"}}', request.form)

    def close(self) -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., pl.DataFrame]:
    rubric = tmp_path / "bare.toml"
    rubric.write_text(BARE)

    def call(
        pairs: pl.DataFrame,
        engines: dict[str, Engine],
        folder: str = "run",
        seed: int = 0,
        num_questions: int = 3,
        **settings: Any,
    ) -> pl.DataFrame:
        panel = Panel(tuple(Member(name=name, model="none") for name in engines))
        stages = {name: Stage(tmp_path / folder / name) for name in engines}
        config = JudgeConfig(**{"rubric": str(rubric), **settings})
        compare(
            stages.__getitem__,
            questions(num_questions),
            pairs,
            panel,
            config,
            lambda member: engines[member.name],
            seed,
            Reporter(),
        )
        return pl.concat([stage.read(COMPARISON_SCHEMA) for stage in stages.values()])

    return call


def pairs(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """Pairs from (question, first text, second text); a text is its own id."""
    names = ["question_id", "first_id", "first", "second_id", "second"]
    full = [(q, f"{q}-{a}", a, f"{q}-{b}", b) for q, a, b in rows]
    return pl.DataFrame(full, schema=dict.fromkeys(names, pl.String), orient="row")


def test_both_orders_are_shown_and_told_of_the_answers_themselves(
    run: Callable[..., pl.DataFrame],
) -> None:
    critic = Critic()
    rows = run(pairs(("q0", "long", "no"), ("q1", "no", "yes"), ("q1", "on", "no")), {"c": critic})
    assert rows.schema == COMPARISON_SCHEMA
    assert [request.texts for request in critic.requests] == [
        ("what 0?|long|no", "what 0?|no|long"),
        # All pairs of a question are one request, whose beginning is computed once.
        ("what 1?|no|yes", "what 1?|yes|no", "what 1?|on|no", "what 1?|no|on"),
    ]
    assert rows["order"].to_list() == [0, 1] * 3
    verdicts = ["first", "first", "second", "second", "tie", "tie"]
    assert rows["verdict"].to_list() == verdicts
    assert rows["preference"].to_list() == [1.0, 1.0, 0.0, 0.0, 0.5, 0.5]
    assert set(rows["explanation"]) == {"by length"}
    assert rows["id"].n_unique() == 6
    assert rows["pair_id"].n_unique() == 3
    assert rows["reason"].null_count() == rows["shares"].null_count() == 6


def test_one_order_is_the_given_one(run: Callable[..., pl.DataFrame]) -> None:
    critic = Critic("first")
    rows = run(pairs(("q0", "long", "no"), ("q1", "no", "yes")), {"c": critic}, orders="one")
    assert [r.texts for r in critic.requests] == [("what 0?|long|no",), ("what 1?|no|yes",)]
    assert rows["verdict"].to_list() == ["first", "first"]
    assert merge_orders(rows)["order_changed"].to_list() == [None, None]
    assert merge_orders(rows)["verdict"].to_list() == ["first", "first"]
    assert order_gap(rows).rows() == [("c", 0, None, None)]


def test_a_judge_that_likes_what_stands_first_is_found_out(
    run: Callable[..., pl.DataFrame],
) -> None:
    given = pairs(("q0", "long", "no"), ("q1", "no", "yes"))
    rows = run(given, {"biased": Critic("first"), "fair": Critic()})
    biased = rows.filter(pl.col("judge") == "biased")
    assert biased["verdict"].to_list() == ["first", "second"] * 2
    merged = merge_orders(rows).sort("judge", "question_id")
    assert merged["preference"].to_list() == [0.5, 0.5, 1.0, 0.0]
    assert merged["verdict"].to_list() == ["tie", "tie", "first", "second"]
    assert merged["order_changed"].to_list() == [True, True, False, False]
    assert order_gap(rows).rows() == [("biased", 2, 1.0, 1.0), ("fair", 2, 0.0, 0.5)]
    panel = merge_judges(merged).sort("question_id")
    assert panel["preference"].to_list() == [0.75, 0.25]
    assert panel["verdict"].to_list() == ["first", "second"]
    assert panel["num_judges"].to_list() == [2, 2]


def test_an_order_without_a_verdict_leaves_the_pair_without_one(
    run: Callable[..., pl.DataFrame],
) -> None:
    rows = run(pairs(("q0", "mute", "no"), ("q1", "yes", "no")), {"c": Critic()})
    assert rows["verdict"].to_list() == ["first", None, "first", "first"]
    unread = rows.row(1, named=True)
    assert unread["preference"] is None
    assert (unread["reason"], unread["raw"]) == ("no JSON object in the reply", "hm")
    merged = merge_orders(rows)
    assert merged["preference"].to_list() == [None, 1.0]
    assert merged["verdict"].to_list() == [None, "first"]
    assert merged["reason"].to_list() == ["no JSON object in the reply", None]
    # It is not among the pairs whose orders can be compared.
    assert order_gap(rows)["num_pairs"].to_list() == [1]
    panel = merge_judges(merged)
    assert panel["num_judges"].to_list() == [0, 1]
    assert panel["verdict"].to_list() == [None, "first"]


def test_probabilities_are_turned_with_the_order(run: Callable[..., pl.DataFrame]) -> None:
    rows = run(pairs(("q0", "long", "no")), {"c": Critic()}, readout="expected")
    assert rows["preference"].to_list() == pytest.approx([0.75, 0.75])
    assert rows["shares"].to_list() == [[0.7, 0.2, 0.1]] * 2
    assert rows["label_mass"].to_list() == [0.9, 0.9]
    assert rows["verdict"].to_list() == ["first", "first"]


def test_a_pair_that_breaks_costs_its_own_rows_only(run: Callable[..., pl.DataFrame]) -> None:
    given = pairs(("q0", "broken", "no"), ("q0", "yes", "no"), ("q1", "yes", "no"))
    rows = run(given, {"c": Critic()})
    assert rows["verdict"].to_list() == [None, None, *["first"] * 4]
    assert set(rows["reason"].drop_nulls()) == {"IndexError: token out of range"}


def test_the_size_of_the_blocks_changes_no_row(run: Callable[..., pl.DataFrame]) -> None:
    given = pairs(*((f"q{n}", "yes", text) for n in range(5) for text in ("no", "on", "long")))
    expected = run(given, {"c": Critic()}, "whole", num_questions=5)
    assert len(expected) == 30
    for size in (1, 2):
        rows = run(given, {"c": Critic()}, f"by-{size}", num_questions=5, block_size=size)
        assert_frame_equal(rows, expected)


class Reader(Critic):
    """Answers any wording with its first label, in its own form."""

    def verdict(self, text: str, request: JudgeRequest, readout: Readout) -> Verdict:
        return parse_verdict(request.form.write([request.form.labels[0]]), request.form)


def test_wordings_belong_to_the_item_and_the_seed(run: Callable[..., pl.DataFrame]) -> None:
    given = pairs(*((f"q{n}", "yes", text) for n in range(20) for text in ("no", "on", "long")))

    def drawn(folder: str, **settings: Any) -> pl.DataFrame:
        critic = Reader()
        table = run(given, {"c": critic}, folder, rubric="pairwise", num_questions=20, **settings)
        variants = load_rubric("pairwise").variants()
        for request in critic.requests:
            assert any(request.form == one.form() for one in variants)
        assert table["verdict"].null_count() == 0
        return table

    one = drawn("one", seed=1)
    # Both orders are asked alike.
    assert one.group_by("pair_id").agg(pl.col("wording").n_unique())["wording"].max() == 1
    assert 15 < one["wording"].n_unique() <= 30
    assert_frame_equal(drawn("again", seed=1, block_size=3), one)
    other = drawn("other", seed=2)
    assert other["wording"].to_list() != one["wording"].to_list()
    # Nor do they depend on which answer came first.
    turned = given.select(
        "question_id", first_id="second_id", first="second", second_id="first_id", second="first"
    )
    critic = Reader()
    back = run(turned, {"c": critic}, "back", rubric="pairwise", num_questions=20, seed=1)
    assert back["wording"].sort().to_list() == one["wording"].sort().to_list()


def test_random_verdicts_ask_nobody(run: Callable[..., pl.DataFrame]) -> None:
    given = pairs(*((f"q{n}", "yes", text) for n in range(20) for text in ("no", "on", "long")))
    critic = Critic()
    rows = run(given, {"c": critic}, num_questions=20, readout="random")
    assert critic.requests == []
    counts = dict(rows["verdict"].value_counts().iter_rows())
    assert set(counts) == {"first", "second", "tie"}
    assert min(counts.values()) > 20


def test_a_reference_is_shown_where_there_is_one(
    run: Callable[..., pl.DataFrame], tmp_path: Path
) -> None:
    rubric = tmp_path / "by-reference.toml"
    rubric.write_text(BARE.replace("{question}", "{question} {reference}"))
    with pytest.raises(PeeralignError, match="shows the judge a reference answer"):
        run(pairs(("q0", "yes", "no")), {"c": Critic()}, rubric=str(rubric))


@pytest.mark.parametrize("name", ["five_axis", "relative_scores", "relative_ranking"])
def test_other_rubrics_are_refused(run: Callable[..., pl.DataFrame], name: str) -> None:
    kind = load_rubric(name).kind
    with pytest.raises(PeeralignError, match=re.escape(f"'{name}' is {kind}, and needed here")):
        run(pairs(("q0", "yes", "no")), {"c": Critic()}, rubric=name)
