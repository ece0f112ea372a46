"""Golden rows of benchmarks: what a reply is worth after each protocol, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from peeralign.errors import PeeralignError
from peeralign.evals.benchmark import PROTOCOLS, Graded
from peeralign.evals.score import grade_rows, score_rows


def worth(name: str, prediction: str | None, keys: dict[str, Any], protocol: str) -> Graded:
    """The grade of one row."""
    return grade_rows(name, [{"id": 1, "prediction": prediction, **keys}], protocol)[0]


def scores(name: str, prediction: str | None, **keys: Any) -> tuple[float, ...]:
    """The reply's scores: official, lmms-eval, vlmevalkit."""
    return tuple(worth(name, prediction, keys, protocol).score for protocol in PROTOCOLS)


def parsed(name: str, prediction: str | None, **keys: Any) -> tuple[str, ...]:
    """How the reply was read: official, lmms-eval, vlmevalkit."""
    return tuple(worth(name, prediction, keys, protocol).parsed for protocol in PROTOCOLS)


def figures(name: str, rows: list[dict[str, Any]], protocol: str = "official") -> dict[str, Any]:
    """All figures of rows, which are given their ids here."""
    return score_rows(name, [{"id": n, **row} for n, row in enumerate(rows)], protocol)


def mistake(name: str, rows: list[dict[str, Any]], protocol: str = "official") -> str:
    """The sentence that rows are refused with."""
    with pytest.raises(PeeralignError) as caught:
        figures(name, rows, protocol)
    return str(caught.value)
