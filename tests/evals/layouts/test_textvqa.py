"""TextVQA's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of


@pytest.mark.parametrize("layout", layouts_of("textvqa"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("textvqa", layout, tmp_path)
    assert texts == [
        f"what {rest}\nAnswer the question using a single word or phrase."
        for rest in ("is the brand?", "does it say?")
    ]
    assert [len(row["answers"]) for row in rows] == [10, 10]
    assert rows[0]["answers"].count("dakota") == 6
