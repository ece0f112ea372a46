"""Rows of predictions: which keys they may have, and what each must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from peeralign.errors import nearest
from peeralign.escape import without_surrogates
from peeralign.evals.benchmark import Benchmark, Row

_Check = Callable[[Any], Any]


class WrongRow(Exception):
    """What is wrong with a row; the caller adds where it stands."""


def checked(benchmark: Benchmark, row: Mapping[str, Any], protocol: str) -> Row:
    """The row with every known key made uniform; keys that nobody knows are left out.

    Raises WrongRow with a missing key, or a key's value and what it must be.
    """
    needed = {"id": None, "prediction": None, **dict.fromkeys(benchmark.needs[protocol])}
    given = dict(row)
    # One right answer may be given as one text, or as a list of one.
    if "answers" in needed and "answers" not in given and "answer" in given:
        given["answers"] = given["answer"]
    for key in needed:
        if key not in given:
            raise WrongRow(
                f"has no '{key}'{nearest(key, given)}; a row of {benchmark.title}, protocol "
                f"{protocol}, needs {', '.join(needed)}"
            )
    uniform = {}
    for key, value in given.items():
        if key not in _CHECKS:
            continue
        if value is None and key not in needed:
            continue
        try:
            uniform[key] = _CHECKS[key](value)
        except WrongRow as wrong:
            raise WrongRow(f"has a wrong '{key}': {wrong}") from None
    complaint = benchmark.complaint(uniform, protocol)
    if complaint:
        raise WrongRow(complaint)
    return uniform


def shown(value: Any) -> str:
    """A value as a sentence can hold it."""
    text = without_surrogates(repr(value))
    return text if len(text) <= 60 else text[:60] + "..."


def _text(value: Any) -> str:
    is_text = isinstance(value, str | int | float) and not isinstance(value, bool)
    # Some writers put NaN where nothing is.
    if not is_text or value != value:
        raise WrongRow(f"{shown(value)}; give a text")
    return without_surrogates(str(value))


def _name(value: Any) -> str:
    text = _text(value)
    if not text.strip():
        raise WrongRow("it is empty; give a name or a number")
    return text


def _text_or_null(value: Any) -> str | None:
    return None if value is None else _text(value)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise WrongRow("it is empty; give a list of texts")
    return [_text(each) for each in values]


def _choices(value: Any) -> list[str]:
    if not isinstance(value, list) or not 2 <= len(value) <= 26:
        raise WrongRow(f"{shown(value)}; give a list of 2 to 26 options")
    return [_text(each) for each in value]


def _names(value: Any) -> list[str]:
    values = value.split(",") if isinstance(value, str) else value
    if not isinstance(values, list):
        raise WrongRow(f"{shown(value)}; give a list of names")
    return [_name(each).strip() for each in values]


def _names_or_null(value: Any) -> list[str] | None:
    return None if value is None else _names(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongRow(f"{shown(value)}; give a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise WrongRow(f"{shown(value)}; give a finite number")
    return number


def _number_or_null(value: Any) -> float | None:
    return None if value is None else _number(value)


def _numbers_or_null(value: Any) -> list[float | None] | None:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise WrongRow("it is empty; give a score, or null")
    return None if value is None else [_number_or_null(each) for each in values]


def _whole_or_null(value: Any) -> int | None:
    if value is None:
        return None
    number = _number(value)
    if not number.is_integer():
        raise WrongRow(f"{shown(value)}; give a whole number")
    return int(number)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongRow(f"{shown(value)}; give true or false")
    return value


_NAMES = (
    *("id", "category", "subcategory", "split", "dataset", "question_type", "answer_type"),
    *("group", "image", "question", "set_id", "figure_id", "question_id", "subject", "grade"),
    *("data_type", "l2_category", "task", "visual_input"),
)
_CHECKS: dict[str, _Check] = {
    **dict.fromkeys(_NAMES, _name),
    "prediction": _text_or_null,
    "extraction": _text_or_null,
    "answer": _text,
    "answers": _texts,
    "choices": _choices,
    "capabilities": _names,
    "skills": _names,
    "objects": _names,
    "mentioned": _names_or_null,
    "score": _numbers_or_null,
    "reference_score": _number,
    "precision": _whole_or_null,
    "correctness": _whole_or_null,
    "has_text": _flag,
    "has_image": _flag,
}
