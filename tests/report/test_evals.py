"""The table of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from peeralign.report.evals import print_evals


def test_figures_are_what_is_printed(tmp_path: Path) -> None:
    def score(value: float | None, **more: Any) -> dict[str, Any]:
        between = None if value is None else [value - 0.1, value + 0.1]
        return {
            **{"headline": "accuracy", "unit": "share, 0 to 1", "protocol": "official"},
            **{"score": value, "interval": between, "parse_failure_rate": 0.0, "num_rows": 9},
            **more,
        }

    figures = {
        "benchmarks": [
            {
                **{"name": "pope", "title": "POPE", "protocol": "official", "limit": None},
                **{"num_set_aside": 2, "reasons": {"no image": 2}},
                "members": {"a": score(0.5), "b": score(0.7), "panel": score(0.8, judge="eye")},
            }
        ],
        "members": ["a", "b", "panel"],
        "single": ["a", "b"],
        "self_judging": ["eye"],
        "averages": {},
    }
    with (tmp_path / "out.txt").open("w") as file:
        print_evals(figures, Console(file=file, width=120))
    text = (tmp_path / "out.txt").read_text()
    assert "60.0" in text
    assert "70.0 to 90.0" in text
    assert "accuracy, %, official, by eye" in text
    assert "POPE: 2 items set aside (2 no image)" in text
    assert "self-judged: eye" in text
