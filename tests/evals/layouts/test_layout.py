"""Layouts by name, and what all of them say."""

from __future__ import annotations

from pathlib import Path

import pytest

from peeralign.errors import PeeralignError
from peeralign.evals import benchmarks, layouts
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV, Layout
from peeralign.evals.layouts.prompts import check_template

WRITTEN = [
    name for name in layouts.NAMES if (Path(layouts.__file__).parent / f"{name}.py").exists()
]


def test_names_are_those_of_benchmarks() -> None:
    assert set(layouts.NAMES) == set(benchmarks.NAMES) - {"chair"}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_layout_says_where_its_files_are(name: str) -> None:
    layout = layouts.find(name)
    assert layout.title == benchmarks.find(name).title
    kinds = [form.kind for form in layout.forms]
    assert layout.hub or HUB not in kinds
    assert bool(layout.tsv) == (TSV in kinds)
    assert layout.original or ORIGINAL not in kinds
    check_template(layout.prompt)
    if layout.prompt_without_options is not None:
        check_template(layout.prompt_without_options)
    # A sentence without an end, for others to hold.
    assert layout.places()
    assert not layout.places().endswith(".")


def test_a_name_however_written() -> None:
    assert layouts.find("Chart-QA").title == "ChartQA"
    with pytest.raises(PeeralignError, match=r"^no files of 'chair' can be read, only those of "):
        layouts.find("chair")


def test_places_that_there_are() -> None:
    assert Layout("Set", (), "{question}", original="https://example.com").places() == (
        "the authors (https://example.com)"
    )


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("pope", "VLMEval/POPE.tsv"),
        ("mmbench", "benchmarks/MMBench/MMBench_DEV_EN.tsv"),
        ("mmbench", "benchmarks/MMBench/MMBench_DEV_CN_V11.tsv"),
        ("seedbench", "benchmarks/SEEDBench/SEEDBench_IMG.tsv"),
        ("scienceqa", "benchmarks/ScienceQA/ScienceQA_TEST.tsv"),
    ],
)
def test_tables_lie_in_several_folders_of_a_server(name: str, address: str) -> None:
    assert f"https://opencompass.openxlab.space/utils/{address}" in layouts.find(name).places()
