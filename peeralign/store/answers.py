"""Read a user's own answers to be judged, with a question and one answer or two; exact answers.

A row that cannot be judged is set aside with a reason; only a file without any usable row is an
error. Nothing but the named columns is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from peeralign.errors import PeeralignError, nearest
from peeralign.images.load import MAX_PIXELS
from peeralign.records import QUESTION_SCHEMA, make_id
from peeralign.store.conversations import QUESTION_COLUMNS, Unusable, read_text
from peeralign.store.files import ImageRoot, listed
from peeralign.store.rows import ImageReader, Row, open_rows, text_id

ONE = ("answer",)
TWO = ("answer_a", "answer_b")
_ROWS_AT_ONCE = 512
# As preferences do, and with the reference answer that some rubrics show.
ASKED_SCHEMA = pl.Schema({**QUESTION_SCHEMA, "reference": pl.String})


@dataclass(frozen=True, slots=True)
class GivenAnswers:
    """A file's usable rows, in its order, the questions they are about, and what was set aside.

    `rows` has row (its number, from 1), id, question_id, and the texts of the answers' columns.
    `questions` has ASKED_SCHEMA: rows with one image, question and reference share a question.
    `set_aside` has row, id, reason.
    """

    rows: pl.DataFrame
    questions: pl.DataFrame
    set_aside: pl.DataFrame

    @property
    def digest(self) -> str:
        """Changes with whatever of the file is judged."""
        texts = self.rows.select(pl.exclude("id")).rows()
        return make_id(*(part for row in texts for part in row))


def read_answers(
    path: str,
    names: tuple[str, ...],
    with_reference: bool,
    max_image_pixels: int = MAX_PIXELS,
    image_root: str | None = None,
) -> GivenAnswers:
    """Read a Parquet or JSON (lines) file of image, question and the answers' columns `names`.

    `with_reference` asks for a column reference, too. Images are read as preferences' are: paths
    are relative to `image_root`, by default the file's folder, and may not leave it. Raises
    PeeralignError for a file that is missing, unreadable or without a usable row, and for one that
    lacks a column.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = "it is a folder" if file.is_dir() else "the file does not exist"
        raise PeeralignError(f"no answers at {path}: {what}; give a Parquet or JSONL file")
    root = Path(image_root).expanduser() if image_root else file.parent
    if not root.is_dir():
        raise PeeralignError(f"no folder at {root}; set image_root to the folder of the images")
    asked = (*names, "reference") if with_reference else names
    wanted = {"id", "image", "images", "category", *QUESTION_COLUMNS, *asked}
    columns, rows = open_rows(file, wanted)
    _check_columns(file, columns, asked)
    images = ImageReader(ImageRoot(root), max_image_pixels)
    parts: list[tuple[pl.DataFrame, pl.DataFrame]] = []
    set_aside: list[Row] = []
    schema = pl.Schema(
        {"row": pl.Int64, "id": pl.String, "question_id": pl.String}
        | dict.fromkeys(names, pl.String)
    )
    number = itertools.count(1)
    while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        found = _read_chunk(chunk, lambda row: _usable(row, names, with_reference, images), number)
        set_aside += found[1]
        questions = [question for _, question in found[0]]
        parts.append(
            (
                pl.DataFrame([row for row, _ in found[0]], schema=schema),
                pl.DataFrame(questions, schema=ASKED_SCHEMA),
            )
        )
    given = GivenAnswers(
        pl.concat([pl.DataFrame(schema=schema), *(rows for rows, _ in parts)]),
        pl.concat([pl.DataFrame(schema=ASKED_SCHEMA), *(asked for _, asked in parts)]).unique(
            "id", keep="first", maintain_order=True
        ),
        pl.DataFrame(set_aside, schema={"row": pl.Int64, "id": pl.String, "reason": pl.String}),
    )
    if given.rows.is_empty():
        why = f": row {set_aside[0]['row']}: {set_aside[0]['reason']}" if set_aside else ""
        raise PeeralignError(f"{path} holds no usable row{why}; {_needed(asked)}")
    return given


def read_key(path: str) -> pl.DataFrame:
    """Exact answers by question: id, answer (both text). Raises PeeralignError if it has none."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise PeeralignError(f"no answers at {path}; give a Parquet or JSONL file of id and answer")
    columns, rows = open_rows(file, {"id", "answer"})
    for name in ("id", "answer"):
        if name not in columns:
            raise PeeralignError(
                f"{path} has no column '{name}', only {listed(columns) or 'none'}"
                f"{nearest(name, columns)}"
            )
    found = [(text_id(row.get("id")), text_id(row.get("answer"))) for row in rows]
    known = {name: answer for name, answer in found if name is not None and answer is not None}
    if not known:
        raise PeeralignError(f"{path} holds no row with an id and an answer")
    return pl.DataFrame({"id": list(known), "answer": list(known.values())})


def _read_chunk(
    chunk: list[Row], read: Callable[[Row], tuple[Row, Row]], number: itertools.count[int]
) -> tuple[list[tuple[Row, Row]], list[Row]]:
    usable, set_aside = [], []
    for row in chunk:
        about = {"row": next(number), "id": text_id(row.get("id"))}
        try:
            answers, question = read(row)
        except Unusable as reason:
            set_aside.append({**about, "reason": str(reason)})
            continue
        usable.append(({**about, **answers}, question))
    return usable, set_aside


def _usable(
    row: Row, names: tuple[str, ...], with_reference: bool, images: ImageReader
) -> tuple[Row, Row]:
    """The answers of a row, and the question they are about."""
    prompts = (row.get(name) for name in QUESTION_COLUMNS)
    prompt = next((prompt for prompt in prompts if prompt is not None), None)
    question = read_text(prompt, "question", "user")
    answers = {name: read_text(row.get(name), name) for name in names}
    reference = read_text(row.get("reference"), "reference") if with_reference else None
    value = row["images"] if row.get("image") is None and "images" in row else row.get("image")
    image, key = images.read(value, "image")
    question_id = make_id("asked", question, key, reference or "")
    asked = {"id": question_id, "text": question, "category": text_id(row.get("category")) or ""}
    return {"question_id": question_id, **answers}, {
        **asked,
        "image": image,
        "reference": reference,
    }


def _needed(asked: tuple[str, ...]) -> str:
    *most, last = ("image (or images)", "question (or prompt)", *asked)
    return f"needed are {', '.join(most)} and {last}"


def _check_columns(path: Path, columns: list[str], asked: tuple[str, ...]) -> None:
    if not columns:
        raise PeeralignError(f"{path} holds no rows; {_needed(asked)}")
    for names in (("image", "images"), QUESTION_COLUMNS, *((name,) for name in asked)):
        if not set(names) & set(columns):
            raise PeeralignError(
                f"{path} has no column '{names[0]}', only {listed(columns)}; "
                f"{_needed(asked)}{nearest(names[0], columns)}"
            )
