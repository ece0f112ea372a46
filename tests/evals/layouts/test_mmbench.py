"""MMBench's published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from evals.loaded import read
from evals.published.mmbench import hub
from evals.standins import base64_of, layouts_of, standin, write_tsv

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, TSV
from peeralign.evals.score import score_rows

ROTATIONS = {
    "241": (["cat", "dog", "bird"], "B"),
    "241-1": (["dog", "bird", "cat"], "A"),
    "241-2": (["bird", "cat", "dog"], "C"),
    "252": (["ant", "bee"], "A"),
    "252-1": (["bee", "ant"], "B"),
}


@pytest.mark.parametrize("layout", layouts_of("mmbench"))
def test_every_rotation_is_asked(layout: str, tmp_path: Path) -> None:
    """Those of the hub are its own, those of a table without any are made: they are the same."""
    texts, rows = read("mmbench", layout, tmp_path)
    ids = read_items("mmbench", str(standin("mmbench", layout, tmp_path))).items["id"].to_list()
    by_id = dict(zip(ids, rows, strict=True))
    assert {name: (row["choices"], row["answer"]) for name, row in by_id.items()} == ROTATIONS
    assert {row["group"] for name, row in by_id.items() if name.startswith("241")} == {"241"}
    assert by_id["252-1"]["group"] == "252"
    assert {row["l2_category"] for row in rows} == {"finegrained_perception"}
    by_text = dict(zip(ids, texts, strict=True))
    assert by_text["241-1"] == (
        "What is it?\nA. dog\nB. bird\nC. cat\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert by_text["252"] == (
        "It is small.\nWhat is it?\nA. ant\nB. bee\n"
        "Answer with the option's letter from the given choices directly."
    )
    # The rotations of a question are on one image.
    assert len({row["image"] for row in rows}) == 2


def test_right_replies_score_in_circles(tmp_path: Path) -> None:
    _, rows = read("mmbench", TSV, tmp_path)
    replies = [row["answer"] for row in rows[:-1]] + ["A"]
    answered = [
        {**row, "id": str(at), "prediction": reply}
        for at, (row, reply) in enumerate(zip(rows, replies, strict=True))
    ]
    figures = score_rows("mmbench", answered)
    assert figures["score"] == 0.5
    assert figures["num_incomplete"] == 0


@pytest.mark.parametrize("layout", layouts_of("mmbench"))
def test_a_limit_keeps_whole_questions(layout: str, tmp_path: Path) -> None:
    found = read_items("mmbench", str(standin("mmbench", layout, tmp_path)), limit=1)
    assert sorted(found.items["id"]) == ["241", "241-1", "241-2"]


def test_the_hub_test_split_has_no_answers(tmp_path: Path) -> None:
    with pytest.raises(PeeralignError, match="no answer"):
        read_items("mmbench", str(hub(tmp_path)), split="test")


def test_other_configurations_are_read_from_their_folder(tmp_path: Path) -> None:
    hub(tmp_path)
    found = read_items("mmbench", str(tmp_path / "cn"))
    # It has no rotation of its own, so both are made.
    assert found.items["id"].to_list() == ["252", "252-1"]


def test_an_answer_that_is_no_option(tmp_path: Path) -> None:
    row = {"question": "What?", "A": "cat", "B": "dog", "image": base64_of("red")}
    rows = [{"index": 1, "answer": "D", **row}, {"index": 2, "answer": "B", **row}]
    found = read_items("mmbench", str(write_tsv(tmp_path / "MMBench_DEV_EN.tsv", rows)))
    assert found.items["id"].to_list() == ["2", "2-1"]
    assert found.set_aside["reason"].to_list() == ["its answer is none of the options: D"] * 2


def test_hub_has_rotations_of_its_own(tmp_path: Path) -> None:
    assert read_items("mmbench", str(standin("mmbench", HUB, tmp_path))).items.height == 5


def test_the_first_table_that_was_published(tmp_path: Path) -> None:
    standin("mmbench", TSV, tmp_path).rename(tmp_path / "mmbench_dev_20230712.tsv")
    assert read_items("mmbench", str(tmp_path)).items["id"].to_list()[:2] == ["241", "241-1"]
