"""RealWorldQA's published files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evals.loaded import read
from evals.published.realworldqa import COUNT, WHEEL
from evals.standins import standin

from peeralign.evals.items import Items, read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV
from peeralign.evals.score import score_rows


def _rows(found: Items) -> list[dict]:
    return [json.loads(row) for row in found.items["row"]]


@pytest.mark.parametrize("layout", [HUB, ORIGINAL])
def test_questions_are_asked_as_they_stand(layout: str, tmp_path: Path) -> None:
    found = read_items("realworldqa", str(standin("realworldqa", layout, tmp_path)))
    assert found.items["text"].to_list() == [WHEEL, COUNT]
    letter, number = _rows(found)
    assert letter["question"] == "Where does the wheel point?"
    assert (letter["choices"], letter["answer"]) == (["Left", "Straight", "Right"], "C")
    assert number["question"] == "How many cars are there?"
    assert (number.get("choices"), number["answer"]) == (None, "2")
    replies = [{**letter, "id": "0", "prediction": "C"}, {**number, "id": "1", "prediction": "2."}]
    for protocol in ("official", "lmms-eval"):
        assert score_rows("realworldqa", replies, protocol)["score"] == 1.0


def test_the_table_has_options_for_all(tmp_path: Path) -> None:
    texts, rows = read("realworldqa", TSV, tmp_path)
    assert texts == [
        "Where does the wheel point?\nA. Left\nB. Straight\nC. Right\n"
        "Answer with the option's letter from the given choices directly.",
        "How many cars are there?\nA. 2\nB. 3\n"
        "Answer with the option's letter from the given choices directly.",
    ]
    assert [row["answer"] for row in rows] == ["C", "A"]


def test_a_template_takes_the_question_apart(tmp_path: Path) -> None:
    path = str(standin("realworldqa", HUB, tmp_path))
    found = read_items("realworldqa", path, prompt="{question} ({options})", limit=2)
    assert found.items["text"].to_list() == [
        "Where does the wheel point? (A. Left\nB. Straight\nC. Right)",
        "How many cars are there? ()",
    ]
