"""A comparison in words and on the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from evals.folders import gqa, write_eval
from rich.console import Console

from peeralign.evals.compare import compare
from peeralign.evals.sheets import open_side
from peeralign.report.compare import print_comparison, result_sentence, texts_of

A, B = "111100001100", "111011001100"


def compared(tmp_path: Path, **members: tuple[str, str]) -> dict:
    """Figures of benchmarks, each with A's and B's answers of one member."""
    sides = [
        open_side(
            write_eval(
                tmp_path / name,
                {task: {"[red]x": gqa(both[side])} for task, both in members.items()},
            ),
            None,
        )
        for side, name in enumerate("ab")
    ]
    return compare(*sides, resamples=200).figures


def printed(figures: dict) -> str:
    console = Console(file=io.StringIO(), width=100, soft_wrap=True)
    print_comparison(figures, console)
    return console.file.getvalue()


def test_numbers() -> None:
    share = {"a": 0.61849, "b": 0.6181, "difference": -0.00039, "interval": [-0.1, 0.01], "p": 1.0}
    assert texts_of(share) == (
        *("0.618", "0.618", "+0.000"),
        "−0.100 to +0.010",  # noqa: RUF001
        "1.000",
    )
    points = {"a": 1850.04, "b": 1838, "difference": -12.04, "interval": [-30, 0.4], "p": 0.0004}
    assert texts_of(points) == (
        *("1850.0", "1838.0", "−12.0"),  # noqa: RUF001
        "−30.0 to +0.4",  # noqa: RUF001
        "<0.001",
    )
    nothing = dict.fromkeys(("a", "b", "difference", "interval", "p"))
    assert texts_of(nothing) == ("-",) * 5


def test_the_protocol_stands_beside_every_figure(tmp_path: Path) -> None:
    text = printed(compared(tmp_path, gqa=(A, B), pope=("0" * 12, "1" * 12)))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert f"A: {tmp_path / 'a'}" in lines
    assert lines.count("GQA, official") == 2
    # POPE has other figures, too.
    assert lines.count("POPE, official") == 3
    row = next(line for line in lines if line.startswith("[red]x 0.500"))
    assert row.startswith("[red]x 0.500 0.583 +0.083")
    assert "[red]x 12 0 0 2 9 1 1.000" in lines
    # Twelve of twelve: 2 / 2^12.
    assert "[red]x 12 0 0 12 0 0 <0.001" in lines
    assert "Holm" in text
    assert any(line.startswith("recall 12 ") for line in lines)


def test_one_benchmark_needs_no_correction(tmp_path: Path) -> None:
    figures = compared(tmp_path, gqa=(A, B))
    assert "Holm" not in printed(figures)
    assert "Other figures" not in printed(figures)
    said = texts_of(figures["benchmarks"][0]["pairs"][0]["figures"]["accuracy"])
    assert result_sentence(figures) == (
        "GQA, protocol official: accuracy 0.500 in A and 0.583 in B, a difference of +0.083, 95 % "
        f"interval {said.interval}."
    )


def test_several_in_a_sentence(tmp_path: Path) -> None:
    figures = compared(tmp_path, gqa=(A, B), pope=("0" * 12, "1" * 12), ocrvqa=("1" * 12, "0" * 12))
    assert result_sentence(figures) == (
        "Of 3 differences, 2 have a 95 % interval without 0: B is higher in 1 of them and lower in "
        "1."
    )


def test_what_was_passed_over_is_said(tmp_path: Path) -> None:
    a = write_eval(tmp_path / "a", {"gqa": {"x": gqa(A)}, "pope": {"x": gqa(A)}})
    b = write_eval(tmp_path / "b", {"gqa": {"x": gqa(B)}}, prompt="[red]{question}")
    text = printed(compare(open_side(a, None), open_side(b, None), resamples=200).figures)
    assert "not compared: pope, B has no answers to it" in text
    assert "gqa was asked with prompt None in A and '[red]{question}' in B" in text


@pytest.mark.parametrize("name", ["a\x1b[2J", "b\u202e"])
def test_names_do_not_command_the_terminal(tmp_path: Path, name: str) -> None:
    rows = [{**row, "category": name} for row in gqa(A)]
    sides = [open_side(write_eval(tmp_path / s, {"gqa": {"x": rows}}), None) for s in "ab"]
    text = printed(compare(*sides, resamples=200).figures)
    assert "category" in text or "x" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
