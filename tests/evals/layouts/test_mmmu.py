"""MMMU's published files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import base64_of, layouts_of, standin, write_tsv

from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, TSV


@pytest.mark.parametrize("layout", layouts_of("mmmu"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("mmmu", layout, tmp_path, num_set_aside=1)
    assert texts[0] == (
        "Which account is shown in?\nA. Cash\nB. Stock\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert texts[1] == ("What is the ratio?\n\nAnswer the question using a single word or phrase.")
    assert [row.get("choices") for row in rows] == [["Cash", "Stock"], None, ["Oil", "Ink"]]
    assert [row["answers"] for row in rows] == [["B"], ["1:2", "0.5"], ["A"]]
    assert [row["category"] for row in rows] == ["Accounting", "Art_Theory", "Art_Theory"]
    # Only images that the text names are the question's.
    assert rows[0]["image"] == rows[2]["image"] != rows[1]["image"]


def test_open_questions_that_were_made_options(tmp_path: Path) -> None:
    """As VLMEvalKit writes them in its own results."""
    row = {"index": 7, "question": "How many? <image 1>", "A": "5", "B": "Other Answers"}
    row |= {"answer": "A", "split": "validation", "image": base64_of("red")}
    path = write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", [row])
    found = json.loads(read_items("mmmu", str(path)).items["row"][0])
    assert found["answers"] == ["5"]
    assert "choices" not in found


@pytest.mark.parametrize("layout", layouts_of("mmmu"))
def test_several_images_are_set_aside(layout: str, tmp_path: Path) -> None:
    found = read_items("mmmu", str(standin("mmmu", layout, tmp_path)))
    assert found.set_aside.rows() == [("validation_Art_Theory_3", "several images: 2")]
    names = ["validation_Accounting_1", "validation_Art_Theory_2", "validation_Art_Theory_4"]
    assert found.items["id"].to_list() == names


@pytest.mark.parametrize(
    ("layout", "ids"), [(HUB, ["validation_Accounting_1"]), (TSV, ["dev_Accounting_1"])]
)
def test_dev(layout: str, ids: list[str], tmp_path: Path) -> None:
    found = read_items("mmmu", str(standin("mmmu", layout, tmp_path)), split="dev")
    assert found.items["id"].to_list() == ids
