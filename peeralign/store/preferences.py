"""Read preference data: images with a question, a chosen answer and rejected ones.

Layouts are told apart by their columns (`docs/recipes/train.md`). A row that cannot be learnt from
is set aside with a reason; only a file without any usable row is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from peeralign.errors import PeeralignError, nearest
from peeralign.images.load import MAX_PIXELS
from peeralign.records import PREFERENCE_SCHEMA, make_id
from peeralign.store.conversations import QUESTION_COLUMNS, Unusable, read_exchange
from peeralign.store.files import ImageRoot, listed
from peeralign.store.rows import ImageReader, Row, open_rows, text_id

_NEEDED = "preference data need image (or images), question (or prompt), chosen and rejected"
_COLUMNS = {"id", "image", "images", "rejected_image", "chosen", "rejected", "text"}
_ROWS_AT_ONCE = 512


def read_preferences(
    path: str, max_image_pixels: int = MAX_PIXELS, image_root: str | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a file's usable rows (``PREFERENCE_SCHEMA``), and what was set aside (id, reason).

    Every image is decoded once, after its number of pixels was found to be within the limit. Paths
    are relative to `image_root`, by default the file's folder, may not leave it, and become
    absolute. Encoded images of a Parquet file are held in memory. Rows without an id, or with an id
    that others have too, get one made of their content; reasons begin with a kind and a colon.

    Raises PeeralignError for a file that is missing, unreadable or without a usable row, and for
    one that lacks a column.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = "it is a folder" if file.is_dir() else "the file does not exist"
        raise PeeralignError(f"no preference data at {path}: {what}; give a Parquet or JSONL file")
    root = Path(image_root).expanduser() if image_root else file.parent
    if not root.is_dir():
        raise PeeralignError(f"no folder at {root}; set image_root to the folder of the images")
    columns, rows = open_rows(file, _COLUMNS.union(QUESTION_COLUMNS))
    _check_columns(file, columns)
    reader = _Reader(ImageRoot(root), max_image_pixels)
    usable = [pl.DataFrame(schema=PREFERENCE_SCHEMA)]
    while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        usable.append(pl.DataFrame(list(reader.read(chunk)), schema=PREFERENCE_SCHEMA))
    table = pl.concat(usable)
    if table.is_empty():
        raise PeeralignError(_nothing_usable(file, columns, reader.set_aside))
    table = reader.with_ids(table)
    set_aside = pl.DataFrame(
        [(label, reason) for _, label, reason in sorted(reader.set_aside)],
        schema={"id": pl.String, "reason": pl.String},
        orient="row",
    )
    return table, set_aside


def reason_counts(set_aside: pl.DataFrame) -> dict[str, int]:
    """How many rows were set aside for each kind of reason, the most frequent first."""
    kinds = set_aside.select(kind=pl.col("reason").str.split(": ").list.first())
    counts = kinds.group_by("kind").len().sort("len", "kind", descending=[True, False])
    return dict(counts.iter_rows())


class _Reader:
    """Reads rows one after the other, and remembers what lets the next ones be read faster."""

    def __init__(self, root: ImageRoot, max_pixels: int) -> None:
        self.images = ImageReader(root, max_pixels)
        self.set_aside: list[tuple[int, str, str]] = []
        self._number = 0
        self._numbers: list[int] = []
        self._made_ids: list[str] = []
        self._seen: set[str] = set()

    def read(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self._number += 1
            given = text_id(row.get("id"))
            try:
                usable, made_id = self._read_row(row)
                if made_id in self._seen:
                    raise Unusable("the same as a row before")
            except Unusable as reason:
                label = given or f"row {self._number}"
                self.set_aside.append((self._number, label, str(reason)))
                continue
            self._seen.add(made_id)
            self._made_ids.append(made_id)
            self._numbers.append(self._number)
            yield {"id": given, **usable}

    def with_ids(self, table: pl.DataFrame) -> pl.DataFrame:
        """Fill in ids: an id that several rows have names what they share, not a row."""
        made = pl.Series("made", self._made_ids, dtype=pl.String)
        ids = table.with_columns(made).select(
            pl.when(pl.col("id").is_not_null() & ~pl.col("id").is_duplicated())
            .then("id")
            .otherwise("made")
            .alias("id")
        )["id"]
        # A given id may look like a made one; then only the made ones are certain to differ.
        return table.with_columns(made.alias("id") if ids.is_duplicated().any() else ids)

    def _read_row(self, row: Row) -> tuple[Row, str]:
        question, chosen, rejected = read_exchange(row)
        value = row["images"] if row.get("image") is None and "images" in row else row.get("image")
        image, key = self.images.read(value, "image")
        other, other_key = None, ""
        if row.get("rejected_image") is not None:
            other, other_key = self.images.read(row["rejected_image"], "rejected_image")
        usable = {
            "image": image,
            "question": question,
            "chosen": chosen,
            "rejected": rejected,
            "rejected_image": other,
        }
        return usable, make_id("preference", question, chosen, *rejected, key, other_key)


def _check_columns(path: Path, columns: list[str]) -> None:
    if not columns:
        raise PeeralignError(f"{path} holds no rows; {_NEEDED}")
    needed: list[tuple[str, ...]] = [("image", "images")]
    if "text" not in columns:
        needed += [("chosen",), ("rejected",)]
    for names in needed:
        if not set(names) & set(columns):
            raise PeeralignError(_missing(path, columns, names[0]))


def _missing(path: Path, columns: list[str], name: str) -> str:
    return (
        f"{path} has no column '{name}', only {listed(columns)}; {_NEEDED}{nearest(name, columns)}"
    )


def _nothing_usable(path: Path, columns: list[str], set_aside: list[tuple[int, str, str]]) -> str:
    if not set_aside:
        return f"{path} holds no rows; {_NEEDED}"
    # Only now is it known that the question is not the first turn of the answers either.
    if set_aside[0][2] == "no question" and not set(QUESTION_COLUMNS) & set(columns):
        return _missing(path, columns, "question")
    return (
        f"{path} holds no usable row: {set_aside[0][1]} was set aside for '{set_aside[0][2]}'; "
        f"{_NEEDED}"
    )
