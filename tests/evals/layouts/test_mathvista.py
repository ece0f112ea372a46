"""MathVista's published files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evals.loaded import read
from evals.published.mathvista import FLOAT, INTEGER, LETTER
from evals.standins import base64_of, layouts_of, standin, write_tsv

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL
from peeralign.evals.score import score_rows


@pytest.mark.parametrize("layout", layouts_of("mathvista"))
def test_items_are_asked_in_the_authors_words(layout: str, tmp_path: Path) -> None:
    """The original file has no query; the one that is built is that of the others."""
    texts, rows = read("mathvista", layout, tmp_path)
    assert texts == [LETTER, FLOAT, INTEGER]
    questions = ["How wide?", "How deep?", "How much? (Unit: g)"]
    assert [row["question"] for row in rows] == questions
    assert [row.get("choices") for row in rows] == [["6cm", "7cm"], None, None]
    assert [row["answer"] for row in rows] == ["7cm", "1.2", "1000"]
    assert [row["answer_type"] for row in rows] == ["text", "float", "integer"]
    assert [row.get("precision") for row in rows] == [None, 1, None]
    assert rows[0]["question_type"] == "multi_choice"
    for row in rows:
        assert (row["task"], row["grade"]) == ("geometry problem solving", "high school")
        assert row["skills"] == ["geometry reasoning"]
        assert row["category"] == "math-targeted-vqa"


@pytest.mark.parametrize("layout", layouts_of("mathvista"))
def test_right_replies_score(layout: str, tmp_path: Path) -> None:
    _, rows = read("mathvista", layout, tmp_path)
    replies = ("B", "1.2", "1000")
    answered = [
        {**row, "id": reply, "prediction": reply, "extraction": reply}
        for row, reply in zip(rows, replies, strict=True)
    ]
    for protocol in ("official", "lmms-eval", "vlmevalkit"):
        assert score_rows("mathvista", answered, protocol)["score"] == 1.0


def test_a_template(tmp_path: Path) -> None:
    texts, _ = read("mathvista", ORIGINAL, tmp_path, prompt="{question}\n{options}", limit=1)
    assert texts == ["How wide?\nA. 6cm\nB. 7cm"]


def test_hidden_answers(tmp_path: Path) -> None:
    path = standin("mathvista", HUB, tmp_path)
    with pytest.raises(PeeralignError, match="no answer"):
        read_items("mathvista", str(path), split="test")


def test_the_query_says_how_many_places_a_float_has(tmp_path: Path) -> None:
    row = {"index": 2, "question": FLOAT, "answer": "1.2", "answer_type": "float"}
    row |= {"question_type": "free_form", "choices": "[]", "image": base64_of("red")}
    path = write_tsv(tmp_path / "MathVista_MINI.tsv", [row])
    assert json.loads(read_items("mathvista", str(path)).items["row"][0])["precision"] == 1
