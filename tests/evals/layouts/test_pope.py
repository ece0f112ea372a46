"""POPE's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin

from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV


@pytest.mark.parametrize("layout", layouts_of("pope"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("pope", layout, tmp_path)
    # The instruction of VLMEvalKit's questions gives way to the usual wording.
    assert texts == [
        f"Is there a {what} in the image?\nAnswer the question using a single word or phrase."
        for what in ("snowboard", "snowboard", "car")
    ]
    assert [row["answer"] for row in rows] == ["yes", "yes", "no"]
    assert [row["category"] for row in rows] == ["adversarial", "popular", "random"]
    assert rows[0]["image"] == rows[1]["image"] != rows[2]["image"]


@pytest.mark.parametrize(
    ("layout", "ids"),
    [
        (HUB, ["0", "1", "2"]),
        (TSV, ["0/adversarial", "0/popular", "1"]),
        (ORIGINAL, ["adversarial/1", "popular/1", "random/1"]),
    ],
)
def test_ids_tell_categories_apart(layout: str, ids: list[str], tmp_path: Path) -> None:
    path = standin("pope", layout, tmp_path)
    assert read_items("pope", str(path)).items["id"].to_list() == ids


def test_the_hub_has_each_category_as_a_split_too(tmp_path: Path) -> None:
    path = standin("pope", HUB, tmp_path)
    assert read_items("pope", str(path), split="popular").items["category"].to_list() == ["popular"]
