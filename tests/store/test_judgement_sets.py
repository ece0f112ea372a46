"""Published sets that judges are measured on, by stand-in files of their layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from store.pictures import picture

from peeralign.errors import PeeralignError
from peeralign.evals.judge_eval import judge_eval
from peeralign.store.judgement_sets import (
    JUDGEMENT_SET_SCHEMA,
    in_both_orders,
    read_judgement_set,
    verdict_rows,
)
from peeralign.store.verdicts import read_pairs, read_rankings, read_scores

Row = dict[str, Any]
ABOUT: Row = {
    "id": 7,
    "image_path": "a.png",
    "original_dataset": "coco",
    "instruction": "what is it?",
}
SCORE: Row = {**ABOUT, "score_id": 70, "name": "llava", "answer": "a cat", "human": "4"}
PAIR: Row = {
    **ABOUT,
    "pair_id": 71,
    "answer1": {"name": "llava", "answer": "a cat"},
    "answer2": {"name": "gemini", "answer": "a dog"},
    "human_answer": "A",
}
BATCH: Row = {
    **ABOUT,
    "image_path": "sub/c.png",
    "answers": [{"name": name, "answer": f"{name}'s"} for name in ("llava", "cogvlm", "gpt4")],
    "human_answer": "CAB",
}
REWARD: Row = {
    "id": "RLAIF-V-14",
    "query": "<image>\nwhat is it?",
    "response": ["a cat", "a dog"],
    "human_ranking": [1, 0],
    "models": ["M-12B", "M-12B"],
    "query_source": "TextVQA",
    "rationale": None,
}
MULTIMODAL: Row = {
    "ID": "math_1",
    "Text": "how many?",
    "Image": "images/a.png",
    "Output1": "one",
    "Output2": "two",
    "Better": "Output2",
    "Category": "reasoning",
}


def jsonl(folder: Path, *rows: Row) -> Path:
    (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "set.jsonl"


def only(table: pl.DataFrame) -> Row:
    assert table.schema == JUDGEMENT_SET_SCHEMA
    (row,) = table.iter_rows(named=True)
    return row


def test_mllm_as_a_judge_scores(folder: Path) -> None:
    table, set_aside = read_judgement_set(jsonl(folder, SCORE))
    assert only(table) == {
        "id": "70",
        "item": "7",
        "set": "coco",
        "image": {"bytes": None, "path": str(folder / "a.png")},
        "question": "what is it?",
        "models": ["llava"],
        "answers": ["a cat"],
        "score": 4.0,
        "verdict": None,
        "ranking": None,
    }
    assert set_aside.is_empty()


@pytest.mark.parametrize(("said", "verdict"), [("A", "A"), ("B", "B"), ("C", "tie")])
def test_mllm_as_a_judge_pairs(folder: Path, said: str, verdict: str) -> None:
    row = only(read_judgement_set(jsonl(folder, {**PAIR, "human_answer": said}))[0])
    assert (row["id"], row["item"], row["verdict"]) == ("71", "7", verdict)
    assert row["models"] == ["llava", "gemini"]
    assert row["answers"] == ["a cat", "a dog"]
    assert row["score"] is None


def test_mllm_as_a_judge_batches(folder: Path) -> None:
    row = only(read_judgement_set(jsonl(folder, BATCH))[0])
    assert row["models"] == ["llava", "cogvlm", "gpt4"]
    assert row["ranking"] == ["gpt4", "llava", "cogvlm"]
    assert row["id"] == "7"


@pytest.mark.parametrize(("ranks", "verdict"), [([0, 1], "A"), ([1, 0], "B"), ([0, 0], "tie")])
def test_vl_rewardbench_from_the_hub(folder: Path, ranks: list[int], verdict: str) -> None:
    image = {"bytes": picture(), "path": None}
    rows = [{**REWARD, "image": image, "human_ranking": ranks}]
    pl.DataFrame(rows).write_parquet(folder / "test.parquet")
    row = only(read_judgement_set(folder / "test.parquet")[0])
    assert row["image"] == image
    assert (row["id"], row["set"], row["verdict"]) == ("RLAIF-V-14", "hallucination", verdict)
    assert row["models"] == ["M-12B", "M-12B"]
    assert row["question"] == "what is it?"


@pytest.mark.parametrize(
    ("own_id", "group"),
    [
        ("wildvision-battle_0", "general"),
        ("LRVInstruction-000000007746", "general"),
        ("hallucination_pair-12", "hallucination"),
        ("RLAIF-V-14", "hallucination"),
        ("RLHF-V-14", "hallucination"),
        ("mathverse_12", "reasoning"),
        ("mmmu_pro-12", "reasoning"),
        ("mmmus_1", "general"),
    ],
)
def test_vl_rewardbench_s_groups(folder: Path, own_id: str, group: str) -> None:
    assert only(read_judgement_set(jsonl(folder, {**REWARD, "id": own_id}))[0])["set"] == group


def test_vl_rewardbench_from_its_repository(folder: Path) -> None:
    row = only(read_judgement_set(jsonl(folder, {**REWARD, "image_path": "images/x.jpg"}))[0])
    assert row["image"] is None
    assert row["verdict"] == "B"
    unnamed = {**REWARD, "models": None}
    assert only(read_judgement_set(jsonl(folder, unnamed))[0])["models"] == ["first", "second"]


@pytest.mark.parametrize(
    ("category", "own_id", "name"),
    [
        ("reasoning", "math_1", "reasoning/math"),
        ("reasoning", "emma_1", "reasoning/coding"),
        ("safety", "PAIRS_1", "safety/bias"),
        ("safety", "memes_1", "safety/toxicity"),
        ("vqa", "vqa_1", "vqa"),
    ],
)
def test_multimodal_rewardbench(folder: Path, category: str, own_id: str, name: str) -> None:
    (folder / "images").symlink_to(folder)
    path = folder / "all_data.json"
    path.write_text(json.dumps([{**MULTIMODAL, "Category": category, "ID": own_id}]))
    row = only(read_judgement_set(path)[0])
    assert (row["id"], row["set"], row["verdict"]) == (own_id, name, "B")
    assert row["answers"] == ["one", "two"]
    assert row["image"]["path"] == str(folder / "a.png")


def test_images_may_be_missing_unless_they_are_needed(folder: Path) -> None:
    rows = [SCORE, {**SCORE, "image_path": "none.png"}, {**SCORE, "image_path": "../outside.png"}]
    path = jsonl(folder, *rows)
    table, set_aside = read_judgement_set(path)
    assert [image is None for image in table["image"].to_list()] == [False, True, True]
    assert set_aside.is_empty()
    table, set_aside = read_judgement_set(path, need_images=True)
    assert len(table) == 1
    assert set_aside["id"].to_list() == ["row 2", "row 3"]
    assert set_aside["reason"][0].startswith("unusable image: no image file at")
    assert set_aside["reason"][1].startswith("unusable image: outside the image root")
    apart = read_judgement_set(path, image_root=folder / "sub", need_images=False)[0]
    assert apart["image"].null_count() == 3
    with pytest.raises(PeeralignError, match=r"no folder at .*; set image_root"):
        read_judgement_set(path, image_root=folder / "none")


def test_images_that_cannot_be_opened_are_set_aside_if_they_are_needed(folder: Path) -> None:
    (folder / "broken.png").write_bytes(picture()[:40])
    (folder / "large.png").write_bytes(picture(size=(30, 30)))
    rows = [{**SCORE, "image_path": f"{name}.png"} for name in ("a", "broken", "large", "sub/c")]
    path = jsonl(folder, *rows)
    assert len(read_judgement_set(path)[0]) == 4
    table, set_aside = read_judgement_set(path, need_images=True, max_image_pixels=100)
    assert [image["path"] for image in table["image"].to_list()] == [
        str(folder / "a.png"),
        str(folder / "sub" / "c.png"),
    ]
    assert set_aside["id"].to_list() == ["row 2", "row 3"]
    assert set_aside["reason"][0].startswith("unusable image: not a PNG")
    assert set_aside["reason"][1].startswith("unusable image: 30x30 pixels, more than the limit")


@pytest.mark.parametrize(
    ("row", "change", "reason"),
    [
        (SCORE, {"human": None}, "no score: None"),
        (SCORE, {"human": "good"}, "no score: 'good'"),
        (SCORE, {"human": "6"}, "score out of range: 6"),
        (SCORE, {"human": "nan"}, "score out of range: nan"),
        (SCORE, {"name": None}, "an answer of nobody"),
        (SCORE, {"answer": " "}, "no answer"),
        (SCORE, {"instruction": "<image>"}, "no instruction"),
        (PAIR, {"human_answer": "D"}, "no verdict: 'D'"),
        (PAIR, {"answer2": "a dog"}, "an answer of nobody"),
        (BATCH, {"human_answer": "CA"}, "no ranking of its answers: 'CA'"),
        (BATCH, {"human_answer": "CAA"}, "no ranking of its answers"),
        (BATCH, {"answers": []}, "no ranking of its answers"),
        (BATCH, {"answers": BATCH["answers"][:1] * 3}, "two answers of one model"),
        (REWARD, {"human_ranking": [0]}, "no ranking of two"),
        (REWARD, {"human_ranking": [True, False]}, "no ranking of two"),
        (REWARD, {"response": ["a"]}, "not two answers"),
        (REWARD, {"query": None}, "no query"),
        (MULTIMODAL, {"Better": "both"}, "no verdict: 'both'"),
        (MULTIMODAL, {"Output1": None}, "no answer"),
    ],
)
def test_what_is_set_aside(folder: Path, row: Row, change: Row, reason: str) -> None:
    table, set_aside = read_judgement_set(jsonl(folder, {**row, **change}, row))
    assert len(table) == 1
    assert set_aside.rows()[0][0] == "row 1"
    assert reason in set_aside.rows()[0][1]
    with pytest.raises(PeeralignError, match="no usable row: row 1 was set aside"):
        read_judgement_set(jsonl(folder, {**row, **change}))


def test_files_that_are_none(folder: Path) -> None:
    for name, content, said in [
        ("x.jsonl", "", "of no known layout"),
        ("x.jsonl", '{"a": 1}', "its columns are a"),
        ("x.json", "{", "cannot be read as json"),
        ("x.json", '{"a": 1}', "no list of objects"),
        ("x.csv", "a,b", "of an unknown kind"),
        ("x.parquet", "no", "cannot be read as parquet"),
    ]:
        (folder / name).write_text(content)
        with pytest.raises(PeeralignError, match=said) as caught:
            read_judgement_set(folder / name)
        assert "\n" not in str(caught.value)
    for path in (folder, folder / "none.jsonl"):
        with pytest.raises(PeeralignError, match="no judgement set at"):
            read_judgement_set(path)


def test_repeated_ids_are_told_apart(folder: Path) -> None:
    rows = [PAIR, {**PAIR, "pair_id": 72, "answer2": {"name": "gpt4", "answer": "a cow"}}, PAIR]
    table = read_judgement_set(jsonl(folder, *rows))[0]
    assert table["id"].to_list() == ["71/1", "72", "71/3"]
    # Two pairs of one question stay together, unless their models are the same.
    assert table["item"].to_list() == ["7/71/1", "7", "7/71/3"]
    bare = [{**row, "id": None, "pair_id": None} for row in rows]
    assert read_judgement_set(jsonl(folder, *bare))[0]["id"].to_list() == ["1", "2", "3"]


def test_rows_that_would_repeat_each_other_as_verdicts_are_told_apart(folder: Path) -> None:
    # Shown in both orders, one pair of models is the other.
    reversed_pair = {**PAIR, "pair_id": 72, "answer1": PAIR["answer2"], "answer2": PAIR["answer1"]}
    table = in_both_orders(read_judgement_set(jsonl(folder, PAIR, reversed_pair))[0])
    assert len(read_pairs(said(folder, verdict_rows(table, {})))) == 4
    # Rankings are told apart by their item alone.
    other = {**BATCH, "answers": BATCH["answers"][:2], "human_answer": "BA"}
    table = read_judgement_set(jsonl(folder, BATCH, other))[0]
    assert table["item"].to_list() == ["7/7/1", "7/7/2"]
    assert len(read_rankings(said(folder, verdict_rows(table, {})))) == 2


def said(folder: Path, rows: list[Row]) -> Path:
    (folder / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "said.jsonl"


def test_pairs_in_both_orders_and_back_to_verdicts(folder: Path) -> None:
    rows = [REWARD, {**REWARD, "id": "other"}, {**REWARD, "id": "third"}]
    table = in_both_orders(read_judgement_set(jsonl(folder, *rows))[0])
    assert table["id"].to_list()[:4] == ["RLAIF-V-14", "other", "third", "RLAIF-V-14/swapped"]
    assert table["answers"].to_list()[3] == ["a dog", "a cat"]
    assert table["verdict"].to_list() == ["B", "B", "B", "A", "A", "A"]
    always_first = dict.fromkeys(table["id"].to_list()[:5], "A")
    pairs = read_pairs(said(folder, verdict_rows(table, always_first)))
    figures = judge_eval(pairs=pairs)
    assert figures["accuracy_with_ties"] == pytest.approx(2 / 5)
    assert figures["first_position_share"] == 1.0
    assert figures["order_consistency"] == 0.0
    assert figures["coverage"] == pytest.approx(5 / 6, abs=1e-6)


def test_scores_and_rankings_back_to_verdicts(folder: Path) -> None:
    rows = [SCORE, {**SCORE, "score_id": 72, "name": "gpt4", "human": 2}]
    table = read_judgement_set(jsonl(folder, *rows))[0]
    assert in_both_orders(table).equals(table)
    scores = read_scores(said(folder, verdict_rows(table, {"70": 9, "72": 1.5})))
    assert scores.select("item", "model", "score", "reference").rows() == [
        ("7", "llava", 9.0, 4.0),
        ("7", "gpt4", 1.5, 2.0),
    ]
    table = read_judgement_set(jsonl(folder, BATCH))[0]
    rankings = read_rankings(said(folder, verdict_rows(table, {"7": ["gpt4", "cogvlm", "llava"]})))
    assert judge_eval(rankings=rankings)["ranking_distance"] == pytest.approx(2 / 3, abs=1e-6)


def test_what_is_said_of_black_images_stands_beside(folder: Path) -> None:
    table = read_judgement_set(jsonl(folder, SCORE))[0]
    (row,) = verdict_rows(table, {"70": 3}, {"70": 1.5})
    assert (row["score"], row["score_without_image"]) == (3, 1.5)
    (row,) = verdict_rows(table, {"70": 3}, {})
    assert row["score_without_image"] is None
    assert "score_without_image" not in verdict_rows(table, {"70": 3})[0]
    table = read_judgement_set(jsonl(folder, PAIR))[0]
    assert verdict_rows(table, {}, {"71": "tie"})[0]["verdict_without_image"] == "tie"
    table = read_judgement_set(jsonl(folder, BATCH))[0]
    black = ["gpt4", "llava", "cogvlm"]
    assert verdict_rows(table, {}, {"7": black})[0]["ranking_without_image"] == black
