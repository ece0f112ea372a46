"""MM-Vet's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of


@pytest.mark.parametrize("layout", layouts_of("mmvet"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("mmvet", layout, tmp_path)
    assert texts == ["What is x in the equation?", "What is funny here?"]
    assert [row["capabilities"] for row in rows] == [["ocr", "math"], ["rec"]]
    # For the judge, as the authors write it.
    assert rows[0]["answer"] == "-1<AND>-5"
