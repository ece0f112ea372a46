"""HallusionBench's published files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evals.loaded import read
from evals.standins import base64_of, layouts_of, standin, write_json, write_tsv

from peeralign.errors import PeeralignError
from peeralign.evals.items import read_items
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV


@pytest.mark.parametrize("layout", layouts_of("hallusionbench"))
def test_items(layout: str, tmp_path: Path) -> None:
    texts, rows = read("hallusionbench", layout, tmp_path, num_set_aside=1 * (layout == ORIGINAL))
    assert texts == ["Is the circle smaller?", "Did China lead in 2018?"]
    keys = ("category", "subcategory", "set_id", "figure_id", "question_id")
    assert [[row[key] for key in keys] for row in rows] == [
        ["VD", "illusion", "4", "0", "1"],
        ["VS", "chart", "4", "1", "1"],
    ]
    assert [row["answer"].lower() in ("1", "yes") for row in rows] == [True, False]
    reference = None if layout == TSV else "It is smaller."
    assert [row.get("reference") for row in rows] == [reference] * 2


@pytest.mark.parametrize("layout", layouts_of("hallusionbench"))
def test_ids(layout: str, tmp_path: Path) -> None:
    found = read_items("hallusionbench", str(standin("hallusionbench", layout, tmp_path)))
    assert found.items["id"].to_list() == ["VD_illusion_4_0_1", "VS_chart_4_1_1"]
    assert found.set_aside.rows() == [("VS_chart_4_0_1", "no image")] * (layout == ORIGINAL)


def test_the_hub_split_without_figures_has_nothing_to_ask(tmp_path: Path) -> None:
    path = standin("hallusionbench", HUB, tmp_path)
    with pytest.raises(PeeralignError, match="no image"):
        read_items("hallusionbench", str(path), split="non_image")


def test_an_index_without_keys_is_set_aside(tmp_path: Path) -> None:
    row = {"question": "Is it?", "answer": "Yes", "image": base64_of("red")}
    rows = [{"index": "VD_map_1_0_0", **row}, {"index": "17", **row}]
    path = write_tsv(tmp_path / "HallusionBench.tsv", rows)
    found = read_items("hallusionbench", str(path))
    assert found.set_aside["reason"].to_list() == ["its index names no figure: 17"]


def test_names_of_figures_with_their_folder(tmp_path: Path) -> None:
    """The authors' README shows them so; the file has them without it."""
    path = standin("hallusionbench", ORIGINAL, tmp_path)
    rows = json.loads((path / "HallusionBench.json").read_text())
    rows[0]["filename"] = rows[0]["filename"].replace("./", "./hallusion_bench/")
    write_json(path / "HallusionBench.json", rows)
    found = read_items("hallusionbench", str(path))
    names = [json.loads(row)["image"] for row in found.items["row"]]
    assert names == ["VD/illusion/4_0.png", "VS/chart/4_1.png"]
