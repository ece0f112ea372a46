"""Values of rows' cells: texts, lists that are written as text, options in columns A to H."""

from __future__ import annotations

import ast
import math
import string
import warnings
from typing import Any

from peeralign.evals.layouts.layout import Row
from peeralign.store.conversations import Unusable

# Longer than any list in a published file, images as base64 included.
MAX_LIST = 50_000_000


def text(row: Row, name: str, what: str | None = None) -> str:
    """The cell as text. Raises Unusable ("no answer") if it is empty."""
    found = text_or_none(row, name)
    if found is None:
        raise Unusable(f"no {what or name}")
    return found


def text_or_none(row: Row, name: str) -> str | None:
    """The cell as text, or None if it is missing, null, NaN or blank."""
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, dict | list | bytes):
        raise Unusable(f"its {name} is no text")
    return str(value) if str(value).strip() else None


def texts(row: Row, name: str, what: str | None = None) -> list[str]:
    """The cell as a list of texts: a list, the text of a Python list, or one text alone.

    Raises Unusable if it is empty.
    """
    values = listed(row.get(name))
    found = [str(value) for value in values if value is not None and str(value).strip()]
    if not found:
        raise Unusable(f"no {what or name}")
    return found


def listed(value: Any) -> list[Any]:
    """A list, the text of a Python list, or one value alone, as a list; null is an empty one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str) and value.strip()[:1] == "[" and len(value) <= MAX_LIST:
        try:
            # What it warns of ("\d" in a text) is the file's matter.
            with warnings.catch_warnings(action="ignore"):
                parsed = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return [value]
        return parsed if isinstance(parsed, list) else [value]
    return [value]


def options(row: Row) -> list[str]:
    """Texts of the columns A, B and so on, up to the first that is empty."""
    found = []
    for letter in string.ascii_uppercase:
        option = text_or_none(row, letter)
        if option is None:
            break
        found.append(option)
    return found


def without_nan(found: list[str]) -> list[str]:
    """Options up to the first that is the text "nan", as some files have it where nothing is."""
    return found[: found.index("nan")] if "nan" in found else found


def choices(row: Row, name: str = "choices") -> list[str]:
    """The cell as options: as `texts`, but blank ones stay, so that numbers still name the same."""
    return ["" if value is None else str(value) for value in listed(row.get(name))]


def letter(row: Row, num_options: int, name: str = "answer") -> str:
    """The letter of the right option, from a letter or from its number (0 is A).

    Raises Unusable if it names none of them.
    """
    value = text(row, name).strip().upper()
    known = string.ascii_uppercase[:num_options]
    if value.isdecimal() and int(value) < num_options:
        return known[int(value)]
    if len(value) == 1 and value in known:
        return value
    raise Unusable("its answer is none of the options", value)
