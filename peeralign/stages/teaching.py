"""Teaching: what teachers, exact answers and people said of answers, as a critic's samples."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from peeralign.judging.rubric import Rubric
from peeralign.judging.verdict import explanation_of
from peeralign.records import make_id, normalise_answer, seed_of
from peeralign.stages.compare import merge_judges, merge_orders
from peeralign.stages.critic_samples import (
    Asked,
    NotWritable,
    Row,
    drawn,
    pairwise_sample,
    pointwise_sample,
    reasonless,
)

Lost = Counter[str]
# Two answers, each with whether it is right.
_Pair = tuple[tuple[str, bool], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of one source, and the exact answers (`key`: id, answer) if there are any."""

    source: str
    scenario: str
    table: pl.DataFrame
    key: pl.DataFrame | None
    seed: int

    def about(self) -> dict[str, Asked]:
        """What is asked, by question id."""
        key = {} if self.key is None else dict(self.key.select("id", "answer").iter_rows())
        return {
            name: Asked(self.source, self.scenario, name, text, key.get(name))
            for name, text in self.table.select("id", "text").iter_rows()
        }


def _kept(lost: Lost, make: Callable[..., Row], *args: Any) -> Iterator[Row]:
    """The sample, or nothing, with its reason counted."""
    try:
        yield make(*args)
    except NotWritable as reason:
        lost[str(reason)] += 1


def exact_samples(
    questions: Questions,
    answers: pl.DataFrame,
    pointwise: Rubric | None,
    pairwise: Rubric | None,
    pairs_per_question: int,
    lost: Lost,
) -> list[Row]:
    """A right answer gets the most on every axis and beats a wrong one; two of a kind are a tie.

    At most `pairs_per_question` pairs are decided, and as many ties.
    `answers` is the table of `distinct_answers`. An answer is right if it equals the key, case and
    white space aside. Questions without an exact answer are left out.
    """
    asked = questions.about()
    samples: list[Row] = []
    for (name,), rows in answers.group_by("question_id", maintain_order=True):
        about = asked[str(name)]
        if about.reference is None:
            lost["questions without an exact answer"] += 1
            continue
        right = normalise_answer(about.reference)
        judged = [(text, normalise_answer(text) == right) for text in rows["text"]]
        if pointwise is not None:
            for text, is_right in judged:
                labels = [pointwise.scale[is_right]] * len(pointwise.axes)
                samples += _kept(lost, pointwise_sample, about, pointwise, text, labels, None)
        if pairwise is not None:
            pairs = list(itertools.combinations(judged, 2))
            pairs.sort(key=lambda pair: seed_of("pair", questions.seed, name, *pair))
            for one, other in _of_each_kind(pairs, pairs_per_question):
                better = None if one[1] == other[1] else int(other[1])
                pair = (one[0], other[0])
                samples += _in_some_order(about, pairwise, pair, better, questions.seed, lost)
    return samples


def _of_each_kind(pairs: list[_Pair], most: int) -> list[_Pair]:
    """The first pairs that are decided, and as many ties.

    By chance alone there would be few of one kind: a question has one right answer or none.
    """
    ties = [pair for pair in pairs if pair[0][1] == pair[1][1]]
    return [pair for pair in pairs if pair not in ties][:most] + ties[:most]


def _in_some_order(
    about: Asked, rubric: Rubric, pair: tuple[str, str], better: int | None, seed: int, lost: Lost
) -> Iterator[Row]:
    """The pair in an order, and a wording without a reason, that belong to it and the seed."""
    parts = (seed, about.question_id, *pair)
    wording = drawn(reasonless(rubric), "wording", *parts)
    if drawn((0, 1), "order", *parts):
        pair, better = (pair[1], pair[0]), None if better is None else 1 - better
    return _kept(lost, pairwise_sample, about, rubric, wording, pair, better, None)


def judged_samples(
    questions: Questions,
    answers: pl.DataFrame,
    judgments: pl.DataFrame,
    rubric: Rubric,
    lost: Lost,
) -> list[Row]:
    """Teachers' scores (JUDGMENT_SCHEMA): their mean, rounded, with the reason of a teacher that
    gave just these scores."""
    asked, form = questions.about(), rubric.form()
    texts = dict(answers.select("answer_id", "text").iter_rows())
    lost["verdicts that could not be read"] += judgments["axes"].null_count()
    samples: list[Row] = []
    scored = judgments.filter(pl.col("axes").is_not_null()).sort("judge")
    for (answer_id,), rows in scored.group_by("answer_id", maintain_order=True):
        given: list[list[float]] = rows["axes"].to_list()
        labels = [round(sum(axis) / len(axis)) for axis in zip(*given, strict=True)]
        reasons = [
            explanation_of(raw, form)
            for axes, raw in zip(given, rows["raw"], strict=True)
            if axes == labels
        ]
        reason = next((text for text in reasons if text is not None), None)
        about, text = asked[rows["question_id"][0]], texts[answer_id]
        samples += _kept(lost, pointwise_sample, about, rubric, text, labels, reason)
    return samples


def compared_samples(
    questions: Questions,
    answers: pl.DataFrame,
    comparisons: pl.DataFrame,
    rubric: Rubric,
    lost: Lost,
) -> list[Row]:
    """Teachers' comparisons (COMPARISON_SCHEMA): what they say together, as one of them said it.

    The sample is in the order and wording of one verdict, drawn among those that agree with the
    merged one: its reason speaks of A and B. A pair whose verdict hangs on the order is left out.
    """
    asked = questions.about()
    texts = dict(answers.select("answer_id", "text").iter_rows())
    lost["verdicts that could not be read"] += comparisons["verdict"].null_count()
    merged = merge_judges(merge_orders(comparisons)).filter(pl.col("verdict").is_not_null())
    agreeing = comparisons.join(
        merged.select("pair_id", "verdict"), on=["pair_id", "verdict"], how="semi"
    ).sort("id")
    lost["pairs whose verdict hangs on the order"] += len(merged) - agreeing["pair_id"].n_unique()
    samples: list[Row] = []
    for (pair_id,), rows in agreeing.group_by("pair_id", maintain_order=True):
        row = rows.row(drawn(range(len(rows)), "verdict", questions.seed, pair_id), named=True)
        pair = (texts[row["first_id"]], texts[row["second_id"]])
        better = {"first": 0, "second": 1, "tie": None}[row["verdict"]]
        if row["order"]:
            pair, better = (pair[1], pair[0]), None if better is None else 1 - better
        about, one = asked[row["question_id"]], rubric.variants()[row["wording"]]
        reason = None if one.reason == "none" else row["explanation"]
        samples += _kept(lost, pairwise_sample, about, rubric, row["wording"], pair, better, reason)
    return samples


def rated_samples(
    where: tuple[str, str],
    pairs: pl.DataFrame,
    rubric: Rubric,
    pairs_per_question: int,
    seed: int,
    lost: Lost,
) -> list[Row]:
    """People's or raters' pairs (RATED_SCHEMA), of which they gave no reason."""
    samples: list[Row] = []
    for (name,), rows in pairs.group_by("question_id", maintain_order=True):
        found = rows.to_dicts()
        found.sort(key=lambda row: seed_of("pair", seed, name, row["first"], row["second"]))
        for row in found[:pairs_per_question]:
            about = Asked(*where, str(name), row["question"])
            better = None if row["is_tie"] else 0
            samples += _in_some_order(
                about, rubric, (row["first"], row["second"]), better, seed, lost
            )
    return samples


def written_samples(where: tuple[str, str], written: pl.DataFrame) -> list[Row]:
    """Judgements that are written out in full (WRITTEN_SCHEMA), as they are."""
    source, scenario = where
    return [
        {
            "id": make_id("critic", row["question_id"], row["prompt"], row["response"]),
            "source": source,
            "scenario": scenario,
            "kind": "written",
            "question_id": row["question_id"],
            "label": "",
            "level": "as written",
            "with_reason": True,
            "wording": 0,
            "prompt": row["prompt"],
            "response": row["response"],
        }
        for row in written.iter_rows(named=True)
    ]
