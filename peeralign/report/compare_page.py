"""A comparison as one page: its tables, a plot of the differences, and a gallery of items."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from peeralign.errors import PeeralignError
from peeralign.evals.compare import Comparison
from peeralign.evals.outcomes import LOSS, TIE, WIN
from peeralign.evals.sheets import Images
from peeralign.records import seed_of
from peeralign.report import compare, figures
from peeralign.report.compare import Line, lines_of, named
from peeralign.report.gallery import LONG_TEXT, thumbnail
from peeralign.report.page import render_page
from peeralign.store.run import write_whole

CARDS = 12
# What a card's items are, from B's side; of ties only those with different answers are shown.
OUTCOMES = {WIN: "B wins", LOSS: "A wins", TIE: "tie, different answers"}
_LOOKS = {WIN: ("rejected", "chosen"), LOSS: ("chosen", "rejected"), TIE: ("even", "even")}


@dataclass(frozen=True, slots=True)
class Said:
    """One side's answer to an item."""

    side: str
    look: str
    member: str
    text: str | None
    reading: str
    score: float


@dataclass(frozen=True, slots=True)
class Card:
    """One item. Without an image, `image_problem` says why."""

    benchmark: str
    members: str
    outcome: str
    item: str
    question: str | None
    expected: str | None
    image_url: str | None
    image_is_tiny: bool
    image_problem: str | None
    answers: tuple[Said, Said]

    @property
    def is_long(self) -> bool:
        """Whether its answers need a full line each on a narrow screen."""
        return any(len(said.text or "") > LONG_TEXT for said in self.answers)


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the page of a comparison to `path`, whole or not at all."""
    write_whole(path, render(comparison).encode())


def render(comparison: Comparison) -> str:
    """The page as text. The same comparison gives the same text."""
    found = comparison.figures
    lines = lines_of(found)
    cards, lost = collect_cards(comparison)
    return render_page(
        "compare.html",
        {
            "texts": compare.texts_of,
            "chance": compare.chance,
            "place": compare.place,
        },
        found=found,
        lines=lines,
        sentence=compare.result_sentence(found),
        several=len(found["benchmarks"]) > 1,
        charts=_charts(lines),
        cards=cards,
        lost=lost,
        cards_per_kind=CARDS,
    )


def _charts(lines: list[Line]) -> list[Markup]:
    """A chart for each unit: points of one benchmark are no shares of another."""
    units: dict[str, list[tuple[str, float, list[float] | None]]] = {}
    for line in lines:
        if line.headline["difference"] is not None:
            row = (f"{line.benchmark['title']}, {line.members}", line.headline["difference"])
            units.setdefault(line.benchmark["unit"], []).append((*row, line.headline["interval"]))
    return [
        figures.difference_chart(rows, unit, f"differences-{i}")
        for i, (unit, rows) in enumerate(units.items())
    ]


def collect_cards(comparison: Comparison) -> tuple[list[Card], dict[str, str]]:
    """Up to CARDS items of each benchmark and outcome, drawn by the comparison's seed.

    And the benchmarks whose images cannot be read any more, each with the reason.
    """
    cards: list[Card] = []
    lost: dict[str, str] = {}
    for benchmark in comparison.figures["benchmarks"]:
        items = comparison.items.filter(pl.col("task") == benchmark["name"])
        picked = [row for kind in OUTCOMES for row in _picked(items, kind, comparison)]
        images, problem = _images(comparison, benchmark["name"], {row["id"] for row in picked})
        cards += [_card(benchmark["title"], row, images) for row in picked]
        if problem:
            lost[benchmark["title"]] = problem
    return cards, lost


def _picked(items: pl.DataFrame, kind: str, comparison: Comparison) -> list[dict[str, Any]]:
    keys = ("task", "member_a", "member_b", "id")
    seed = comparison.figures["seed"]
    of_kind = items.filter((pl.col("outcome") == kind) & ((kind != TIE) | ~pl.col("is_same")))
    order = [seed_of("gallery", seed, *row) for row in of_kind.select(keys).iter_rows()]
    drawn = of_kind.with_columns(order=pl.Series(order, dtype=pl.UInt64)).sort("order")
    return drawn.head(CARDS).to_dicts()


def _images(comparison: Comparison, name: str, ids: Collection[str]) -> tuple[Images, str | None]:
    """The images that either side's data still hold, or why neither can be read."""
    problem = None
    for side in (comparison.a, comparison.b):
        try:
            return (side.images(name, ids) if ids else {}), None
        except PeeralignError as error:
            problem = problem or str(error)
    return {}, problem


def _card(title: str, row: dict[str, Any], images: Images) -> Card:
    image = images.get(row["id"])
    missing = "the data have none for it, or cannot be read any more"
    url, is_tiny, broken = thumbnail(image) if image else (None, False, missing)
    looks = _LOOKS[row["outcome"]]
    answers = [
        Said(
            side.upper(),
            look,
            row[f"member_{side}"],
            row[f"prediction_{side}"],
            _reading(*(row[f"{what}_{side}"] for what in ("parsed", "reading", "prediction"))),
            row[f"score_{side}"],
        )
        for side, look in zip("ab", looks, strict=True)
    ]
    return Card(
        title,
        named(row["member_a"], row["member_b"]),
        OUTCOMES[row["outcome"]],
        row["id"],
        row["question"],
        row["expected"],
        url,
        is_tiny,
        broken,
        (answers[0], answers[1]),
    )


def _reading(parsed: str, reading: str | None, text: str | None) -> str:
    if parsed == "none":
        return "not read"
    read = ["ambiguous"] if parsed == "ambiguous" else []
    if reading is not None:
        read.append("read as it stands" if reading == text else f"read as {reading}")
    return ", ".join(read)
