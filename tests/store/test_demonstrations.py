"""Instruction data: two layouts, two file formats, and files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from peeralign.classroom.lessons import lessons
from peeralign.errors import PeeralignError
from peeralign.records import DEMONSTRATION_SCHEMA
from peeralign.store.demonstrations import read_demonstrations

FLAT = [
    {"image": "a.png", "prompt": "what?", "response": "red"},
    {"image": "sub/b.png", "prompt": "how many?", "response": "2"},
]
NESTED = [
    {
        "image": "a.png",
        "exchanges": [
            {"prompt": "what?", "response": "red"},
            {"prompt": "how many?", "response": "2"},
        ],
    },
    {"image": "b.png", "exchanges": [{"prompt": "where?", "response": "left"}]},
]


def jsonl(folder: Path, rows: list[Any]) -> str:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def parquet(folder: Path, table: pl.DataFrame) -> str:
    path = folder / "data.parquet"
    table.write_parquet(path)
    return str(path)


def exchanges(table: pl.DataFrame) -> list[list[tuple[str, str]]]:
    return [[(e["prompt"], e["response"]) for e in row] for row in table["exchanges"]]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_flat_rows(tmp_path: Path, kind: str) -> None:
    path = jsonl(tmp_path, FLAT) if kind == "jsonl" else parquet(tmp_path, pl.DataFrame(FLAT))
    table = read_demonstrations(path)
    assert table.schema == DEMONSTRATION_SCHEMA
    assert exchanges(table) == [[("what?", "red")], [("how many?", "2")]]
    assert table["image"].to_list() == [
        {"bytes": None, "path": str(tmp_path / "a.png")},
        {"bytes": None, "path": str(tmp_path / "sub" / "b.png")},
    ]
    assert table["id"].n_unique() == 2


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_with_exchanges(tmp_path: Path, kind: str) -> None:
    path = jsonl(tmp_path, NESTED) if kind == "jsonl" else parquet(tmp_path, pl.DataFrame(NESTED))
    assert exchanges(read_demonstrations(path)) == [
        [("what?", "red"), ("how many?", "2")],
        [("where?", "left")],
    ]


def test_one_exchange_a_row(tmp_path: Path) -> None:
    table = read_demonstrations(jsonl(tmp_path, NESTED), one_exchange_a_row=True)
    assert table.schema == DEMONSTRATION_SCHEMA
    assert exchanges(table) == [[("what?", "red")], [("how many?", "2")], [("where?", "left")]]
    names = [Path(image["path"]).name for image in table["image"]]
    assert names == ["a.png", "a.png", "b.png"]


def test_images_in_the_table(tmp_path: Path) -> None:
    image = {"bytes": b"png", "path": None}
    rows = pl.DataFrame([{"image": image, "prompt": "what?", "response": "red"}])
    table = read_demonstrations(parquet(tmp_path, rows))
    assert table["image"].to_list() == [image]


def test_the_classroom_s_lessons_come_back_as_they_were(tmp_path: Path) -> None:
    drawn = lessons(0, 3)
    assert read_demonstrations(parquet(tmp_path, drawn)).equals(drawn)


def test_ids_are_kept_or_made(tmp_path: Path) -> None:
    named = [{**row, "id": number} for number, row in enumerate(FLAT, start=7)]
    assert read_demonstrations(jsonl(tmp_path, named))["id"].to_list() == ["7", "8"]
    made = read_demonstrations(jsonl(tmp_path, FLAT))["id"]
    assert made.equals(read_demonstrations(jsonl(tmp_path, FLAT))["id"])


def test_the_order_of_the_keys_and_other_keys_do_not_matter(tmp_path: Path) -> None:
    rows = [
        {
            "source": "mine",
            "exchanges": [{"response": "red", "score": 1, "prompt": "what?"}],
            "image": "a.png",
        }
    ]
    assert exchanges(read_demonstrations(jsonl(tmp_path, rows))) == [[("what?", "red")]]


def test_a_first_row_like_no_other_is_read(tmp_path: Path) -> None:
    """A JSONL file's types must not be guessed from its first hundred lines."""
    rows = [{"image": "a.png", "prompt": "p", "response": "r", "note": None}] * 150
    rows.append({"image": "a.png", "prompt": "p", "response": "r", "note": "late"})  # type: ignore[dict-item]
    assert len(read_demonstrations(jsonl(tmp_path, rows))) == 151


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PeeralignError, match=r"no instruction data at .*none\.jsonl"):
        read_demonstrations(str(tmp_path / "none.jsonl"))
    with pytest.raises(PeeralignError, match="no instruction data"):
        read_demonstrations(str(tmp_path))


@pytest.mark.parametrize("name", ["data.parquet", "data.jsonl"])
@pytest.mark.parametrize("content", [b"", b"no data", b"{", b"\xff\xfe\x00"])
def test_a_file_that_is_damaged(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PeeralignError, match=name):
        read_demonstrations(str(tmp_path / name))


@pytest.mark.parametrize(
    ("lost", "layout"),
    [("image", FLAT), ("prompt", FLAT), ("response", FLAT), ("image", NESTED)],
)
def test_a_missing_column_is_named(tmp_path: Path, lost: str, layout: list[dict[str, Any]]) -> None:
    rows = [{key: value for key, value in row.items() if key != lost} for row in layout]
    with pytest.raises(PeeralignError, match=rf"data\.jsonl has no column '{lost}'"):
        read_demonstrations(jsonl(tmp_path, rows))


def test_no_rows(tmp_path: Path) -> None:
    empty = pl.DataFrame(schema=DEMONSTRATION_SCHEMA)
    with pytest.raises(PeeralignError, match=r"data\.parquet holds no instruction data"):
        read_demonstrations(parquet(tmp_path, empty))


GOOD = {"image": "a.png", "exchanges": [{"prompt": "what?", "response": "red"}]}


@pytest.mark.parametrize(
    "rows",
    [
        [{**GOOD, "exchanges": "what? red"}],
        [{**GOOD, "exchanges": [{"prompt": "what?"}]}],
        [GOOD, {**GOOD, "exchanges": []}],
        [GOOD, {**GOOD, "exchanges": None}],
        [GOOD, {**GOOD, "exchanges": [{"prompt": "what?", "response": None}]}],
        [GOOD, {**GOOD, "exchanges": [{"prompt": None, "response": "red"}]}],
        [GOOD, {**GOOD, "image": None}],
        [{**GOOD, "image": ["a.png"]}],
        [{**GOOD, "image": 3}],
        [FLAT[0], {**FLAT[0], "response": None}],
        [FLAT[0], {**FLAT[0], "prompt": None}],
    ],
    ids=[
        "exchanges are text",
        "exchanges lack the response",
        "an empty list of exchanges",
        "no exchanges",
        "a response is null",
        "a prompt is null",
        "an image is null",
        "image is a list",
        "image is a number",
        "a flat response is null",
        "a flat prompt is null",
    ],
)
def test_rows_that_cannot_be_learnt_from_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    with pytest.raises(PeeralignError, match=r"data\.jsonl"):
        read_demonstrations(jsonl(tmp_path, rows))
