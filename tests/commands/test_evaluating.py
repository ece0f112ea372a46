"""`peeralign eval` as a user calls it: tables, JSON, suites, runs and mistakes."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from evals.standins import standin
from typer.testing import CliRunner

from peeralign.classroom.peers import shipped_peer
from peeralign.cli import app, guarded
from peeralign.evals.layouts.layout import HUB, ORIGINAL
from peeralign.recipes.afterwards import rounds_of
from peeralign.recipes.evaluate import EvalConfig
from peeralign.recipes.loop import CONFIG
from peeralign.report import write_report
from peeralign.store.run import Run, write_json

RUNNER = CliRunner()
ASKED = ("--max-new-tokens", "4")


@pytest.fixture
def chartqa(tmp_path: Path) -> str:
    return str(standin("chartqa", HUB, tmp_path / "chartqa"))


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    """A run of one round whose members have learnt nothing."""
    folder = tmp_path / "run"
    settings = {
        "members": [{"name": name, "model": f"classroom:{name}"} for name in ("ada", "ben")],
        "pool": {"path": "classroom:pool-0"},
    }
    Run.open(folder, "pop", settings, 0)
    for name in ("ada", "ben"):
        shutil.copytree(shipped_peer(name), folder / "round-1" / "members" / name)
    write_json(folder / CONFIG, settings)
    return folder


def run(*arguments: str) -> str:
    done = RUNNER.invoke(app, ["eval", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = guarded(lambda: app(["eval", *arguments], standalone_mode=False))
    assert code == 2
    return capsys.readouterr().err


def test_the_table_names_protocol_figure_and_interval(chartqa: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ("--benchmark", "ChartQA", "--data", chartqa, "--out", str(out), *ASKED)
    text = run("--member", "classroom:ada", "--member", "classroom:ben", *common)
    for word in ("ada", "ben", "ChartQA", "relaxed_accuracy, %", "official", "Chart & OCR"):
        assert word in text
    figures = json.loads(
        run("--member", "classroom:ada", "--member", "classroom:ben", *common, "--json")
    )
    assert figures == json.loads((out / "figures.json").read_text())
    assert set(figures["benchmarks"][0]["members"]) == {"ada", "ben"}


def test_a_suite_names_several_benchmarks(chartqa: str, tmp_path: Path) -> None:
    pope = standin("pope", HUB, tmp_path / "pope")
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'block_size = 2\n[[benchmarks]]\nname = "chartqa"\ndata = "{chartqa}"\nlimit = 1\n'
        f'[[benchmarks]]\nname = "pope"\ndata = "{pope}"\nprotocol = "vlmevalkit"\n'
    )
    given = ("--member", "classroom:ada", "--suite", str(suite), *ASKED)
    figures = json.loads(run(*given, "--limit", "2", "--json", "--out", str(tmp_path / "out")))
    said = [(e["name"], e["protocol"], e["limit"]) for e in figures["benchmarks"]]
    # What an entry says itself counts.
    assert said == [("chartqa", "official", 1), ("pope", "vlmevalkit", 2)]
    text = run(*given, "--limit", "2", "--out", str(tmp_path / "out"))
    assert "Average of 2, %" in text
    assert "ChartQA: only its first 1 item\n" in text
    again = run(*given, "--out", str(tmp_path / "other"))
    assert "POPE: only" not in again


def test_the_settings_of_a_suite_are_printed() -> None:
    done = RUNNER.invoke(app, ["config", "eval"], catch_exceptions=False)
    printed = tomllib.loads(done.stdout)
    assert printed["block_size"] == EvalConfig(benchmarks=()).block_size
    assert "protocol" in printed["benchmarks"][0]
    assert "recipe" not in printed


def test_a_run_is_evaluated_after_every_round(chartqa: str, small_run: Path) -> None:
    given = ("--run", str(small_run), "--benchmark", "chartqa", "--data", chartqa, *ASKED)
    figures = json.loads(run(*given, "--json"))
    assert (small_run / "evals" / "figures.json").is_file()
    assert figures["rounds"]["ada-round-1"] == ["ada", 1]
    # Its replies are its own wherever it lies.
    moved = small_run.rename(small_run.with_name("moved"))
    given = ("--run", str(moved), *given[2:])
    assert json.loads(run(*given, "--json")) == figures
    page = write_report(moved).read_text()
    assert '<section id="benchmarks">' in page
    assert "relaxed_accuracy, %" in page
    assert page.count("<svg") > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--member", "classroom:ada"), "no benchmark was named"),
        (("--benchmark", "chartqa", "--data", "x"), "give one of --member"),
        (
            ("--member", "classroom:ada", "--benchmark", "chartqa"),
            "1 benchmarks and 0 files; give one --data for each --benchmark",
        ),
        (
            ("--member", "classroom:ada", "--benchmark", "chartqa", "--data", "nowhere.parquet"),
            "lmms-lab/ChartQA",
        ),
        (
            ("--member", "classroom:ada", "--benchmark", "chartqa", "--data", "x", "--limit", "0"),
            "benchmarks.0.limit",
        ),
        (("--member", "classroom:ada", "--suite", "nowhere.toml"), "no suite at nowhere.toml"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = mistake(capsys, *arguments, "--out", str(tmp_path / "out"))
    assert sentence in " ".join(said.split())
    assert said.count("error:") == 1


def test_a_mistake_can_be_put_right_in_the_same_folder(
    chartqa: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--member", "classroom:ada", "--benchmark", "chartqa", *ASKED)
    out = ("--out", str(tmp_path / "out"), "--limit", "2")
    mistake(capsys, *given, "--data", "nowhere.parquet", *out)
    mistake(capsys, *given, "--data", chartqa, *out, "--set", "benchmarks.0.prompt={nothing}")
    figures = json.loads(run(*given, "--data", chartqa, *out, "--json"))
    assert figures["benchmarks"][0]["members"]["ada"]["num_rows"] == 2
    # Replies to two items are none to three.
    said = mistake(capsys, *given, "--data", chartqa, "--out", str(tmp_path / "out"))
    assert "made with other settings" in " ".join(said.split())


def test_members_and_benchmarks_can_be_added(
    chartqa: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pope = str(standin("pope", HUB, tmp_path / "pope"))
    first = ("--member", "classroom:ada", "--benchmark", "chartqa", "--data", chartqa)
    more = (*first, "--member", "classroom:ben", "--benchmark", "pope", "--data", pope)
    given = (*ASKED, "--json", "--out", str(tmp_path / "out"))
    run(*first, *given)
    replies = tmp_path / "out" / "predictions" / "chartqa" / "ada"
    before = (replies / "done.json").stat().st_mtime_ns
    grown = run(*more, *given)
    assert (replies / "done.json").stat().st_mtime_ns == before
    assert grown == run(*more, *ASKED, "--json", "--out", str(tmp_path / "at-once"))
    mmvet = ("--benchmark", "mmvet", "--data", str(standin("mmvet", HUB, tmp_path / "mmvet")))
    itself = (*more, *mmvet, "--judge", "classroom:ben")
    assert "--allow-self-judging" in mistake(capsys, *itself, *given)
    marked = json.loads(run(*itself, "--allow-self-judging", *given))
    assert marked["self_judging"] == ["ben"]
    said = mistake(capsys, "--run", str(tmp_path / "out"), "--benchmark", "pope", "--data", pope)
    assert "holds no run with rounds, it was made by the recipe 'eval'" in " ".join(said.split())
    # What was asked is not taken back: the figures would no longer be those of the folder.
    assert "made with other settings" in " ".join(mistake(capsys, *first, *given).split())


def test_a_readout_that_a_judge_cannot_give_stops_before_anybody_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mmhal = str(standin("mmhal", ORIGINAL, tmp_path / "mmhal"))
    given = ("--member", "classroom:ada", "--benchmark", "mmhal", "--data", mmhal, *ASKED)
    judged = ("--judge", "classroom:ben", "--out", str(tmp_path / "out"))
    said = mistake(capsys, *given, *judged, "--set", "readout=expected")
    assert "the local judge 'ben' cannot wait for" in " ".join(said.split())
    assert not (tmp_path / "out").exists()


def test_a_benchmark_without_a_score_leaves_the_others_theirs(chartqa: str, tmp_path: Path) -> None:
    # Peers of the classroom know no rubric but their own: no reference answer gets a grade.
    llava = str(standin("llavabench", HUB, tmp_path / "llavabench"))
    given = ("--member", "classroom:ada", "--judge", "classroom:ben", *ASKED)
    data = ("--benchmark", "llavabench", "--data", llava, "--benchmark", "chartqa", "--data")
    text = run(*given, *data, chartqa, "--out", str(tmp_path / "out"))
    assert "LLaVA-Bench: no score: no judge graded a reference answer: ada" in text
    entries = json.loads((tmp_path / "out" / "figures.json").read_text())["benchmarks"]
    scores = {entry["name"]: entry["members"]["ada"]["score"] for entry in entries}
    assert scores["llavabench"] is None
    assert scores["chartqa"] is not None


def test_without_a_folder(capsys: pytest.CaptureFixture[str], chartqa: str) -> None:
    given = ("--member", "classroom:ada", "--benchmark", "chartqa", "--data", chartqa)
    assert "--out is missing" in mistake(capsys, *given)


def test_a_round_that_trains_yet_has_no_members(small_run: Path) -> None:
    def rounds() -> list[tuple[str, int]]:
        return [label for _, label in rounds_of(small_run)]

    first = [("ada", 0), ("ben", 0), ("ada", 1), ("ben", 1)]
    state = Run.existing(small_run)
    state.stage(2, "candidates", "ada").finish()
    assert rounds() == first
    shutil.copytree(shipped_peer("ada"), state.checkpoint(2, "ada"))
    assert rounds() == [*first, ("ada", 2)]
    # ben had nothing to learn.
    state.stage(2, "training-log", "ben").finish(rows=0)
    assert rounds() == [*first, ("ada", 2), ("ben", 2)]


def test_a_member_s_panel_may_not_grade_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small_run: Path
) -> None:
    mmvet = str(standin("mmvet", HUB, tmp_path / "mmvet"))
    trained = str(small_run / "round-1" / "members" / "ada")
    given = ("--member", trained, "--benchmark", "mmvet", "--data", mmvet)
    out = ("--out", str(tmp_path / "out"))
    # ben rewarded what ada was trained on, before its own training and after it.
    for judge in ("classroom:ben", str(small_run / "round-1" / "members" / "ben")):
        said = mistake(capsys, *given, "--judge", judge, *out)
        assert "rewarded a member's training, so it may not grade" in " ".join(said.split())
