"""Score predictions that exist: rows in, one object of figures out, no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peeralign.errors import PeeralignError, nearest
from peeralign.evals.benchmark import OFFICIAL, PROTOCOLS, Benchmark, Graded, Row, graded
from peeralign.evals.benchmarks import find
from peeralign.evals.measures import Measure, clusters, interval
from peeralign.evals.rows import WrongRow, checked
from peeralign.store.files import numbered_objects, reading

DIGITS = 6
SEED = 0
# What the object has for every benchmark; its other keys are the benchmark's own figures.
GENERAL = (
    *("benchmark", "protocol", "headline", "unit", "score", "interval", "parse_failure_rate"),
    *("num_rows", "num_parsed", "num_ambiguous", "num_none", "num_clusters", "clustered_by"),
    *("by", "reason"),
)


def score_file(name: str, path: Path, protocol: str = OFFICIAL) -> dict[str, Any]:
    """`score_rows` of a JSON lines file; a bad row is named by its line."""
    benchmark = find(name)
    check_protocol(benchmark, protocol)
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "the file does not exist"
        raise PeeralignError(f"no predictions at {path}: {what}; give a JSON lines file")
    with reading(path):
        rows = [(f"{path}, line {number}", row) for number, row in numbered_objects(path)]
    if not rows:
        raise PeeralignError(f"{path} holds no rows; give one object per line")
    return _scored(benchmark, checked_rows(benchmark, rows, protocol), protocol)


def score_rows(
    name: str, rows: Sequence[Mapping[str, Any]], protocol: str = OFFICIAL
) -> dict[str, Any]:
    """All figures of a benchmark's rows, as docs/benchmarks.md explains them, ready for JSON.

    `rows` have the keys of that page; a missing reply is None and stays in. Raises PeeralignError
    at an unknown benchmark or protocol, and at a row that lacks a key or has a wrong one.
    """
    benchmark = find(name)
    check_protocol(benchmark, protocol)
    if not rows:
        raise PeeralignError(f"no rows of {benchmark.title} to score; give at least one")
    places = ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    return _scored(benchmark, checked_rows(benchmark, places, protocol), protocol)


def no_score(name: str, protocol: str, reason: str) -> dict[str, Any]:
    """The object of `score_rows` where no row is left to score."""
    benchmark = find(name)
    return {
        "benchmark": benchmark.title,
        "protocol": protocol,
        "headline": benchmark.headline,
        "unit": benchmark.unit,
        "score": None,
        "interval": None,
        "parse_failure_rate": None,
        **{f"num_{what}": 0 for what in ("rows", "parsed", "ambiguous", "none", "clusters")},
        "clustered_by": "row",
        "by": {},
        "reason": f"no score: {reason}",
    }


def grade_rows(
    name: str, rows: Sequence[Mapping[str, Any]], protocol: str = OFFICIAL
) -> list[Graded]:
    """Each row's own score, and how its reply was read. Raises as `score_rows` does."""
    benchmark = find(name)
    check_protocol(benchmark, protocol)
    places = ((f"row {number}", row) for number, row in enumerate(rows, start=1))
    return [graded(benchmark, row, protocol) for row in checked_rows(benchmark, places, protocol)]


def check_protocol(benchmark: Benchmark, protocol: str) -> None:
    """Raise PeeralignError unless the benchmark has the protocol."""
    if protocol not in benchmark.needs:
        meant = "" if protocol in PROTOCOLS else nearest(protocol, benchmark.needs)
        raise PeeralignError(
            f"{benchmark.title} has no protocol '{protocol}', it has "
            f"{', '.join(benchmark.needs)}{meant}"
        )


def checked_rows(
    benchmark: Benchmark, rows: Iterable[tuple[str, Mapping[str, Any]]], protocol: str
) -> list[Row]:
    """Rows, each after its place in words, made uniform (see `evals.rows.checked`).

    Raises PeeralignError at a wrong row and at an id that comes twice, by its place.
    """
    found: list[Row] = []
    seen: dict[str, str] = {}
    for place, given in rows:
        try:
            row = checked(benchmark, given, protocol)
        except WrongRow as wrong:
            raise PeeralignError(f"{place} {wrong}") from None
        first = seen.setdefault(row["id"], place)
        if first != place:
            raise PeeralignError(
                f"{place} has the id '{row['id']}' of {first}; give each item one id of its own"
            )
        found.append(row)
    return found


def _scored(benchmark: Benchmark, rows: list[Row], protocol: str) -> dict[str, Any]:
    grades = [graded(benchmark, row, protocol) for row in rows]
    measures = benchmark.measures(rows, grades, protocol)
    headline = measures[benchmark.headline]
    once_N = np.ones(len(rows))
    cluster_N, clustered_by = clusters_of(rows, benchmark.unit_of)
    found = interval(headline, cluster_N, SEED)
    parsed = Counter(grade.parsed for grade in grades)
    num_failed = sum(is_failure(grade) for grade in grades)
    result: dict[str, Any] = {
        "benchmark": benchmark.title,
        "protocol": protocol,
        "headline": benchmark.headline,
        "unit": benchmark.unit,
        "score": rounded(headline(once_N)),
        "interval": None if isinstance(found, str) else [rounded(end) for end in found],
        "parse_failure_rate": rounded(num_failed / len(rows)),
        "num_rows": len(rows),
        **{f"num_{how}": parsed[how] for how in ("parsed", "ambiguous", "none")},
        "num_clusters": int(cluster_N.max()) + 1,
        "clustered_by": clustered_by,
    }
    for name, measure in measures.items():
        result[name] = rounded(measure(once_N))
    by = {key: _by(headline, key, rows) for key in benchmark.splits}
    result["by"] = {key: values for key, values in by.items() if values}
    if isinstance(found, str):
        result["reason"] = f"no interval: {found}"
    return result


def is_failure(grade: Graded) -> bool:
    """Whether no answer could be read from a reply."""
    # An ambiguous reply that the protocol settles was read.
    return grade.parsed == "none" or (grade.parsed == "ambiguous" and grade.reading is None)


def _by(headline: Measure, key: str, rows: Sequence[Row]) -> dict[str, float | None]:
    values = [row.get(key) for row in rows]
    return {
        name: rounded(headline(np.array([value == name for value in values], float)))
        for name in dict.fromkeys(value for value in values if value is not None)
    }


def clusters_of(
    rows: Sequence[Row], unit_of: Callable[[Row], Hashable | None]
) -> tuple[np.ndarray, str]:
    """Number of each row's cluster, of shape N, and what rows of one cluster have in common.

    That is their image if all rows have the key, else their question, else nothing; rows of one
    unit (`Benchmark.unit_of`) are always together.
    """
    by = next((key for key in ("image", "question") if all(key in row for row in rows)), None)
    units = [unit_of(row) for row in rows]
    labels: list[list[Hashable]] = []
    for row, unit in zip(rows, units, strict=True):
        shared: list[Hashable] = [("unit", unit)] if unit is not None else []
        if by is not None:
            shared.append((by, row[by]))
        labels.append(shared or [("id", row["id"])])
    has_units = any(unit is not None for unit in units)
    named = [*(["unit"] if has_units else []), *([by] if by else [])]
    return clusters(labels), " and ".join(named) or "row"


def rounded(value: float) -> float | None:
    """A figure as the objects hold it; None where it is undefined (NaN)."""
    # Adding 0.0 turns a rounded "-0.0" into "0.0".
    return None if math.isnan(value) else round(value, DIGITS) + 0.0
