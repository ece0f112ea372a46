"""`peeralign judge-eval`: its figures as one object, its tables, and what it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evals.judged import PAIRS, RANKINGS, SCORES, write

from peeralign.cli import app, guarded
from peeralign.evals.judge_eval import FIGURES, INTERVALS, judge_eval
from peeralign.store.verdicts import read_pairs, read_rankings, read_scores

GOLDEN = Path(__file__).parent / "judge_eval.json"
Command = Callable[..., str]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Options that name the three files."""
    tables = {"scores": SCORES, "pairs": PAIRS, "rankings": RANKINGS}
    return {
        f"--{kind}": str(write(tmp_path / f"{kind}.jsonl", rows)) for kind, rows in tables.items()
    }


@pytest.fixture
def evaluated(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command, which must work; what it printed."""

    def run(*arguments: str) -> str:
        code = guarded(lambda: app(["judge-eval", *arguments], standalone_mode=False))
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        return printed.out

    return run


def options(files: dict[str, str], *names: str) -> list[str]:
    return [part for name in names or files for part in (name, files[name])]


def test_the_whole_object(evaluated: Command, files: dict[str, str]) -> None:
    found = json.loads(evaluated(*options(files), "--json"))
    assert found == json.loads(GOLDEN.read_text())


def test_its_figures_by_hand() -> None:
    golden = json.loads(GOLDEN.read_text())
    # r is 1/2 in one set and 1 in the other; of chat's three pairs of models one is reversed.
    assert golden["pearson"] == 0.75
    assert golden["kendall_tau"] == pytest.approx((1 / 3 + 1) / 2, abs=1e-6)
    assert golden["coverage"] == pytest.approx((7 + 6 + 2) / (8 + 7 + 3), abs=1e-6)
    assert golden["accuracy_with_ties"] == pytest.approx(2 / 6, abs=1e-6)
    assert golden["accuracy_without_ties"] == pytest.approx(1 / 3, abs=1e-6)
    assert golden["accuracy_with_ties_unscored_wrong"] == pytest.approx(2 / 7, abs=1e-6)
    assert golden["accuracy_without_ties_unscored_wrong"] == pytest.approx(1 / 4, abs=1e-6)
    assert golden["first_position_share"] == 0.75
    assert golden["order_consistency"] == 0.5
    assert golden["ranking_distance"] == 0.5
    # b's points are 0, 1, 1, 1, 1/2 where the reference gives it 0, 0, 1/2, 1/2, 1/2.
    assert golden["self_preference_gap_pairs"] == pytest.approx(2 / 5)
    assert golden["elo"]["d"] == {"rating": None, "low": None, "high": None}
    ratings = [golden["elo"][name]["rating"] for name in "abc"]
    assert sum(ratings) == pytest.approx(3000, abs=0.02)
    assert ratings[1] > ratings[2] > ratings[0]


def test_its_black_images_by_hand() -> None:
    golden = json.loads(GOLDEN.read_text())
    # chat: 1, 3, 2 with the image and 2, 3, 1 without, of the reference 1, 2, 3. text: no change.
    assert golden["black_image_pearson"] == (0.5 + 1) / 2
    assert golden["pearson_without_image"] == (-0.5 + 1) / 2
    change = (2 / 3) / (2 / 3) ** 0.5
    assert golden["black_image_change"] == pytest.approx((change + 0) / 2, abs=1e-6)
    # Five pairs have both verdicts; three that the reference decides have one without the image.
    assert golden["black_image_verdict_change"] == 3 / 5
    assert golden["accuracy_without_ties_without_image"] == pytest.approx(2 / 3, abs=1e-6)
    assert golden["ranking_distance_without_image"] == (0 + 1) / 2
    assert golden["coverage_scores_without_image"] == 6 / 8
    assert golden["coverage_pairs_without_image"] == pytest.approx(6 / 7, abs=1e-6)
    assert golden["coverage_rankings_without_image"] == pytest.approx(2 / 3, abs=1e-6)


def test_its_intervals_by_hand() -> None:
    golden = json.loads(GOLDEN.read_text())["intervals"]
    # Three items, so 27 resamples of equal chance. Of these 7 hold chat but not text's item 1,
    # 7 the other way round, and in one, of a single row, nothing is defined.
    assert golden["pearson"] == {"low": 0.5, "high": 1.0}
    assert golden["kendall_tau"] == {"low": pytest.approx(1 / 3, abs=1e-6), "high": 1.0}
    # Items 1 and 3 have half of their pairs right, item 2 none: it comes thrice in 1 of 27.
    assert golden["accuracy_with_ties"] == {"low": 0.0, "high": 0.5}
    assert golden["accuracy_without_ties"] == {"low": 0.0, "high": 0.5}
    # Both scored rankings are half wrong.
    assert golden["ranking_distance"] == {"low": 0.5, "high": 0.5}


def nulls(table: dict[str, Any]) -> set[str]:
    found = {name for name, value in table.items() if value is None}
    for name in ("elo", "elo_reference"):
        ratings = table.get(name) or {}
        found |= {f"{name}.{model}" for model, entry in ratings.items() if entry["rating"] is None}
    intervals = table.get("intervals", {})
    return found | {f"intervals.{name}" for name, entry in intervals.items() if entry is None}


@pytest.mark.parametrize(
    "given", [("--scores",), ("--pairs",), ("--rankings",), ("--scores", "--pairs"), ()]
)
def test_every_figure_is_there_and_every_null_has_its_reason(
    evaluated: Command, files: dict[str, str], given: tuple[str, ...]
) -> None:
    found = json.loads(evaluated(*options(files, *given), "--json"))
    named = {name for figures in FIGURES.values() for name in figures}
    assert named | {"coverage", "elo", "elo_reference", "elo_tau"} <= found.keys()
    assert found["intervals"].keys() == {name for _, names in INTERVALS.values() for name in names}
    assert nulls(found) == found["reasons"].keys() - {"elo.low", "elo_reference.low"}
    for entry in found["sets"].values():
        assert nulls(entry) == entry["reasons"].keys()
    for kind, figures in FIGURES.items():
        if given and f"--{kind}" not in given:
            assert all(found[name] is None for name in figures)
            assert f"num_{kind}" not in found


def test_a_judge_that_says_nothing(evaluated: Command, tmp_path: Path) -> None:
    silent = [{**row, "score": None, "score_without_image": None} for row in SCORES]
    mute = [{**row, "verdict": None, "verdict_without_image": None} for row in PAIRS]
    found = json.loads(
        evaluated(
            "--scores",
            str(write(tmp_path / "s.jsonl", silent)),
            "--pairs",
            str(write(tmp_path / "p.jsonl", mute)),
            "--json",
        )
    )
    strict = ("accuracy_with_ties_unscored_wrong", "accuracy_without_ties_unscored_wrong")
    coverages = {"coverage", "coverage_scores", "coverage_pairs"}
    for name in {name for figures in FIGURES.values() for name in figures} | {"elo", "elo_tau"}:
        assert found[name] == (0.0 if name in {*strict, *coverages} else None), name
        assert found[name] is not None or found["reasons"][name]
    assert set(found["intervals"].values()) == {None}
    assert found["reasons"]["intervals.pearson"] == "fewer than two scored items"


def test_the_seed_moves_the_intervals_alone(evaluated: Command, tmp_path: Path) -> None:
    copies = [{**row, "item": f"{copy}-{row['item']}"} for copy in range(5) for row in PAIRS]
    many = write(tmp_path / "many.jsonl", copies)
    first, again, other = (
        json.loads(evaluated("--pairs", str(many), "--json", "--seed", seed))
        for seed in ("0", "0", "1")
    )
    assert first == again
    moved = ("elo", "elo_reference", "intervals")
    assert all(other[name] != first[name] for name in moved)
    assert {**other, **{name: first[name] for name in moved}} == first
    assert other["elo"]["a"]["rating"] == first["elo"]["a"]["rating"]


def test_the_tables(evaluated: Command, files: dict[str, str]) -> None:
    printed = evaluated(*options(files))
    for text in ("pearson", "0.750", "Pairs, 7 rows", "Elo ratings", "By set", "ranking_distance"):
        assert text in printed
    assert "0.500 to 1.000" in printed
    assert "elo.d: no scored pair with another model" in printed
    alone = evaluated("--scores", files["--scores"])
    assert "Pairs" not in alone
    assert "were given" not in alone


def test_what_was_not_asked_takes_no_room(evaluated: Command, tmp_path: Path) -> None:
    seeing = [{k: v for k, v in row.items() if k != "score_without_image"} for row in SCORES]
    path = str(write(tmp_path / "s.jsonl", seeing))
    assert "black" not in evaluated("--scores", path)
    found = json.loads(evaluated("--scores", path, "--json"))
    for name in ("pearson_without_image", "black_image_pearson", "black_image_change"):
        assert found[name] is None
        assert found["reasons"][name] == "no row has a verdict without the image"


def test_names_cannot_command_the_terminal(evaluated: Command, tmp_path: Path) -> None:
    rows = [{**row, "model_a": "[red]\x1b[2J" + row["model_a"]} for row in PAIRS]
    rows = [{**row, "set": "[bold]s" + str(n % 2)} for n, row in enumerate(rows)]
    printed = evaluated("--pairs", str(write(tmp_path / "p.jsonl", rows)))
    assert "\x1b" not in printed
    assert "[bold]s" in printed


def test_it_needs_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert guarded(lambda: app(["judge-eval"], standalone_mode=False)) == 2
    assert "give --scores, --pairs or --rankings" in capsys.readouterr().err
    arguments = ["judge-eval", "--pairs", str(tmp_path / "none.jsonl")]
    assert guarded(lambda: app(arguments, standalone_mode=False)) == 2
    assert "the file does not exist" in capsys.readouterr().err


def test_it_imports_no_torch(files: dict[str, str]) -> None:
    code = (
        "import sys\nfrom peeralign.cli import app\n"
        f"app(['judge-eval', *{options(files)!r}, '--json'], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_tables_may_be_given_without_files(files: dict[str, str]) -> None:
    tables = [
        read_scores(Path(files["--scores"])),
        read_pairs(Path(files["--pairs"])),
        read_rankings(Path(files["--rankings"])),
    ]
    assert judge_eval(*tables) == json.loads(GOLDEN.read_text())
