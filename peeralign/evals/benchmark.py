"""What a benchmark is: how one reply is graded, and the figures that its rows give together.

Each file of `evals/benchmarks/` holds one, under the name of the file; docs/benchmarks.md lists
them. A metric may differ between its authors' script and the two community toolkits, so each is
computed after one of these protocols:

* official: the authors' own script, or the paper's definition where there is none.
* lmms-eval: lmms-eval 0.7.3.
* vlmevalkit: VLMEvalKit at e8e78f0, without a language model to read what its rules cannot.

Two things are the same in all of them. An empty or missing reply is wrong. What a script settles by
drawing a random option is wrong too, and is counted as not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from peeralign.evals.measures import Measure, mean

OFFICIAL, LMMS_EVAL, VLMEVALKIT = "official", "lmms-eval", "vlmevalkit"
PROTOCOLS = (OFFICIAL, LMMS_EVAL, VLMEVALKIT)
Row = Mapping[str, Any]
Parsed = Literal["parsed", "ambiguous", "none"]


class Graded(NamedTuple):
    """One item: its score, how its reply was read, and what it was read as.

    The score is 0 to 1 unless the benchmark counts points. "ambiguous" replies name more than one
    answer; the protocol may still settle for one of them. "none" is a reply without an answer.
    """

    score: float
    parsed: Parsed
    reading: str | None = None


UNREAD = Graded(0.0, "none")
Grade = Callable[[Row, str], Graded]
Measures = Callable[[Sequence[Row], Sequence[Graded], str], dict[str, Measure]]


def no_complaint(row: Row, protocol: str) -> str | None:
    """What is wrong with a row, beyond its keys' types: nothing."""
    return None


def no_unit(row: Row) -> tuple[Any, ...] | None:
    """The name of what the row is scored together with: it stands alone."""
    return None


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is scored. `grade` is asked for rows with a reply only."""

    title: str
    headline: str
    """Name of the figure that is the benchmark's score."""
    needs: Mapping[str, tuple[str, ...]]
    """Protocol -> keys that a row must have, beside id and prediction."""
    grade: Grade
    measures: Measures
    """Rows and their grades -> figures by their official names."""
    unit: str = "share, 0 to 1"
    splits: tuple[str, ...] = ("category",)
    """Keys of rows by whose values the headline is given too, where rows have them."""
    complaint: Callable[[Row, str], str | None] = no_complaint
    unit_of: Callable[[Row], tuple[Any, ...] | None] = no_unit
    """Rows of one unit are scored together, so they are resampled together."""
    rows_of_unit: int | None = None
    """How many rows every unit must have to be scored, if that is fixed."""
    reply: str = "prediction"
    """Key that holds what is graded: the reply, or a judge's score of it."""


def graded(benchmark: Benchmark, row: Row, protocol: str) -> Graded:
    """Grade one row; an empty or missing reply is not read, and wrong."""
    reply = row["prediction"]
    if reply is None or not reply.strip() or row[benchmark.reply] is None:
        return UNREAD
    return benchmark.grade(row, protocol)


def mean_score(name: str, scale: float = 1.0) -> Measures:
    """The only figure is the mean of the scores, under this name."""

    def measures(
        rows: Sequence[Row], grades: Sequence[Graded], protocol: str
    ) -> dict[str, Measure]:
        return {name: mean([grade.score for grade in grades], scale=scale)}

    return measures
