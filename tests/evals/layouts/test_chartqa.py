"""ChartQA's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin

from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import ORIGINAL


@pytest.mark.parametrize("layout", layouts_of("chartqa"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("chartqa", layout, tmp_path)
    assert texts[0] == "How many bars?\nAnswer the question with a single word."
    by_question = {row["question"]: row for row in rows}
    assert by_question["Which share?"]["answers"] == ["57%"]
    assert [("human" in row["split"], "augmented" in row["split"]) for row in rows].count(
        (True, False)
    ) == 2
    assert "augmented" in by_question["Which share?"]["split"]
    # Both questions on the first chart are one cluster.
    assert by_question["How many bars?"]["image"] == by_question["Which year?"]["image"]
    assert by_question["Which share?"]["image"] != by_question["Which year?"]["image"]


def test_images_have_their_names(tmp_path: Path) -> None:
    _, rows = read("chartqa", ORIGINAL, tmp_path)
    assert {row["image"] for row in rows} == {"a.png", "b.png"}


def test_a_clone_of_the_authors_repository(tmp_path: Path) -> None:
    standin("chartqa", ORIGINAL, tmp_path / "ChartQA Dataset")
    found = read_items("chartqa", str(tmp_path))
    assert len(found.items) == 3
    assert found.set_aside.is_empty()
