"""Critic samples: what is written is read back as the same, and balance."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from peeralign.judging.rubric import Rubric, load_rubric, shipped_rubrics
from peeralign.judging.verdict import explanation_of, parse_verdict
from peeralign.stages.critic_samples import (
    SAMPLE_SCHEMA,
    Asked,
    NotWritable,
    balance,
    equal_quotas,
    pairwise_sample,
    pointwise_sample,
    reasonless,
    statistics,
)

ASKED = Asked("source", "chat", "q1", "what colour?", "red")
REASON = 'It says "red", and {the image} shows\nit: A is better than B.'


@pytest.mark.parametrize(
    "name", [name for name in shipped_rubrics() if load_rubric(name).kind == "absolute"]
)
def test_a_pointwise_sample_is_read_back(name: str) -> None:
    rubric = load_rubric(name)
    labels = [rubric.scale[1]] * len(rubric.axes)
    reason = None if rubric.reason == "none" else REASON
    sample = pointwise_sample(ASKED, rubric, "blue", labels, reason)
    assert sample["prompt"] == rubric.fill(ASKED.question, ["blue"], ASKED.reference)[0]
    assert parse_verdict(sample["response"], rubric.form()).axes == labels
    assert explanation_of(sample["response"], rubric.form()) == reason
    assert sample["with_reason"] is (reason is not None)
    if rubric.reason != "none":
        at_reason, at_label = (
            sample["response"].find(part) for part in ("It says", str(labels[0]))
        )
        assert (at_reason < at_label) is (rubric.reason == "first")
        with pytest.raises(NotWritable, match="asks for one"):
            pointwise_sample(ASKED, rubric, "blue", labels, None)


@pytest.mark.parametrize("name", ["pairwise", "pairwise_short", "classroom_pairwise"])
@pytest.mark.parametrize(("better", "value"), [(0, 1.0), (1, 0.0), (None, 0.5)])
def test_a_pairwise_sample_is_read_back(name: str, better: int | None, value: float) -> None:
    rubric = load_rubric(name)
    for wording, one in enumerate(rubric.variants()):
        reason = None if one.reason == "none" else "Because of the sky."
        sample = pairwise_sample(ASKED, rubric, wording, ("x", "y"), better, reason)
        assert parse_verdict(sample["response"], one.form()).axes == [value]
        assert explanation_of(sample["response"], one.form()) == reason
        assert sample["prompt"] == one.fill_pairs(ASKED.question, [("x", "y")], "red")[0]
        assert sample["level"] == {0: "first", 1: "second", None: "tie"}[better]


def marked(reason: str) -> Rubric:
    return Rubric(
        version=1,
        axes=["score"],
        scale=(1, 5),
        reason=reason,  # type: ignore[arg-type]
        mark="Score:",
        prompt="{question} {answer} Score:",
    )


def test_a_reason_with_another_verdict_is_refused() -> None:
    with pytest.raises(NotWritable, match="another verdict"):
        pointwise_sample(ASKED, marked("first"), "x", [4], "One may say Score: 2. No.")
    with pytest.raises(NotWritable, match="another verdict"):
        pointwise_sample(ASKED, marked("after"), "x", [4], 'He wrote {"score": 1}.')
    assert pointwise_sample(ASKED, marked("after"), "x", [4], "Fine.")["response"] == (
        "Score: 4\nFine."
    )
    assert pointwise_sample(ASKED, marked("first"), "x", [4], "Fine.")["response"] == (
        "Fine.\nScore: 4"
    )


def test_reasons_where_the_rubric_wants_none_are_left_out() -> None:
    rubric = load_rubric("classroom")
    sample = pointwise_sample(ASKED, rubric, "x", [1, 2, 3, 4, 5], "so")
    assert (sample["with_reason"], sample["label"], sample["level"]) == (False, "1 2 3 4 5", "3")


def test_wordings_without_a_reason() -> None:
    rubric = load_rubric("pairwise")
    numbers = reasonless(rubric)
    assert [rubric.variants()[n].reason for n in numbers] == ["none"] * len(numbers)
    assert 0 < len(numbers) < 30
    assert reasonless(load_rubric("visual_chat")) == []


def table(*groups: tuple[str, str, int]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = [
        {"id": f"{scenario}-{level}-{n}", "scenario": scenario, "level": level, "kind": "pairwise",
         "with_reason": n % 2 == 0}
        for scenario, level, number in groups
        for n in range(number)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SAMPLE_SCHEMA)


def counts(samples: pl.DataFrame) -> dict[tuple[str, str], int]:
    return {(s, level): n for s, level, n in samples.group_by("scenario", "level").len().rows()}


def test_scenarios_and_levels_get_equal_numbers_as_far_as_they_go() -> None:
    samples = table(("a", "1", 50), ("a", "5", 10), ("b", "1", 4), ("c", "3", 100))
    kept = balance(samples, 60, 0.2, seed=0)
    # b has only 4, so a and c share 56; of a's 28, level 5 has only 10.
    assert counts(kept) == {("a", "1"): 18, ("a", "5"): 10, ("b", "1"): 4, ("c", "3"): 28}
    assert kept["id"].is_unique().all()


def test_without_a_total_only_ties_are_capped() -> None:
    samples = table(("a", "first", 40), ("a", "second", 40), ("a", "tie", 60))
    assert counts(balance(samples, None, 0.2, 0))["a", "tie"] == 20
    assert counts(balance(samples, None, 1.0, 0))["a", "tie"] == 60
    assert ("a", "tie") not in counts(balance(samples, None, 0.0, 0))
    # Of a total, both sides get the same, and ties at most their share.
    kept = counts(balance(samples, 50, 0.2, 0))
    assert kept == {("a", "first"): 20, ("a", "second"): 20, ("a", "tie"): 10}


def test_which_are_kept_belongs_to_the_seed_and_not_to_the_order() -> None:
    samples = table(("a", "1", 50))
    one, again, other = (
        set(balance(rows, 10, 0.2, seed)["id"])
        for rows, seed in ((samples, 0), (samples.reverse(), 0), (samples, 1))
    )
    assert one == again
    assert one != other


def test_quotas_fill_up() -> None:
    assert equal_quotas({"a": 5, "b": 1, "c": 9}, 12) == {"a": 5, "b": 1, "c": 6}
    assert equal_quotas({"a": 5, "b": 5}, 3) == {"a": 2, "b": 1}
    assert equal_quotas({"a": 2}, 10) == {"a": 2}
    assert equal_quotas({}, 10) == {}


def test_statistics_count_levels_in_the_order_of_the_scale() -> None:
    samples = table(("a", "10", 2), ("a", "9", 4), ("b", "tie", 1), ("b", "first", 3))
    assert statistics(samples) == [
        {"scenario": "a", "kind": "pairwise", "samples": 6, "with_reason": 3,
         "levels": {"9": 4, "10": 2}},
        {"scenario": "b", "kind": "pairwise", "samples": 4, "with_reason": 3,
         "levels": {"first": 3, "tie": 1}},
    ]  # fmt: skip
    assert list(statistics(samples)[0]["levels"]) == ["9", "10"]


def test_long_scales_are_balanced_in_ten_parts() -> None:
    rubric = marked("none").model_copy(update={"scale": (0, 100)})
    levels = [
        pointwise_sample(ASKED, rubric, "x", [score], None)["level"]
        for score in (0, 9, 10, 99, 100)
    ]
    assert levels == ["0 to 10", "0 to 10", "10 to 20", "90 to 100", "90 to 100"]
