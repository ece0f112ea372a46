"""A user's own answers: what is read, what is set aside, and what a file must have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from store.pictures import picture

from peeralign.errors import PeeralignError
from peeralign.store.answers import ASKED_SCHEMA, ONE, TWO, GivenAnswers, read_answers, read_key


def written(folder: Path, rows: list[dict[str, Any]], name: str = "answers.jsonl") -> str:
    path = folder / name
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(**changes: Any) -> dict[str, Any]:
    return {"image": "a.png", "question": "what?", "answer": "a cat", **changes}


def read(folder: Path, *rows: dict[str, Any], reference: bool = False) -> GivenAnswers:
    return read_answers(written(folder, list(rows)), ONE, reference)


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.parquet", "answers.json"])
def test_rows_are_read_in_their_order(folder: Path, name: str) -> None:
    rows = [row(id="one"), row(id="two", image="b.png"), row(id="three", answer="a dog")]
    given = read_answers(written(folder, rows, name), ONE, False)
    assert given.rows["row"].to_list() == [1, 2, 3]
    assert given.rows["id"].to_list() == ["one", "two", "three"]
    assert given.rows["answer"].to_list() == ["a cat", "a cat", "a dog"]
    # One image and one question are one question.
    ids = given.rows["question_id"].to_list()
    assert ids[0] == ids[2] != ids[1]
    assert given.questions.schema == ASKED_SCHEMA
    assert given.questions["id"].to_list() == [ids[0], ids[1]]
    assert given.questions["reference"].to_list() == [None, None]
    assert given.set_aside.is_empty()


def test_two_answers_and_a_reference(folder: Path) -> None:
    two = {"answer_a": "a cat", "answer_b": "a dog", "reference": "an animal"}
    rows = [row(**two), row(**{**two, "reference": "a pet"})]
    given = read_answers(written(folder, rows), TWO, True)
    assert given.rows.columns == ["row", "id", "question_id", "answer_a", "answer_b"]
    assert given.questions["reference"].to_list() == ["an animal", "a pet"]
    # Unasked for, it makes no difference.
    plain = read_answers(written(folder, rows), TWO, False)
    assert plain.questions["reference"].to_list() == [None]


def test_images_may_be_bytes_and_prompts_conversations(folder: Path) -> None:
    image = {"bytes": picture(), "path": None}
    rows = [
        {"image": image, "prompt": "<image>\nwhat?", "answer": "a cat"},
        {"image": image, "prompt": "what?", "answer": "a dog"},
    ]
    given = read_answers(written(folder, rows, "x.parquet"), ONE, False)
    assert given.questions["text"].to_list() == ["what?"]
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    given = read(folder, row(question=turns, answer={"role": "assistant", "content": "a cat"}))
    assert given.rows["answer"].to_list() == ["a cat"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": "none.png"}, "unusable image: no image file at "),
        ({"image": "../outside.png"}, "unusable image: outside the image root: "),
        ({"image": None}, "no image"),
        ({"image": 7}, "image is neither a path nor an encoded image"),
        ({"image": ["a.png", "b.png"]}, "several images"),
        ({"question": None}, "no question"),
        ({"question": " "}, "no question"),
        ({"question": 3}, "the question is neither text nor a conversation"),
        ({"question": "<image> and <image>?"}, "several images"),
        ({"answer": None}, "no answer"),
        ({"answer": ""}, "no answer"),
        ({"answer": ["a", "b"]}, "the answer is neither text nor a conversation"),
        ({"answer": {"role": "user", "content": "x"}}, "the answer is no single turn"),
    ],
)
def test_a_broken_row_is_set_aside_with_its_reason(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    given = read(folder, row(id="good"), row(id="bad", **changes), row(id="last"))
    assert given.rows["id"].to_list() == ["good", "last"]
    assert given.rows["row"].to_list() == [1, 3]
    ((number, name, why),) = given.set_aside.rows()
    assert (number, name) == (2, "bad")
    assert why.startswith(reason)


def test_a_row_without_its_reference_is_set_aside(folder: Path) -> None:
    given = read(folder, row(reference="x"), row(), row(reference="  "), reference=True)
    assert given.set_aside.select("row", "reason").rows() == [
        (2, "no reference"),
        (3, "no reference"),
    ]


def test_a_broken_picture_is_found_before_anybody_judges(folder: Path) -> None:
    (folder / "torn.png").write_bytes(picture()[:40])
    given = read(folder, row(), row(image="torn.png"))
    assert len(given.rows) == 1
    assert given.set_aside["reason"][0].startswith("unusable image: ")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no rows; needed are image (or images)"),
        ([{"image": "a.png", "question": "?"}], "has no column 'answer', only image, question"),
        ([{"image": "a.png", "question": "?", "anser": "x"}], "did you mean 'anser'?"),
        ([{"image": "a.png", "answer": "?"}], "has no column 'question'"),
        ([{"question": "?", "answer": "x"}], "has no column 'image'"),
        ([row(answer="")], "holds no usable row: row 1: no answer; needed are"),
    ],
)
def test_a_file_that_cannot_be_judged(folder: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(PeeralignError) as caught:
        read(folder, *rows)
    assert said in str(caught.value)


def test_files_that_are_none(folder: Path) -> None:
    for path, said in ((folder / "no.jsonl", "does not exist"), (folder, "it is a folder")):
        with pytest.raises(PeeralignError, match=said):
            read_answers(str(path), ONE, False)
    (folder / "x.csv").write_text("image,question,answer\n")
    with pytest.raises(PeeralignError, match="unknown kind"):
        read_answers(str(folder / "x.csv"), ONE, False)
    (folder / "x.jsonl").write_text('{"image": \n')
    with pytest.raises(PeeralignError, match="at line 1"):
        read_answers(str(folder / "x.jsonl"), ONE, False)
    with pytest.raises(PeeralignError, match="set image_root"):
        read_answers(written(folder, [row()]), ONE, False, image_root=str(folder / "none"))


def test_the_digest_is_of_what_is_judged(folder: Path) -> None:
    one = read(folder, row(id="x"), row(answer="a dog")).digest
    assert read(folder, row(id="y"), row(answer="a dog")).digest == one
    assert read(folder, row(), row(answer="a dot")).digest != one
    assert read(folder, row(), row(answer="a dog", question="who?")).digest != one
    assert read(folder, row(), row(answer="a dog", image="b.png")).digest != one


def test_a_key_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "key.jsonl"
    path.write_text('{"id": 1, "answer": 3}\n{"id": "b", "answer": null}\n')
    assert read_key(str(path)).rows() == [("1", "3")]
    path.write_text('{"id": 1, "anwser": 3}\n')
    with pytest.raises(PeeralignError, match="has no column 'answer', only id, anwser; did you"):
        read_key(str(path))
    with pytest.raises(PeeralignError, match="give a Parquet or JSONL file of id and answer"):
        read_key(str(tmp_path / "none"))
    path.write_text('{"id": 1, "answer": " "}\n')
    with pytest.raises(PeeralignError, match="holds no row with an id and an answer"):
        read_key(str(path))
