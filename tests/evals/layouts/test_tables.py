"""Published files as rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from evals.standins import base64_of, cell, png, write_shard, write_tsv

from peeralign.errors import PeeralignError
from peeralign.evals.layouts.tables import open_table


def rows(file: Path) -> list[dict[str, Any]]:
    return list(open_table(file)[1])


def test_parquet_of_several_batches(tmp_path: Path) -> None:
    file = tmp_path / "a[0].parquet"
    write_shard(file, [{"n": n, "image": cell("red")} for n in range(300)])
    columns, found = open_table(file)
    assert columns == ["n", "image"]
    found = list(found)
    assert [row["n"] for row in found] == list(range(300))
    assert found[299]["image"]["bytes"] == png("red")


def test_a_broken_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(PeeralignError, match=r"a\.parquet cannot be read as parquet \("):
        open_table(file)


def test_tsv(tmp_path: Path) -> None:
    table = [
        {"index": 7, "question": 'two\nlines\tand "quotes"', "hint": None, "image": "8"},
        {"index": 8, "question": "None", "hint": "h", "image": base64_of("red")},
    ]
    found = rows(write_tsv(tmp_path / "a.tsv", table))
    assert found == [
        {"index": "7", "question": 'two\nlines\tand "quotes"', "hint": None, "image": [png("red")]},
        {"index": "8", "question": "None", "hint": "h", "image": [png("red")]},
    ]


def test_images_of_a_tsv(tmp_path: Path) -> None:
    several = str([base64_of("red"), base64_of("blue")])
    table = [
        {"index": 0, "image": several, "image_path": None},
        {"index": 1, "image": None, "image_path": "a.jpg"},
        {"index": 2, "image": None, "image_path": "['a.jpg', 'b.jpg']"},
        {"index": 3, "image": "@" * 100, "image_path": None},
        {"index": 4, "image": "99", "image_path": None},
        {"index": 5, "image": None, "image_path": None},
    ]
    found = [row["image"] for row in rows(write_tsv(tmp_path / "a.tsv", table))]
    assert found == [
        [png("red"), png("blue")],
        ["a.jpg"],
        ["a.jpg", "b.jpg"],
        [b"not base64"],
        # No row has that index.
        None,
        None,
    ]


def test_several_large_images_of_a_tsv(tmp_path: Path) -> None:
    images = str(["QUJD" * 500_000] * 2)
    found = rows(write_tsv(tmp_path / "a.tsv", [{"index": 0, "image": images}]))
    assert [len(image) for image in found[0]["image"]] == [1_500_000] * 2


def test_large_fields_leave_the_csv_module_as_it_was(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    file = write_tsv(tmp_path / "a.tsv", [{"index": 0, "hint": "x" * (limit + 10)}])
    assert len(rows(file)[0]["hint"]) == limit + 10
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"index\tquestion\n1\n", "has 1 fields at row 2, and 2 columns; "),
        (b"index\tquestion\n1\t\xff\n", r"cannot be read as tsv \("),
    ],
)
def test_a_broken_tsv(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_bytes(content)
    with pytest.raises(PeeralignError, match=why):
        rows(file)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"a": 1}, {"b": 2}], [{"a": 1, "b": None}, {"a": None, "b": 2}]),
        ({"data": [{"a": 1}], "version": 1}, [{"a": 1}]),
        ({"questions": [{"a": 1}], "question_type": {"x": 1}}, [{"a": 1}]),
        ({"17": {"a": 1}, "18": {"id": "x"}}, [{"id": "17", "a": 1}, {"id": "x", "a": None}]),
        ({"a": 1}, [{"a": 1}]),
    ],
)
def test_shapes_of_json(value: Any, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(value))
    assert rows(file) == expected


def test_json_lines_by_either_name(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text('{"a": 1}\n{"a": 2, "b": 3}\n')
        columns, found = open_table(tmp_path / name)
        assert columns == ["a", "b"]
        # Every row has every key.
        assert list(found) == [{"a": 1, "b": None}, {"a": 2, "b": 3}]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[1, 2]", "is neither a list of objects nor an object of objects"),
        ("{}", "is neither a list of objects nor an object of objects"),
        ('{"a": 1', r"cannot be read as json \("),
        ('{"a": 1}\n[2]\n', r"cannot be read as json \("),
    ],
)
def test_broken_json(content: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(PeeralignError, match=why):
        open_table(file)


def test_lines_of_text(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\tYes\n\ntwo\tNo\n")
    assert rows(file) == [{"line": "one\tYes"}, {"line": "two\tNo"}]
