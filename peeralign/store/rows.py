"""Rows of users' files as Python values: opening them, and the images they name or hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.escape import without_surrogates
from peeralign.images.load import BrokenImage, open_image
from peeralign.store.conversations import Unusable
from peeralign.store.files import ImageRoot, json_objects, reading

Row = dict[str, Any]


class ImageReader:
    """Reads rows' images, each of which is opened once, to see whether it can be."""

    def __init__(self, root: ImageRoot, max_pixels: int) -> None:
        self.root = root
        self.max_pixels = max_pixels
        # Files often ask several questions about one image.
        self._problems: dict[str, str | None] = {}

    def read(self, value: Any, what: str) -> tuple[Row, str]:
        """A stored image, and what names it: its name inside the root, or its hash.

        Raises Unusable if it cannot be opened.
        """
        data, path = _bytes_and_path(value, what)
        if data is not None:
            image, key = {"bytes": data, "path": None}, hashlib.sha256(data).hexdigest()
        else:
            resolved, name, problem = self.root.place(path)
            if resolved is None or name is None:
                raise Unusable(f"unusable {what}", problem or "")
            image, key = {"bytes": None, "path": resolved}, name
        if key not in self._problems:
            try:
                open_image(image, self.max_pixels)
                self._problems[key] = None
            except BrokenImage as error:
                self._problems[key] = str(error)
        if problem := self._problems[key]:
            raise Unusable(f"unusable {what}", problem)
        return image, key


def _bytes_and_path(value: Any, what: str) -> tuple[bytes | None, str]:
    if isinstance(value, list):
        if len(value) > 1:
            raise Unusable("several images")
        value = value[0] if value else None
    data, path = value, value
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
    if isinstance(data, bytes) and data:
        return data, ""
    if isinstance(path, str) and path.strip():
        return None, without_surrogates(path)
    known = isinstance(value, dict | str | bytes | None)
    raise Unusable(f"no {what}" if known else f"{what} is neither a path nor an encoded image")


def text_id(value: Any) -> str | None:
    """A row's id as text, or None if it has none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = without_surrogates(str(value))
    return text if text.strip() else None


def open_rows(path: Path, wanted: Collection[str]) -> tuple[list[str], Iterator[Row]]:
    """The names of all columns of a Parquet or JSON file, and its rows as Python values.

    Of a Parquet file only the columns `wanted` are read. Raises PeeralignError if it is none.
    """
    suffix = path.suffix.lower()
    with reading(path):
        if suffix == ".parquet":
            scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            columns = scan.collect_schema().names()
            table = scan.select(name for name in columns if name in wanted).collect()
            return columns, table.iter_rows(named=True)
        if suffix in (".jsonl", ".ndjson", ".json"):
            is_list = suffix == ".json" and path.read_bytes().lstrip()[:1] == b"["
            rows = _json_list(path) if is_list else list(json_objects(path))
            return list(dict.fromkeys(name for row in rows for name in row)), iter(rows)
    raise PeeralignError(
        f"{path} is of an unknown kind; give a file that ends in .parquet, .jsonl or .json"
    )


def _json_list(path: Path) -> list[Row]:
    try:
        rows = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise PeeralignError(
            f"{path} cannot be read as json ({error}); check the file or write it anew"
        ) from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise PeeralignError(f"entry {number} of {path} is no object; write a list of objects")
    return rows
