"""MathVista (Lu et al., 2024): asked in the authors' own words, their key `query`.

Authors' files (lupantech/MathVista, data): testmini.json, an object of problems by their pid, and
images. Where a file has no `query`, it is built as the authors' build_query.py does.
"""

from __future__ import annotations

import string
from typing import Any

from peeralign.evals.layouts.cells import choices, listed, text, text_or_none
from peeralign.evals.layouts.inline import parted, without_hint
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Form, Item, Layout, Row
from peeralign.store.conversations import Unusable

_PLACES = {1: ("one decimal place", "1.2, 1.3, 1.4"), 2: ("two decimal places", "1.23, 1.34, 1.45")}


def _hub(row: Row) -> Item:
    return _item(row, row.get("decoded_image"), _about(row))


def _original(row: Row) -> Item:
    name = (text_or_none(row, "image") or "").removeprefix("images/")
    return _item(row, name, _about(row))


def _about(row: Row) -> Row:
    about = row.get("metadata")
    return about if isinstance(about, dict) else {}


def _tsv(row: Row) -> Item:
    # The column `question` is the whole query.
    whole = text(row, "question")
    is_query = whole.lstrip().startswith("Hint:")
    bare = {"question": without_hint(parted(whole)[0]), "query": whole} if is_query else {}
    # Where no column says how many places a float has, the query does.
    places = (number for number, (words, _) in _PLACES.items() if words in whole)
    precision = text_or_none(row, "precision") or next(places, None)
    row = {**row, **bare, "pid": row["index"], "precision": precision}
    return _item(row, row.get("image"), row)


def _item(row: Row, image: Any, about: Row) -> Item:
    # Blanks around the question are a part of the authors' query.
    question, unit = text(row, "question"), text_or_none(row, "unit")
    if unit and "(Unit:" not in question:
        question = f"{question} (Unit: {unit})"
    found = choices(row)
    answer_type, precision = text(row, "answer_type"), _precision(row)
    hint = _hint(answer_type, precision, bool(found))
    keys = {
        "answer": text(row, "answer"),
        "answer_type": answer_type,
        "precision": precision,
        "question_type": text_or_none(row, "question_type"),
        "task": text_or_none(about, "task"),
        "grade": text_or_none(about, "grade"),
        "skills": [str(skill) for skill in listed(about.get("skills"))] or None,
    }
    return Item(
        question,
        image,
        keys,
        id=row.get("pid"),
        options=found,
        hint=hint,
        category=text_or_none(about, "category"),
        asked=text_or_none(row, "query") or _query(hint, question, found),
    )


def _precision(row: Row) -> int | None:
    value = text_or_none(row, "precision")
    try:
        return None if value is None else int(float(value))
    except (ValueError, OverflowError):
        raise Unusable("its precision is no number", str(value)) from None


def _hint(answer_type: str, precision: int | None, has_options: bool) -> str:
    if has_options or answer_type == "text":
        return (
            "Hint: Please answer the question and provide the correct option letter, "
            "e.g., A, B, C, D, at the end."
        )
    end = "value"
    if answer_type == "float":
        places, examples = _PLACES.get(precision or 0, (f"{precision} decimal places", "1.234"))
        wanted = f"a floating-point number with {places}"
    elif answer_type == "list":
        wanted, end = "a Python list as an answer", "list"
        examples = "[1, 2, 3], [1.2, 1.3, 1.4]"
    else:
        wanted, examples = "an integer answer", "1, 2, 3"
    return (
        f"Hint: Please answer the question requiring {wanted} and provide the final {end}, "
        f"e.g., {examples}, at the end."
    )


def _query(hint: str, question: str, found: list[str]) -> str:
    options = [
        f"({letter}) {option}"
        for letter, option in zip(string.ascii_uppercase, found, strict=False)
    ]
    return "\n".join([hint, f"Question: {question}", *(["Choices:"] if found else []), *options])


_COLUMNS = ("pid", "question", "choices", "answer", "answer_type")
LAYOUT = Layout(
    title="MathVista",
    forms=(
        Form(HUB, (*_COLUMNS, "decoded_image"), _hub),
        Form(TSV, ("index", "question", "answer", "answer_type", "image"), _tsv),
        Form(
            ORIGINAL, (*_COLUMNS, "image"), _original, files=("testmini.json", "data/testmini.json")
        ),
    ),
    prompt="{hint}\n{question}\n{options}",
    split="testmini",
    hub="AI4Math/MathVista",
    tsv=("MathVista_MINI.tsv",),
    original="https://github.com/lupantech/MathVista",
)
