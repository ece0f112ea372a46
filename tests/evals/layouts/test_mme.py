"""MME's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import layouts_of, standin

from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV
from peeralign.evals.score import score_rows


@pytest.mark.parametrize("layout", layouts_of("mme"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("mme", layout, tmp_path)
    # The instruction that the questions come with gives way to the usual wording.
    expected = {
        f"{question}\nAnswer the question using a single word or phrase."
        for question in ("Is the answer 15?", "Is it 16?", "Is this a sculpture?")
    }
    assert expected < set(texts)
    said = [{"id": n, "prediction": "yes", **row} for n, row in enumerate(rows)]
    # Each image has a question whose answer is no: half of all, and no image fully.
    assert score_rows("mme", said, "official")["score"] == 100.0


@pytest.mark.parametrize("layout", [HUB, ORIGINAL])
def test_two_questions_of_one_name(layout: str, tmp_path: Path) -> None:
    ids = read_items("mme", str(standin("mme", layout, tmp_path))).items["id"].to_list()
    assert len(ids) == 4
    assert [name.endswith("/2") for name in ids] == [False, True] * 2


def test_a_limit_keeps_both_questions_of_an_image(tmp_path: Path) -> None:
    _, rows = read("mme", HUB, tmp_path, limit=1)
    assert [row["answer"] for row in rows] == ["Yes", "No"]


def test_what_is_beyond_a_limit_is_not_set_aside(tmp_path: Path) -> None:
    file = standin("mme", TSV, tmp_path)
    file.write_text(file.read_text().replace("Is this a painting?", " ").replace("\tNo\t", "\t\t"))
    found = read_items("mme", str(file), limit=1)
    # The second question of the image has no answer; nor has that of the next, which is not asked.
    assert found.items["id"].to_list() == ["0"]
    assert found.set_aside.height == 0
    assert read_items("mme", str(file)).set_aside.height == 2
