"""OCR-VQA's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin, write_images

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL


@pytest.mark.parametrize("layout", layouts_of("ocrvqa"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("ocrvqa", layout, tmp_path)
    assert texts[0] == ("Who wrote this book?\nAnswer the question using a single word or phrase.")
    assert [row["answers"] for row in rows] == [["Jane Roe"], ["No"], ["Maps"]]
    assert rows[0]["image"] == rows[1]["image"] != rows[2]["image"]


def test_ids_name_the_cover_and_the_question(tmp_path: Path) -> None:
    for layout in (HUB, ORIGINAL):
        path = standin("ocrvqa", layout, tmp_path / layout[:3])
        assert read_items("ocrvqa", str(path)).items["id"].to_list() == [
            "1589/1",
            "1589/2",
            "0761/1",
        ]


def test_another_split_of_the_authors_file(tmp_path: Path) -> None:
    path = standin("ocrvqa", ORIGINAL, tmp_path)
    write_images(path / "images", {"0002.jpg": "green"})
    found = read_items("ocrvqa", str(path), split="train")
    assert found.items["id"].to_list() == ["0002/1", "0002/2"]
    with pytest.raises(PeeralignError, match=r"^OCR-VQA has no split 'dev', only train, "):
        read_items("ocrvqa", str(path), split="dev")
