"""A small judge whose every figure can be checked by hand, as files of verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# Two sets of three models; the judge, who is model "b", left one answer unscored.
SCORES: list[Row] = [
    {"item": 1, "set": "chat", "model": "a", "score": 1, "reference": 1},
    {"item": 1, "set": "chat", "model": "b", "score": 3, "reference": 2},
    {"item": 1, "set": "chat", "model": "c", "score": 2, "reference": 3},
    {"item": 1, "set": "text", "model": "a", "score": 3, "reference": 10},
    {"item": 1, "set": "text", "model": "b", "score": 5, "reference": 20},
    {"item": 1, "set": "text", "model": "c", "score": 7, "reference": 30},
    {"item": 2, "set": "text", "model": "a", "score": None, "reference": 30},
    {"item": 2, "set": "text", "model": "c", "score": 7, "reference": 30},
]
# Of black images it gives the scores of "text" again, and in "chat" others to two of three.
for _row, _black in zip(SCORES, (2, 3, 1, 3, 5, 7, None, None), strict=True):
    _row.update(
        score_without_image=_black,
        judge="b",
        answer="ab" * (1 + "abc".index(_row["model"])),
        family="old" if _row["model"] == "a" else "new",
    )
PAIRS: list[Row] = [
    {"item": 1, "model_a": "a", "model_b": "b", "verdict": "A", "reference": "A"},
    {"item": 1, "model_a": "b", "model_b": "a", "verdict": "A", "reference": "B"},
    {"item": 2, "model_a": "a", "model_b": "b", "verdict": "B", "reference": "tie"},
    {"item": 2, "model_a": "b", "model_b": "a", "verdict": "A", "reference": "tie"},
    {"item": 3, "model_a": "b", "model_b": "c", "verdict": "tie", "reference": "tie"},
    {"item": 3, "model_a": "a", "model_b": "c", "verdict": "tie", "reference": "A"},
    {"item": 4, "model_a": "a", "model_b": "d", "verdict": None, "reference": "B"},
]
for _row, _black in zip(PAIRS, ("A", "B", "B", "B", "A", None, "A"), strict=True):
    _row.update(judge="b", verdict_without_image=_black)
RANKINGS: list[Row] = [
    {"item": 1, "ranking": "CDAB", "reference": "CDBA"},
    {"item": 2, "ranking": ["C", "D"], "reference": ["C", "D", "A", "B"]},
    {"item": 3, "ranking": None, "reference": "AB"},
]
for _row, _black in zip(RANKINGS, ("CDBA", None, "BA"), strict=True):
    _row.update(ranking_without_image=_black)


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
