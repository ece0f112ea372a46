"""Published files as rows: Parquet, TSV with images as base64, JSON in its usual shapes, text."""

from __future__ import annotations

import base64
import binascii
import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.evals.layouts.cells import listed
from peeralign.evals.layouts.layout import Row
from peeralign.store.files import json_objects, reading

# Rows of Parquet that are in memory at a time.
_BATCH = 128
# VLMEvalKit's rule: a shorter image is the index of the row that has it.
_MAX_REFERENCE = 64
# Objects of a JSON file under which its rows lie.
_LISTS = ("data", "questions", "annotations")


def open_table(file: Path) -> tuple[list[str], Iterator[Row]]:
    """The columns of a file, and its rows. Images of a TSV are decoded; empty cells are None, and
    so is what a row of JSON lacks of the others' keys.

    Raises PeeralignError for a file that cannot be read.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        with reading(file):
            scan = pl.scan_parquet(file, glob=False, hive_partitioning=False)
            return scan.collect_schema().names(), _parquet_rows(file, scan)
    if suffix == ".tsv":
        with _tsv(file) as lines:
            return next(lines, []), _tsv_rows(file)
    if suffix == ".txt":
        with reading(file):
            lines = file.read_bytes().decode(errors="replace").splitlines()
        return ["line"], ({"line": line} for line in lines if line.strip())
    if suffix in (".jsonl", ".ndjson"):
        with reading(file):
            rows = list(json_objects(file))
    else:
        rows = _json_rows(file)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return columns, ({**dict.fromkeys(columns), **row} for row in rows)


def _parquet_rows(file: Path, scan: pl.LazyFrame) -> Iterator[Row]:
    with reading(file):
        height = scan.select(pl.len()).collect().item()
        for start in range(0, height, _BATCH):
            yield from scan.slice(start, _BATCH).collect().iter_rows(named=True)


@contextmanager
def _tsv(file: Path) -> Iterator[Iterator[list[str]]]:
    # An image is one field; the limit is the csv module's, for all files.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with reading(file), file.open(newline="", encoding="utf-8-sig") as lines:
            yield csv.reader(lines, delimiter="\t")
    except (csv.Error, UnicodeDecodeError) as error:
        raise PeeralignError(
            f"{file} cannot be read as tsv ({error}); check the file or fetch it anew"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _tsv_records(file: Path) -> Iterator[dict[str, str | None]]:
    with _tsv(file) as lines:
        names = next(lines, [])
        for number, values in enumerate(lines, start=2):
            if len(values) != len(names):
                raise PeeralignError(
                    f"{file} has {len(values)} fields at row {number}, and {len(names)} columns; "
                    "check the file or fetch it anew"
                )
            yield {name: value or None for name, value in zip(names, values, strict=True)}


def _tsv_rows(file: Path) -> Iterator[Row]:
    """Rows stream twice over a file of shared images, so that no others are held in memory."""
    shared: dict[str, list[bytes] | None] = {}
    for record in _tsv_records(file):
        image = record.get("image") or ""
        if 0 < len(image) <= _MAX_REFERENCE:
            shared[image.strip()] = None
    if shared:
        for record in _tsv_records(file):
            image, index = record.get("image") or "", record.get("index") or ""
            if index in shared and len(image) > _MAX_REFERENCE:
                shared[index] = _decoded(image)
    for record in _tsv_records(file):
        row: Row = dict(record)
        image = record.get("image")
        if image is not None:
            is_shared = len(image) <= _MAX_REFERENCE
            row["image"] = shared[image.strip()] if is_shared else _decoded(image)
        elif record.get("image_path") is not None:
            row["image"] = listed(record["image_path"])
        yield row


def _decoded(cell: str | None) -> list[bytes]:
    """The images of a cell, base64; what is none becomes bytes that no reader opens."""
    images = []
    for image in listed(cell):
        try:
            images.append(base64.b64decode(str(image), validate=True))
        except (binascii.Error, ValueError):
            images.append(b"not base64")
    return images


def _json_rows(file: Path) -> list[Row]:
    with reading(file):
        content = file.read_bytes()
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        lines = _json_lines(content)
        if lines is not None:
            return lines
        raise PeeralignError(
            f"{file} cannot be read as json ({error}); check the file or fetch it anew"
        ) from error
    rows = _rows_in(value)
    if rows is None:
        raise PeeralignError(
            f"{file} is neither a list of objects nor an object of objects; "
            "give the file as it is published"
        )
    return rows


def _json_lines(content: bytes) -> list[Row] | None:
    """The objects of a file that ends in .json and is JSON lines, as POPE's are."""
    try:
        rows = [
            json.loads(line) for line in content.decode("utf-8-sig").split("\n") if line.strip()
        ]
    except (ValueError, RecursionError):
        return None
    return rows if all(isinstance(row, dict) for row in rows) else None


def _rows_in(value: Any) -> list[Row] | None:
    if isinstance(value, dict):
        for name in _LISTS:
            if isinstance(value.get(name), list):
                return _rows_in(value[name])
        # Objects by their id: the id goes into the row, where it may stand already.
        if value and all(isinstance(row, dict) for row in value.values()):
            return [{"id": name, **row} for name, row in value.items()]
        return [value] if value else None
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        return value
    return None
