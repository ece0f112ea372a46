"""OCRBench's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin

from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import ORIGINAL


@pytest.mark.parametrize("layout", layouts_of("ocrbench"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("ocrbench", layout, tmp_path)
    # The questions themselves say how to answer.
    assert texts == ["what is written in the image?", "Please write out the expression."]
    assert [row["answers"] for row in rows] == [["CENTRE"], ["x ^ 2"]]
    # Formulas are scored in their own way, whichever protocol knows them by what.
    assert [row["dataset"] == "HME100k" for row in rows] == [False, True]
    assert rows[0]["category"] == "Regular Text Recognition"


def test_a_clone_of_the_authors_repository(tmp_path: Path) -> None:
    standin("ocrbench", ORIGINAL, tmp_path / "OCRBench")
    found = read_items("ocrbench", str(tmp_path))
    assert found.items["id"].to_list() == ["0", "1"]
    assert found.set_aside.is_empty()
