"""Rated sets and human preferences: every public layout, gaps and ties, and broken rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from peeralign.errors import PeeralignError
from peeralign.store.rated import RatedSet, read_rated_set

Row = dict[str, Any]


def rated(response: str, *ratings: str, model: str = "m") -> Row:
    aspects = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    annotations = {
        name: {"Rating": rating, "Rationale": "because"}
        for name, rating in zip(aspects, ratings, strict=False)
    }
    return {"model": model, "response": response, "annotations": annotations}


def read(folder: Path, rows: list[Row], **settings: Any) -> RatedSet:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_rated_set(str(path), **settings)


def pairs(given: RatedSet) -> list[tuple[Any, ...]]:
    return given.pairs.select("first", "second", "is_tie", "gap").rows()


VLFEEDBACK: Row = {
    "id": "1",
    "prompt": "what is it?",
    "img_path": "a.png",
    "completions": [
        rated("a cat", "5", "5", "5"),
        rated("a dog", "4", "4", "5"),
        rated("a cow", "4", "4", "4"),
        rated("a hen", "4", "5", "4"),
        rated("a fox", "N/A", "N/A", "N/A"),
    ],
}


def test_ratings_far_apart_are_pairs_and_equal_ones_ties(folder: Path) -> None:
    given = read(folder, [VLFEEDBACK])
    # Means: cat 5, dog and hen 13/3, cow 4: dog and hen are 1/3 from cow, which is too close.
    assert pairs(given) == [
        ("a cat", "a dog", False, pytest.approx(2 / 3)),
        ("a cat", "a cow", False, 1.0),
        ("a cat", "a hen", False, pytest.approx(2 / 3)),
        ("a dog", "a hen", True, 0.0),
    ]
    assert given.close == 2
    assert given.images["image"].to_list()[0]["path"] == str((folder / "a.png").resolve())
    assert given.pairs["question_id"].n_unique() == 1


def test_the_better_answer_is_first_whatever_the_order(folder: Path) -> None:
    turned = {**VLFEEDBACK, "completions": VLFEEDBACK["completions"][:3][::-1]}
    assert {row[:2] for row in pairs(read(folder, [turned]))} == {
        ("a cat", "a dog"),
        ("a cat", "a cow"),
    }


def test_a_wider_gap_leaves_more_out(folder: Path) -> None:
    given = read(folder, [VLFEEDBACK], min_gap=0.9)
    assert [row[:2] for row in pairs(given)] == [("a cat", "a cow"), ("a dog", "a hen")]
    assert given.close == 4
    # A gap as wide as the threshold is not wider than it.
    assert read(folder, [VLFEEDBACK], min_gap=1.0).close == 5


def test_the_hub_s_parquet_has_a_struct_of_lists(folder: Path) -> None:
    rows = VLFEEDBACK["completions"]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    table = pl.DataFrame([{**VLFEEDBACK, "completions": columns}])
    table.write_parquet(folder / "data.parquet")
    given = read_rated_set(str(folder / "data.parquet"))
    assert pairs(given) == pairs(read(folder, [VLFEEDBACK]))


def test_ultrafeedback_s_overall_score_serves_where_no_aspect_is_rated(folder: Path) -> None:
    row = {
        "instruction": "what?",
        "image": "a.png",
        "completions": [
            {"response": "good", "overall_score": 8.5},
            {"response": "bad", "overall_score": "3"},
            {"response": "nothing"},
        ],
    }
    assert pairs(read(folder, [row])) == [("good", "bad", False, 5.5)]


@pytest.mark.parametrize("preference", [2, "2", 2.0, "output_2"])
def test_two_outputs_of_llava_rlhf(folder: Path, preference: Any) -> None:
    row = {
        "id": 7,
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nwhat?"}],
        "output_1": {"from": "llava", "value": "red"},
        "output_2": {"from": "llava", "value": "blue"},
        "preference": preference,
    }
    given = read(folder, [row])
    assert pairs(given) == [("blue", "red", False, None)]
    assert given.pairs["question"].to_list() == ["what?"]


def test_chosen_and_rejected_and_rlhf_v_s_text(folder: Path) -> None:
    plain = {"image": "a.png", "question": "what?", "chosen": "red", "rejected": ["x", "y"]}
    assert pairs(read(folder, [plain])) == [("red", "x", False, None), ("red", "y", False, None)]
    text = json.dumps({"question": "what?", "chosen": "red", "rejected": "x"})
    given = read(folder, [{"image": "a.png", "text": text}])
    assert pairs(given) == [("red", "x", False, None)]


def test_judgements_of_llava_critic_as_they_are(folder: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nGrade this: red"},
        {"from": "gpt", "value": "Score: 7\nIt is."},
    ]
    several = [*turns, *turns]
    given = read(
        folder,
        [{"id": "1", "image": "a.png", "conversations": each} for each in (turns, several)],
    )
    assert given.pairs.is_empty()
    assert given.written.select("prompt", "response").rows() == [
        ("Grade this: red", "Score: 7\nIt is.")
    ]
    assert given.set_aside.rows() == [("1", "not one prompt and one reply")]


def test_every_broken_row_is_set_aside_with_its_reason(folder: Path) -> None:
    output = {"image": "a.png", "question": "q?", "output_1": "a", "output_2": "b"}
    broken = [
        ({**output, "preference": 3}, "no preference: 3"),
        ({**output, "preference": None}, "no preference: None"),
        ({**output, "output_2": " A", "preference": 1}, "both answers are the same"),
        ({**output, "output_1": "", "preference": 1}, "no output_1"),
        ({**output, "question": None, "preference": 1}, "no question"),
        ({**output, "image": "missing.png", "preference": 1}, "unusable image"),
        ({**output, "image": "../outside.png", "preference": 1}, "unusable image: outside"),
    ]
    given = read(folder, [row for row, _ in broken] + [{**output, "preference": 1}])
    assert len(given.pairs) == 1
    for (_, reason), found in zip(broken, given.set_aside["reason"], strict=True):
        assert found.startswith(reason)
    assert given.set_aside["id"].to_list() == [f"row {n}" for n in range(1, 8)]


@pytest.mark.parametrize(
    ("completions", "reason"),
    [
        ([rated("one", "5")], "fewer than two rated answers"),
        ([rated("one", "5"), rated(" ONE ", "3")], "fewer than two rated answers"),
        ("none", "completions are no list"),
        ([rated(f"{n}", str(n)) for n in range(65)], "too many answers: 65, at most 64"),
    ],
)
def test_ratings_that_make_no_pair(folder: Path, completions: Any, reason: str) -> None:
    with pytest.raises(PeeralignError, match=f"no usable row: 1 was set aside for '{reason}'"):
        read(folder, [{**VLFEEDBACK, "completions": completions}])


def test_files_that_cannot_be_used(folder: Path) -> None:
    for row, said in (
        ({"question": "q?", "chosen": "a"}, "has no column 'image', only question, chosen"),
        ({"image": "a.png", "answer": "x"}, "of no known layout: its columns are image, answer"),
    ):
        with pytest.raises(PeeralignError, match=said):
            read(folder, [row])
    with pytest.raises(PeeralignError, match="the file does not exist"):
        read_rated_set(str(folder / "none.jsonl"))
    with pytest.raises(PeeralignError, match="set image_root"):
        read(folder, [VLFEEDBACK], image_root=str(folder / "none"))
