"""GQA's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, TSV


@pytest.mark.parametrize("layout", layouts_of("gqa"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("gqa", layout, tmp_path)
    assert texts == [
        f"{question}\nAnswer the question using a single word or phrase."
        for question in ("Is it overcast?", "Who is wearing the dress?")
    ]
    assert [row["answer"] for row in rows] == ["no", "woman"]
    types = [row.get("question_type") for row in rows]
    assert types == ([None, None] if layout == TSV else ["verify", "query"])


def test_the_hubs_images_come_from_their_own_configuration(tmp_path: Path) -> None:
    path = standin("gqa", HUB, tmp_path)
    # The folder of the questions alone will do, if the images are beside it.
    found = read_items("gqa", str(path / "testdev_balanced_instructions")).items
    whole = read_items("gqa", str(path)).items
    assert found["image"].to_list() == whole["image"].to_list()
    for shard in (path / "testdev_balanced_images").iterdir():
        shard.unlink()
    (path / "testdev_balanced_images").rmdir()
    with pytest.raises(PeeralignError, match=r"^GQA needs testdev_balanced_images beside .* hub"):
        read_items("gqa", str(path))
