"""Read answers that somebody has compared or rated, as pairs; and judgements written out in full.

Layouts are told apart by their columns (`docs/recipes/critic.md`):

* ratings: a question with `completions`, each a response with ratings (VLFeedback, UltraFeedback);
* two answers and which is preferred: `output_1`, `output_2`, `preference` (LLaVA-RLHF);
* chosen and rejected answers, or RLHF-V's `text`, as preference training reads them;
* `conversations` of a judge's prompt and its reply (llava-critic-113k).

A row that cannot be used is set aside with a reason; only a file without any usable row is an
error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.images.load import MAX_PIXELS
from peeralign.records import IMAGE_DTYPE, make_id, normalise_answer
from peeralign.store.conversations import QUESTION_COLUMNS, Unusable, read_exchange, read_text
from peeralign.store.files import ImageRoot, listed
from peeralign.store.rows import ImageReader, Row, open_rows, text_id

# The first answer is the better one, unless `is_tie`. `gap` is the difference of mean ratings.
RATED_SCHEMA = pl.Schema(
    {
        "question_id": pl.String,
        "question": pl.String,
        "first": pl.String,
        "second": pl.String,
        "is_tie": pl.Boolean,
        "gap": pl.Float64,
    }
)
WRITTEN_SCHEMA = pl.Schema({"question_id": pl.String, "prompt": pl.String, "response": pl.String})
# Apart from both, since a question may have many pairs.
IMAGES_SCHEMA = pl.Schema({"question_id": pl.String, "image": IMAGE_DTYPE})
_IMAGE_COLUMNS = ("image", "images", "img_path", "image_path")
_QUESTIONS = (*QUESTION_COLUMNS, "instruction")
_ANSWERS = ("completions", "output_1", "output_2", "preference", "chosen", "rejected", "text")
# A row of more is broken data; n answers make n (n - 1) / 2 pairs.
_MAX_ANSWERS = 64


@dataclass(frozen=True, slots=True)
class RatedSet:
    """What a file holds: `pairs` (RATED_SCHEMA), or `written` judgements (WRITTEN_SCHEMA).

    `images` (IMAGES_SCHEMA) has each question's image, `set_aside` id and reason; `close` counts
    the pairs of ratings too close to prefer one.
    """

    pairs: pl.DataFrame
    written: pl.DataFrame
    images: pl.DataFrame
    set_aside: pl.DataFrame
    close: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Of one row: its question, and (first, second, is_tie, gap) of each pair, or a reply."""

    question: str
    pairs: list[tuple[str, str, bool, float | None]]
    close: int = 0
    reply: str | None = None


def read_rated_set(
    path: str,
    min_gap: float = 0.6,
    image_root: str | None = None,
    max_image_pixels: int = MAX_PIXELS,
) -> RatedSet:
    """Read a Parquet, JSON or JSON lines file in one of the layouts above.

    Two answers whose mean ratings differ by more than `min_gap` are a pair, equal means are a tie,
    others are left out (LLaVA-Critic, section 3.2: 0.6). Images are read as preferences' are.

    Raises PeeralignError for a file that is missing, unreadable, of no known layout or without a
    usable row.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = "it is a folder" if file.is_dir() else "the file does not exist"
        raise PeeralignError(f"no judgements at {path}: {what}; give a Parquet or JSONL file")
    root = Path(image_root).expanduser() if image_root else file.parent
    if not root.is_dir():
        raise PeeralignError(f"no folder at {root}; set image_root to the folder of the images")
    columns, rows = open_rows(file, {"id", *_IMAGE_COLUMNS, *_QUESTIONS, *_ANSWERS})
    layout = _layout(file, columns, min_gap)
    images = ImageReader(ImageRoot(root), max_image_pixels)
    pairs: list[Row] = []
    written: list[Row] = []
    image_of: dict[str, Row] = {}
    set_aside: list[tuple[str, str]] = []
    close = 0
    for number, row in enumerate(rows, start=1):
        try:
            found = layout(row)
            image, key = images.read(_image_of(row), "image")
        except Unusable as reason:
            set_aside.append((text_id(row.get("id")) or f"row {number}", str(reason)))
            continue
        close += found.close
        about = {"question_id": make_id("rated", found.question, key)}
        image_of.setdefault(about["question_id"], image)
        names = ("first", "second", "is_tie", "gap")
        pairs += [
            {**about, "question": found.question, **dict(zip(names, pair, strict=True))}
            for pair in found.pairs
        ]
        if found.reply is not None:
            written.append({**about, "prompt": found.question, "response": found.reply})
    if not pairs and not written:
        why = f": {set_aside[0][0]} was set aside for '{set_aside[0][1]}'" if set_aside else ""
        raise PeeralignError(f"{path} holds no usable row{why}")
    aside = pl.DataFrame(set_aside, schema={"id": pl.String, "reason": pl.String}, orient="row")
    return RatedSet(
        pl.DataFrame(pairs, schema=RATED_SCHEMA).unique(
            ["question_id", "first", "second"], keep="first", maintain_order=True
        ),
        pl.DataFrame(written, schema=WRITTEN_SCHEMA),
        pl.DataFrame(list(image_of.items()), schema=IMAGES_SCHEMA, orient="row"),
        aside,
        close,
    )


def _layout(file: Path, columns: list[str], min_gap: float) -> Callable[[Row], _Found]:
    there = set(columns)
    if not there & set(_IMAGE_COLUMNS):
        raise PeeralignError(
            f"{file} has no column 'image', only {listed(columns) or 'none'}; judgements are about "
            "images"
        )
    if "completions" in there:
        return lambda row: _ratings(row, min_gap)
    if {"output_1", "output_2", "preference"} <= there:
        return _two_outputs
    if {"chosen", "rejected"} <= there or "text" in there:
        return _preference
    if "conversations" in there:
        return _judgement
    raise PeeralignError(
        f"{file} is of no known layout: its columns are {listed(columns)}; give ratings "
        "(completions), two answers (output_1, output_2, preference), preferences (chosen, "
        "rejected) or judgements (conversations)"
    )


def _image_of(row: Row) -> Any:
    return next((row[name] for name in _IMAGE_COLUMNS if row.get(name) is not None), None)


def _question_of(row: Row) -> str:
    return read_text(
        next((row[name] for name in _QUESTIONS if row.get(name) is not None), None),
        "question",
        "user",
    )


def _ratings(row: Row, min_gap: float) -> _Found:
    question = _question_of(row)
    rated: dict[str, tuple[str, float]] = {}
    for completion in _completions(row.get("completions")):
        text, mean = completion.get("response"), _mean_rating(completion)
        if isinstance(text, str) and text.strip() and mean is not None:
            rated.setdefault(normalise_answer(text), (read_text(text, "answer"), mean))
    if len(rated) < 2:
        raise Unusable("fewer than two rated answers")
    if len(rated) > _MAX_ANSWERS:
        raise Unusable("too many answers", f"{len(rated)}, at most {_MAX_ANSWERS}")
    pairs, close = [], 0
    for (first, one), (second, other) in itertools.combinations(rated.values(), 2):
        # Means of thirds must not be apart by their rounding.
        gap = round(one - other, 9)
        if gap == 0:
            pairs.append((first, second, True, 0.0))
        elif abs(gap) > min_gap:
            ordered = (first, second) if gap > 0 else (second, first)
            pairs.append((*ordered, False, abs(gap)))
        else:
            close += 1
    return _Found(question, pairs, close)


def _completions(value: Any) -> list[Row]:
    """A list of completions; `datasets` stores a list of structs as a struct of lists."""
    if isinstance(value, dict):
        columns = {name: part for name, part in value.items() if isinstance(part, list)}
        lengths = {len(part) for part in columns.values()}
        if len(lengths) != 1:
            raise Unusable("completions are no list")
        parts = zip(*columns.values(), strict=True)
        return [dict(zip(columns, part, strict=True)) for part in parts]
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Unusable("completions are no list")
    return value


def _mean_rating(completion: Row) -> float | None:
    """The mean of a response's numeric ratings ("N/A" is none), or its overall score."""
    annotations = completion.get("annotations")
    aspects = annotations.values() if isinstance(annotations, dict) else []
    given = [aspect.get("Rating") for aspect in aspects if isinstance(aspect, dict)]
    ratings = [number for number in map(_number, given) if number is not None]
    if ratings:
        return sum(ratings) / len(ratings)
    overall = (_number(completion.get(name)) for name in ("overall_score", "rating", "score"))
    return next((number for number in overall if number is not None), None)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _two_outputs(row: Row) -> _Found:
    question = _question_of(row)
    answers = [_output(row.get(name), name) for name in ("output_1", "output_2")]
    preferred = str(row.get("preference")).removeprefix("output_").removesuffix(".0")
    if preferred not in ("1", "2"):
        raise Unusable("no preference", f"{row.get('preference')!r}")
    if normalise_answer(answers[0]) == normalise_answer(answers[1]):
        raise Unusable("both answers are the same")
    if preferred == "2":
        answers.reverse()
    return _Found(question, [(answers[0], answers[1], False, None)])


def _output(value: Any, name: str) -> str:
    # Its turns are from "llava", not from the assistant.
    return read_text(value.get("value") if isinstance(value, dict) else value, name)


def _preference(row: Row) -> _Found:
    question, chosen, rejected = read_exchange(row)
    return _Found(question, [(chosen, answer, False, None) for answer in rejected])


def _judgement(row: Row) -> _Found:
    turns = row.get("conversations")
    if not isinstance(turns, list) or len(turns) != 2:
        raise Unusable("not one prompt and one reply")
    prompt = read_text([turns[0]], "prompt", "user")
    return _Found(prompt, [], reply=read_text([turns[1]], "reply"))
