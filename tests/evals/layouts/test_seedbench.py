"""SEED-Bench's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin

from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import TSV
from peeralign.evals.layouts.seedbench import DIMENSIONS


@pytest.mark.parametrize("layout", layouts_of("seedbench"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("seedbench", layout, tmp_path, num_set_aside=0 if layout == TSV else 1)
    assert (
        texts
        == [
            "How many towels are there?\nA. 1\nB. 2\nC. 3\nD. 4\n"
            "Answer with the option's letter from the given choices directly."
        ]
        * 2
    )
    assert [row["answer"] for row in rows] == ["A", "D"]
    assert [row["category"] for row in rows] == ["Instances Counting", "Instance Location"]
    assert {row["data_type"] for row in rows} == {"image"}
    path = str(standin("seedbench", layout, tmp_path))
    found = read_items("seedbench", path)
    assert found.items["id"].to_list() == ["101669", "75500"]
    if layout != TSV:
        assert found.set_aside["reason"].to_list() == ["a video"]


def test_the_dimensions_of_images() -> None:
    numbered = dict(enumerate(DIMENSIONS, start=1))
    assert (numbered[3], numbered[4]) == ("Instance Attributes", "Instance Location")
    assert (numbered[9], numbered[12]) == ("Text Understanding", "Procedure Understanding")
