"""Read what a judge said, beside a reference: files of scores, of pairs and of rankings.

JSON lines; what each key means is in `docs/judge_eval.md`. A missing verdict is null and stays in.
Anything else that is wrong is a mistake, named with its line: half a file would be half a judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError, nearest
from peeralign.escape import without_surrogates
from peeralign.store.files import numbered_objects, reading

SCORES_SCHEMA = pl.Schema(
    {
        "set": pl.String,
        "item": pl.String,
        "model": pl.String,
        "score": pl.Float64,
        "reference": pl.Float64,
        "score_without_image": pl.Float64,
        "answer": pl.String,
        "judge": pl.String,
        "author": pl.String,
        "family": pl.String,
        "judge_family": pl.String,
    }
)
PAIRS_SCHEMA = pl.Schema(
    {
        "set": pl.String,
        "item": pl.String,
        "model_a": pl.String,
        "model_b": pl.String,
        "verdict": pl.String,
        "reference": pl.String,
        "verdict_without_image": pl.String,
        "answer_a": pl.String,
        "answer_b": pl.String,
        "judge": pl.String,
        "family_a": pl.String,
        "family_b": pl.String,
        "judge_family": pl.String,
    }
)
RANKINGS_SCHEMA = pl.Schema(
    {
        "set": pl.String,
        "item": pl.String,
        "ranking": pl.List(pl.String),
        "reference": pl.List(pl.String),
        "ranking_without_image": pl.List(pl.String),
    }
)
VERDICTS = ("A", "B", "tie")
_Check = Callable[[Any], Any]


class _Wrong(Exception):
    """What is wrong with a value; the reader adds where it stands."""


def read_scores(path: Path) -> pl.DataFrame:
    """Rows of SCORES_SCHEMA, of keys item, model, score (a number or null) and reference.

    Optional are set ("all"), score_without_image, answer, judge, author (the model), family and
    judge_family (the family of the judge's own answers, if it has any). Raises PeeralignError at a
    bad row, and at a second row of one set, item and model.
    """
    checks = {"item": _name, "model": _name, "score": _or_null(_number), "reference": _number}
    black = {"score_without_image": _or_null(_number)}
    table = _read(path, checks, black, SCORES_SCHEMA, ("item", "model"))
    table = table.with_columns(author=pl.coalesce("author", "model"))
    return _with_judge_family(table, table.select("author", "family"))


def read_pairs(path: Path) -> pl.DataFrame:
    """Rows of PAIRS_SCHEMA, of keys item, model_a, model_b, verdict (or null) and reference.

    Optional are set, verdict_without_image, answer_a, answer_b, judge, family_a, family_b and
    judge_family. Raises PeeralignError at a bad row, and at a second row of one item, model_a and
    model_b. The two orders of two models are different rows, as are two answers of one model, told
    apart by text.
    """
    checks = {
        **dict.fromkeys(("item", "model_a", "model_b"), _name),
        "verdict": _or_null(_verdict),
        "reference": _verdict,
    }
    black = {"verdict_without_image": _or_null(_verdict)}
    table = _read(path, checks, black, PAIRS_SCHEMA, ("item", "model_a", "model_b"))
    sides = [table.select(author=f"model_{side}", family=f"family_{side}") for side in ("a", "b")]
    return _with_judge_family(table, pl.concat(sides))


def read_rankings(path: Path) -> pl.DataFrame:
    """Rows of RANKINGS_SCHEMA: item, ranking (names, best first, or null) and reference.

    Optional are set and ranking_without_image. A ranking is a list of names or numbers, or a text
    of one letter for each ("CDAB"). The judge's may leave out or repeat a name; the reference may
    not repeat one.
    """
    checks = {"item": _name, "ranking": _or_null(_ranking), "reference": _reference_ranking}
    black = {"ranking_without_image": _or_null(_ranking)}
    return _read(path, checks, black, RANKINGS_SCHEMA, ("item",))


def _read(
    path: Path,
    checks: dict[str, _Check],
    black: dict[str, _Check],
    schema: pl.Schema,
    key: tuple[str, ...],
) -> pl.DataFrame:
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "the file does not exist"
        raise PeeralignError(f"no verdicts at {path}: {what}; give a JSON lines file")
    texts = {name: _or_null(_text) for name in schema if name not in checks}
    optional = texts | black
    rows: list[dict[str, Any]] = []
    seen: dict[Hashable, int] = {}
    with reading(path):
        for number, given in numbered_objects(path):
            row = _checked(path, number, given, checks, optional)
            names = ["set", *key]
            if "model_a" in row and row["model_a"] == row["model_b"]:
                names += ["answer_a", "answer_b"]
            first = seen.setdefault(tuple(row[name] for name in names), number)
            if first != number:
                listed = ", ".join(f"{name} '{row[name]}'" for name in key)
                raise PeeralignError(
                    f"{path}, line {number} repeats line {first}: {listed}, of set "
                    f"'{row['set']}'; give each once, and each judge a file of its own"
                )
            rows.append(row)
    if not rows:
        raise PeeralignError(f"{path} holds no rows; give one object per line, of {_keys(checks)}")
    return pl.DataFrame(rows, schema=schema)


def _checked(
    path: Path,
    number: int,
    given: dict[str, Any],
    checks: dict[str, _Check],
    optional: dict[str, _Check],
) -> dict[str, Any]:
    row = {}
    for name, check in {**checks, **optional}.items():
        if name in checks and name not in given:
            raise PeeralignError(
                f"{path}, line {number} has no '{name}'{nearest(name, given)}; "
                f"each row needs {_keys(checks)}"
            )
        try:
            row[name] = check(given.get(name))
        except _Wrong as wrong:
            raise PeeralignError(f"{path}, line {number}: {name} is {wrong}") from None
    row["set"] = row["set"] or "all"
    return row


def _keys(checks: dict[str, _Check]) -> str:
    return ", ".join(checks)


def _with_judge_family(table: pl.DataFrame, authors: pl.DataFrame) -> pl.DataFrame:
    known = authors.drop_nulls().unique("author", keep="first", maintain_order=True)
    named = known.rename({"author": "judge", "family": "own_family"})
    joined = table.join(named, on="judge", how="left", maintain_order="left")
    filled = joined.with_columns(judge_family=pl.coalesce("judge_family", "own_family"))
    return filled.select(table.columns)


def _or_null(check: _Check) -> _Check:
    return lambda value: None if value is None else check(value)


def _shown(value: Any) -> str:
    text = without_surrogates(repr(value))
    return text if len(text) <= 60 else text[:60] + "..."


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"{_shown(value)}; give a text, or null")
    return without_surrogates(value)


def _name(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Wrong(f"{_shown(value)}; give a name or a number")
    text = without_surrogates(str(value))
    if not text.strip():
        raise _Wrong("empty; give a name or a number")
    return text


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Wrong(f"{_shown(value)}; give a number")
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Wrong(f"{_shown(value)}, which is no finite number")
    return number


def _verdict(value: Any) -> str:
    if not isinstance(value, str) or value not in VERDICTS:
        raise _Wrong(f'{_shown(value)}; give "A", "B" or "tie"')
    return value


def _ranking(value: Any) -> list[str]:
    if isinstance(value, str):
        return [_name(letter) for letter in "".join(value.split())]
    if not isinstance(value, list):
        raise _Wrong(f"{_shown(value)}; give a list of names, best first")
    return [_name(name) for name in value]


def _reference_ranking(value: Any) -> list[str]:
    names = _ranking(value)
    if not names or len(set(names)) < len(names):
        raise _Wrong(f"{_shown(value)}; give every name once, best first")
    return names
