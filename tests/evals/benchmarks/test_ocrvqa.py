"""OCR-VQA: the answer, but for case and blanks."""

from __future__ import annotations

import pytest
from evals.golden import figures, mistake, worth


@pytest.mark.parametrize(
    ("prediction", "answer", "score"),
    [
        ("John Smith", "John Smith", 1),
        ("john smith", "John Smith", 1),
        (" John Smith\n", "John Smith", 1),
        ("John Smith", " john smith ", 1),
        ("John Smith.", "John Smith", 0),
        ("John  Smith", "John Smith", 0),
        ("Smith", "John Smith", 0),
        ("by John Smith", "John Smith", 0),
        ("yes", "Yes", 1),
        ("Romance", ["Love", "Romance"], 1),
        ("1,999", "1999", 0),
        ("", "", 0),
        (None, "None", 0),
    ],
)
@pytest.mark.parametrize("protocol", ["official", "vlmevalkit"])
def test_golden(prediction: str | None, answer: str, score: int, protocol: str) -> None:
    assert worth("ocrvqa", prediction, {"answers": answer}, protocol).score == score


def test_lmms_eval_does_not_have_it() -> None:
    row = {"prediction": "a", "answer": "a"}
    assert mistake("OCR-VQA", [row], "lmms-eval") == (
        "OCR-VQA has no protocol 'lmms-eval', it has official, vlmevalkit"
    )
    assert figures("OCR-VQA", [row])["accuracy"] == 1
