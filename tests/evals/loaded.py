"""Items of a stand-in, checked in what all benchmarks have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evals.standins import standin

from peeralign.evals.benchmarks import find
from peeralign.evals.items import ITEM_SCHEMA, read_items
from peeralign.evals.rows import checked
from peeralign.images.load import open_image

# What only a judge can give.
_JUDGED = {"score": None, "reference_score": 5, "correctness": None}


def read(
    name: str, layout: str, folder: Path, num_set_aside: int = 0, **settings: Any
) -> tuple[list[str], list[dict[str, Any]]]:
    """Texts and rows of a stand-in's items, after every protocol accepted each row."""
    found = read_items(name, str(standin(name, layout, folder)), **settings)
    assert found.layout == layout
    assert found.items.schema == ITEM_SCHEMA
    assert found.items["id"].is_unique().all()
    assert found.set_aside.height == num_set_aside, found.set_aside.rows()
    rows = [json.loads(row) for row in found.items["row"]]
    for name_of_item, image, row in zip(found.items["id"], found.items["image"], rows, strict=True):
        assert open_image(image).size == (8, 6)
        assert row["question"]
        assert row["image"]
        benchmark = find(name)
        for protocol in benchmark.needs:
            whole = {**_JUDGED, **row, "id": name_of_item, "prediction": "x"}
            checked(benchmark, whole, protocol)
    return found.items["text"].to_list(), rows
