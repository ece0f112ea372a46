"""What a benchmark is, and what holds for all of them."""

from __future__ import annotations

import numpy as np
import pytest

from peeralign.evals.benchmark import Benchmark, Graded, Row, graded, mean_score


def grade(row: Row, protocol: str) -> Graded:
    return Graded(1.0, "parsed", protocol)


BENCHMARK = Benchmark(
    title="Mine",
    headline="mine",
    needs={"official": ()},
    grade=grade,
    measures=mean_score("mine", scale=10),
)


def test_a_reply_is_graded_after_the_protocol() -> None:
    row = {"id": "1", "prediction": "x"}
    assert graded(BENCHMARK, row, "official") == Graded(1.0, "parsed", "official")


@pytest.mark.parametrize("prediction", [None, "", " \n\t"])
def test_no_reply_is_never_graded(prediction: str | None) -> None:
    row = {"id": "1", "prediction": prediction}
    assert graded(BENCHMARK, row, "official") == Graded(0.0, "none", None)


def test_the_mean_score() -> None:
    grades = [Graded(1.0, "parsed"), Graded(0.5, "parsed")]
    figures = BENCHMARK.measures([{}, {}], grades, "official")
    assert {name: measure(np.ones(2)) for name, measure in figures.items()} == {"mine": 7.5}
