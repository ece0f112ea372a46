"""The paper's fifteen benchmarks on one scale, by category."""

from __future__ import annotations

from typing import Any

import pytest

from peeralign.evals.benchmarks import NAMES
from peeralign.evals.suite import CATEGORIES, FIFTEEN, FURTHER, averages, by_category, percent


def test_there_are_fifteen_and_each_has_a_metric() -> None:
    assert len(FIFTEEN) == len(set(FIFTEEN)) == 15
    assert set(FIFTEEN) <= set(NAMES)
    assert len(CATEGORIES) == 5


@pytest.mark.parametrize(
    ("name", "figures", "value", "expected"),
    [
        ("chartqa", {}, 0.5, 50.0),
        ("mmvet", {}, 35.4, 35.4),
        ("ocrbench", {"num_rows": 1000, "protocol": "official"}, 481, 48.1),
        ("ocrbench", {"num_rows": 200, "protocol": "official"}, 100, 50.0),
        ("ocrbench", {"num_rows": 1000, "protocol": "lmms-eval"}, 0.481, 48.1),
        # Of 200 items all right: lmms-eval says 0.2.
        ("ocrbench", {"num_rows": 200, "protocol": "lmms-eval"}, 0.2, 100.0),
        ("mme", {}, 1500.0, None),
        ("chartqa", {}, None, None),
    ],
)
def test_percent(
    name: str, figures: dict[str, Any], value: float | None, expected: float | None
) -> None:
    assert percent(name, figures, value) == (None if expected is None else pytest.approx(expected))


def test_benchmarks_stand_in_the_paper_s_order_and_others_last() -> None:
    assert by_category(["gqa", "pope", "textvqa", "chartqa", "mme"]) == {
        "Chart & OCR": ["chartqa", "textvqa"],
        "Hallucination": ["pope"],
        FURTHER: ["gqa", "mme"],
    }


def entry(name: str, **scores: float | None) -> dict[str, Any]:
    members = {
        member: {"score": score, "num_rows": 10, "protocol": "official"}
        for member, score in scores.items()
    }
    return {"name": name, "members": members}


def test_a_member_has_a_mean_only_of_what_it_has_whole() -> None:
    found = averages(
        [
            entry("chartqa", ada=0.2, ben=0.5),
            entry("textvqa", ada=0.4, ben=None),
            entry("pope", ada=0.9, ben=0.7),
            entry("mme", ada=1500.0, ben=1000.0),
        ]
    )
    assert found["ada"] == {"Chart & OCR": 30.0, "Hallucination": 90.0, "Average": 50.0}
    assert found["ben"] == {"Hallucination": 70.0}
