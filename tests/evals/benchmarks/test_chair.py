"""CHAIR: objects that are mentioned and not there."""

from __future__ import annotations

from typing import Any

import pytest
from evals.golden import figures, mistake

Case = tuple[list[str], list[str] | None]


def rows(cases: list[Case]) -> list[dict[str, Any]]:
    return [{"prediction": "words", "objects": there, "mentioned": named} for there, named in cases]


DOG, CAT = "dog", "cat"


@pytest.mark.parametrize(
    ("cases", "chair_s", "chair_i", "recall"),
    [
        ([([DOG], [DOG])], 0, 0, 1),
        ([([DOG], [CAT])], 1, 1, 0),
        ([([DOG, CAT], [DOG])], 0, 0, 0.5),
        ([([DOG], [DOG, CAT])], 1, 0.5, 1),
        # Mentions count as often as they come, captions once.
        ([([DOG], [DOG, CAT, CAT])], 1, 0.666667, 1),
        ([([DOG], [DOG, DOG, DOG, CAT])], 1, 0.25, 1),
        ([([DOG], [DOG]), ([DOG], [CAT])], 0.5, 0.5, 0.5),
        # Of all mentions, not the mean of the captions (which would be 0.25).
        ([([DOG], [DOG, DOG, DOG]), ([DOG], [DOG, CAT])], 0.5, 0.2, 1),
        # A caption of no objects hallucinates none.
        ([([DOG], []), ([DOG], [DOG])], 0, 0, 0.5),
        ([([DOG], [])], 0, None, 0),
        ([([], [CAT])], 1, 1, None),
    ],
)
def test_golden(
    cases: list[Case], chair_s: float, chair_i: float | None, recall: float | None
) -> None:
    found = figures("chair", rows(cases))
    assert found["score"] == found["CHAIRs"] == chair_s
    assert found["CHAIRi"] == chair_i
    assert "recall" not in found
    assert figures("chair", rows(cases), "lmms-eval")["recall"] == recall


@pytest.mark.parametrize("missing", [{"prediction": None}, {"prediction": ""}, {"mentioned": None}])
def test_no_caption_is_no_good_caption(missing: dict[str, Any]) -> None:
    row = {**rows([([DOG], [])])[0], **missing}
    found = figures("chair", [row, rows([([DOG], [DOG])])[0]])
    assert (found["CHAIRs"], found["CHAIRi"], found["parse_failure_rate"]) == (0.5, 0, 0.5)


def test_mistakes() -> None:
    row = rows([([DOG], [DOG])])[0]
    assert "it has official, lmms-eval" in mistake("chair", [row], "vlmevalkit")
    assert "has a wrong 'objects'" in mistake("chair", [{**row, "objects": 3}])
