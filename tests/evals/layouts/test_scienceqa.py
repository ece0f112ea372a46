"""ScienceQA's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL


@pytest.mark.parametrize("layout", layouts_of("scienceqa"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("scienceqa", layout, tmp_path, num_set_aside=1 * (layout == ORIGINAL))
    assert texts == [
        "Context: Look at the objects.\nWhat is soft?\nA. rock\nB. wool\nC. glass\n"
        "Answer with the option's letter from the given choices directly.",
        "Which state?\nA. Ohio\nB. Iowa\n"
        "Answer with the option's letter from the given choices directly.",
    ]
    assert [row["answer"] for row in rows] == ["B", "A"]
    assert [row["choices"] for row in rows] == [["rock", "wool", "glass"], ["Ohio", "Iowa"]]
    assert [row["subject"] for row in rows] == ["natural science", "social science"]
    assert [row["grade"] for row in rows] == ["grade4", "grade8"]
    assert [row["has_text"] for row in rows] == [True, False]
    assert [row["has_image"] for row in rows] == [True, True]


def test_questions_without_an_image_are_set_aside(tmp_path: Path) -> None:
    whole = standin("scienceqa", HUB, tmp_path) / "ScienceQA-FULL"
    found = read_items("scienceqa", str(whole))
    assert found.items.height == 2
    assert found.set_aside.rows() == [("3", "no image")]


def test_splits_of_the_original_files(tmp_path: Path) -> None:
    path = standin("scienceqa", ORIGINAL, tmp_path)
    assert read_items("scienceqa", str(path)).items["id"].to_list() == ["11", "12"]
    assert read_items("scienceqa", str(path), split="minival").items["id"].to_list() == ["20"]
    with pytest.raises(PeeralignError, match="no split 'dev', only test, val, minival"):
        read_items("scienceqa", str(path), split="dev")
    # Without the file of splits, each problem's own key tells.
    (path / "pid_splits.json").unlink()
    assert read_items("scienceqa", str(path)).items["id"].to_list() == ["11", "12"]
    assert read_items("scienceqa", str(path), split="val").items["id"].to_list() == ["20"]
