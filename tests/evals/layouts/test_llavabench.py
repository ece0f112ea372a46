"""LLaVA-Bench's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import ORIGINAL


@pytest.mark.parametrize("layout", layouts_of("llavabench"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("llavabench", layout, tmp_path)
    assert texts == ["What is the name of this famous sight?", "Describe this photo in detail."]
    assert [row["category"] for row in rows] == ["conv", "detail"]
    assert [row["answer"] for row in rows] == ["Diamond Head.", "A crater."]
    assert {row["context"] for row in rows} == {"An aerial view."}


def test_the_authors_other_files_must_be_there(tmp_path: Path) -> None:
    path = standin("llavabench", ORIGINAL, tmp_path)
    (path / "answers_gpt4.jsonl").unlink()
    with pytest.raises(PeeralignError, match=r"needs answers_gpt4.jsonl beside .*; get it from"):
        read_items("llavabench", str(path))
