"""AI2D's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.published.ai2d import FOOD
from evals.standins import layouts_of, png, standin

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL


@pytest.mark.parametrize("layout", layouts_of("ai2d"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("ai2d", layout, tmp_path)
    assert texts[1] == (
        "What is the letter of the sun?\nA. T\nB. U\nC. V\nD. W\n"
        "Answer with the option's letter from the given choices directly."
    )
    # An option that is empty keeps its place, so that the answer's number fits.
    empty = [""] if layout == HUB else []
    assert rows[0]["choices"] == ["fox", "rabbit", "hawk", *empty]
    assert [row["answer"] for row in rows] == ["B", "D"]


def test_questions_about_letters_have_the_diagram_with_letters(tmp_path: Path) -> None:
    _, rows = read("ai2d", ORIGINAL, tmp_path)
    assert [row["image"] for row in rows] == ["images/0.png", "abc_images/7.png"]
    path = str(tmp_path / "ai2d")
    images = read_items("ai2d", path, split="all").items["image"]
    assert Path(images[1]["path"]).read_bytes() == png("blue")


def test_splits_of_the_original_files(tmp_path: Path) -> None:
    path = str(standin("ai2d", ORIGINAL, tmp_path))
    assert read_items("ai2d", path, split="train").items["id"].to_list() == ["9.png-0"]
    assert read_items("ai2d", path, split="all").items.height == 3
    with pytest.raises(PeeralignError, match="no split 'dev', only test, train, all"):
        read_items("ai2d", path, split="dev")


def test_the_test_set_needs_its_ids(tmp_path: Path) -> None:
    path = standin("ai2d", ORIGINAL, tmp_path)
    (tmp_path / "ai2d_test_ids.csv").unlink()
    with pytest.raises(PeeralignError, match=r"needs ai2d_test_ids\.csv"):
        read_items("ai2d", str(path))


def test_a_template(tmp_path: Path) -> None:
    texts, _ = read("ai2d", HUB, tmp_path, prompt="{options}\n{question}", limit=1)
    assert texts[0].endswith(f"C. hawk\nD. \n{FOOD}")
