"""The fifteen benchmarks of Panel of Peers (Table 2), by category, on one scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

CATEGORIES = {
    "General VQA": ("mmbench", "mmvet", "seedbench"),
    "Knowledge": ("ai2d", "mmmu", "mmstar", "mathvista", "scienceqa"),
    "Chart & OCR": ("chartqa", "textvqa", "ocrbench", "ocrvqa"),
    "Hallucination": ("pope", "hallusionbench"),
    "Vision Centric": ("realworldqa",),
}
FIFTEEN = tuple(name for names in CATEGORIES.values() for name in names)
FURTHER = "Further"


def percent(name: str, figures: Mapping[str, Any], value: float | None) -> float | None:
    """A value of a benchmark's headline, as a share of the best one in per cent.

    None for benchmarks outside the fifteen, whose points are no shares, and for no value.
    `figures` is what `score_rows` gives, with the benchmark's number of rows and protocol.
    """
    if value is None or name not in FIFTEEN:
        return None
    if name == "ocrbench":
        # Points of as many items as there are; lmms-eval always divides by the set's 1,000.
        best = figures["num_rows"] / (1000 if figures["protocol"] == "lmms-eval" else 1)
        return 100 * value / best
    return value if name == "mmvet" else 100 * value


def by_category(names: Iterable[str]) -> dict[str, list[str]]:
    """Category -> those of `names` in it, in the paper's order; what it lacks stands last."""
    given = list(dict.fromkeys(names))
    groups = {
        category: [name for name in members if name in given]
        for category, members in CATEGORIES.items()
    }
    groups[FURTHER] = [name for name in given if name not in FIFTEEN]
    return {category: members for category, members in groups.items() if members}


def averages(benchmarks: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Member -> the plain mean in per cent of each category, and of all under "Average".

    `benchmarks` is that part of figures.json. A member has a mean only of what it has whole.
    """
    entries = [entry for entry in benchmarks if entry["name"] in FIFTEEN]
    members = dict.fromkeys(member for entry in entries for member in entry["members"])
    groups = by_category(entry["name"] for entry in entries)
    groups["Average"] = [entry["name"] for entry in entries]
    found: dict[str, dict[str, float]] = {}
    for member in members:
        values = {
            entry["name"]: percent(entry["name"], figures, figures["score"])
            for entry in entries
            if (figures := entry["members"].get(member)) is not None
        }
        found[member] = {}
        for group, names in groups.items():
            known = [value for name in names if (value := values.get(name)) is not None]
            if names and len(known) == len(names):
                found[member][group] = round(math.fsum(known) / len(known), 6)
    return found
