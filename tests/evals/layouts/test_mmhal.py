"""MMHal-Bench's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of


@pytest.mark.parametrize("layout", layouts_of("mmhal"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("mmhal", layout, tmp_path)
    assert texts == ["What color is the fire hydrant cap?", "How many cups are there?"]
    assert [row["category"] for row in rows] == ["attribute", "counting"]
    assert rows[0]["answer"] == "Yellow."
    assert rows[0]["context"] == "Fire hydrant, Street"
    assert rows[0]["image"] == "93_o.jpg"
