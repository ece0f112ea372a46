"""Evaluating members: every published layout end to end, judges, panels, resuming, mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from evals.standins import layouts_of, png, standin, write_shard

from peeralign.engines.base import AnswerRequest, Draw, JudgeRequest, Readout, Sampling
from peeralign.errors import PeeralignError
from peeralign.evals import layouts
from peeralign.evals.asked import BenchmarkConfig
from peeralign.evals.export import export_vlmevalkit
from peeralign.evals.judged import GRADINGS
from peeralign.evals.layouts.layout import HUB, ORIGINAL, TSV
from peeralign.evals.score import score_file
from peeralign.judging.verdict import Verdict, parse_verdict
from peeralign.panel import Member, Panel, Server
from peeralign.progress import Reporter
from peeralign.recipes import evaluate as recipe
from peeralign.recipes import together as joint
from peeralign.recipes.answer import AnswerConfig
from peeralign.recipes.evaluate import EvalConfig, Who, evaluate
from peeralign.recipes.together import Together
from peeralign.stages.generate import GenerateConfig
from peeralign.stages.judge import JudgeConfig

ADA = Member(name="ada", model="classroom:ada")
BEN = Member(name="ben", model="classroom:ben")
Row = dict[str, Any]


class Parrot:
    """Answers by the question's text; judges by the answer's length."""

    def __init__(self, replies: dict[str, str | None] | None = None, reply: str = "no") -> None:
        self.replies = replies or {}
        self.reply = reply
        self.asked: list[str] = []
        self.judged: list[str] = []
        self.is_closed = False

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        self.asked += [request.text for request in requests]
        texts = [self.replies.get(request.text.split("\n")[0], self.reply) for request in requests]
        return [[Draw(text, 1)] * sampling.num_draws for text in texts]

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        self.judged += [text for request in requests for text in request.texts]
        return [
            [
                parse_verdict(request.form.write([len(text.split("|")[1])]), request.form)
                for text in request.texts
            ]
            for request in requests
        ]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let these engines be opened instead of models; who was opened, in order."""

    def use(**engines: Parrot) -> list[str]:
        opened: list[str] = []

        def open_engine(member: Member, min_label_mass: float = 0.5) -> Parrot:
            opened.append(member.name)
            return engines[member.name]

        for module in (recipe, joint):
            monkeypatch.setattr(module, "open_engine", open_engine)
        monkeypatch.setattr(recipe, "check_member", lambda member: None)
        monkeypatch.setattr(recipe, "check_answering", lambda panel, config: None)
        return opened

    return use


def charts(folder: Path, *answers: str, bad: int = 0) -> str:
    """A file like ChartQA's on the hub; the last images are broken."""
    rows = [
        {
            "question": f"q{place}",
            "answer": answer,
            "type": "human_test",
            "image": {"bytes": png("red"), "path": None}
            if place < len(answers) - bad
            else {"bytes": b"none", "path": None},
        }
        for place, answer in enumerate(answers)
    ]
    file = folder / "chartqa.parquet"
    write_shard(file, rows)
    return str(file)


def rubric(folder: Path, scale: str = "[0, 10]") -> str:
    file = folder / "length.toml"
    file.write_text(
        f'version = 1\naxes = ["points"]\nscale = {scale}\nprompt = "{{question}}|{{answer}}|"\n'
    )
    return str(file)


def config(*benchmarks: BenchmarkConfig, **settings: Any) -> EvalConfig:
    return EvalConfig(benchmarks=benchmarks, **settings)


def chart(data: str, **settings: Any) -> BenchmarkConfig:
    return BenchmarkConfig(name="chartqa", data=data, **settings)


def lines(out: Path, benchmark: str, label: str) -> list[Row]:
    text = (out / "rows" / benchmark / f"{label}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("layout", [HUB, TSV, ORIGINAL])
def test_every_layout_end_to_end(layout: str, tmp_path: Path) -> None:
    names = [name for name in layouts.NAMES if layout in layouts_of(name)]
    assert len(names) >= 10
    given = [
        BenchmarkConfig(
            name=name,
            data=str(standin(name, layout, tmp_path / name)),
            max_new_tokens=4,
            # The classroom's judges know no other rubric.
            rubric="classroom" if name in GRADINGS and not GRADINGS[name].is_optional else None,
        )
        for name in names
    ]
    out = tmp_path / "out"
    settings = config(*given, readout="expected", min_label_mass=0.0)
    figures = evaluate(Who((ADA,), (BEN,)), out, settings, Reporter())
    assert [entry["name"] for entry in figures["benchmarks"]] == names
    for entry in figures["benchmarks"]:
        score = entry["members"]["ada"]
        assert entry["layout"] == layout
        assert score["num_rows"] > 0
        assert score["score"] is not None
        assert ("judge" in score) == (entry["name"] in GRADINGS)
        # What was written is what `peeralign score` reads.
        again = score_file(entry["name"], out / "rows" / entry["name"] / "ada.jsonl")
        assert again == {key: score[key] for key in again}
        for row in lines(out, entry["name"], "ada"):
            assert {"id", "prediction", "question", "graded", "parsed"} <= row.keys()
    assert json.loads((out / "figures.json").read_text()) == figures
    # What was asked from VLMEvalKit's own files goes back to it whole.
    done = export_vlmevalkit(out, tmp_path / "kit")
    left = {entry["benchmark"] for entry in done["left_out"]}
    # The rotations of the stand-in for MMBench are made: VLMEvalKit has no index for them.
    assert left == ({"llavabench", "mmbench"} if layout == TSV else left)
    assert {file["benchmark"] for file in done["files"]} | left == set(names)


def test_figures_of_several_members(tmp_path: Path, engines: Callable[..., list[str]]) -> None:
    opened = engines(ada=Parrot({"q0": "12", "q1": "dog"}), ben=Parrot({"q0": "12.4", "q1": None}))
    data = charts(tmp_path, "12", "dog", "cat", bad=1)
    out = tmp_path / "out"
    figures = evaluate(Who((ADA, BEN)), out, config(chart(data)), Reporter())
    (entry,) = figures["benchmarks"]
    assert {label: score["score"] for label, score in entry["members"].items()} == {
        "ada": 1.0,
        "ben": 0.5,
    }
    assert entry["num_set_aside"] == 1
    assert sum(entry["reasons"].values()) == 1
    assert figures["averages"]["ben"] == {"Chart & OCR": 50.0, "Average": 50.0}
    # A missing reply is wrong and stays in; a broken image is nobody's fault and does not.
    assert [
        (row["prediction"], row["graded"], row["parsed"]) for row in lines(out, "chartqa", "ben")
    ] == [
        ("12.4", 1.0, "parsed"),
        (None, 0.0, "none"),
    ]
    assert opened == ["ada", "ben"]
    assert "unanswered" not in entry["members"]["ada"]
    assert entry["members"]["ben"]["unanswered"] == {"no text": 1}


def test_a_member_is_loaded_once_for_all_benchmarks(
    tmp_path: Path, engines: Callable[..., list[str]]
) -> None:
    ada = Parrot()
    opened = engines(ada=ada)
    pope = BenchmarkConfig(name="POPE", data=str(standin("pope", HUB, tmp_path / "pope")))
    given = config(chart(charts(tmp_path, "1", "2")), pope)
    evaluate(Who((ADA,)), tmp_path / "out", given, Reporter())
    assert opened == ["ada"]
    assert ada.is_closed
    # The same call again asks nobody.
    engines()
    evaluate(Who((ADA,)), tmp_path / "out", given, Reporter())


def test_it_goes_on_where_it_stopped(tmp_path: Path, engines: Callable[..., list[str]]) -> None:
    class Tired(Parrot):
        def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
            if len(self.asked) >= 2:
                raise KeyboardInterrupt
            return super().answer(requests, sampling)

    replies = {f"q{place}": str(place) for place in range(5)}
    given = config(chart(charts(tmp_path, *"01234")), block_size=1)
    engines(ada=Parrot(dict(replies)))
    whole = evaluate(Who((ADA,)), tmp_path / "whole", given, Reporter())
    engines(ada=Tired(dict(replies)))
    with pytest.raises(KeyboardInterrupt):
        evaluate(Who((ADA,)), tmp_path / "out", given, Reporter())
    rested = Parrot(dict(replies))
    engines(ada=rested)
    assert evaluate(Who((ADA,)), tmp_path / "out", given, Reporter()) == whole
    assert len(rested.asked) == 3
    for name in ("figures.json", "rows/chartqa/ada.jsonl", "items/chartqa.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_data_that_changed_or_other_settings_are_refused(
    tmp_path: Path, engines: Callable[..., list[str]]
) -> None:
    engines(ada=Parrot())
    out = tmp_path / "out"
    evaluate(Who((ADA,)), out, config(chart(charts(tmp_path, "1", "2"))), Reporter())
    data = charts(tmp_path, "1", "3")
    with pytest.raises(PeeralignError, match=r"has changed since .* was begun"):
        evaluate(Who((ADA,)), out, config(chart(data)), Reporter())
    with pytest.raises(PeeralignError, match=r"benchmarks\.0\.limit = None, not 1"):
        evaluate(Who((ADA,)), out, config(chart(data, limit=1)), Reporter())


def test_what_is_scored_together_is_lost_together(
    tmp_path: Path, engines: Callable[..., list[str]]
) -> None:
    path = standin("mme", HUB, tmp_path / "mme")
    (shard,) = path.rglob("*.parquet")
    pl.read_parquet(shard).head(3).write_parquet(shard)
    engines(ada=Parrot())
    given = config(BenchmarkConfig(name="mme", data=str(path)))
    figures = evaluate(Who((ADA,)), tmp_path / "out", given, Reporter())
    (entry,) = figures["benchmarks"]
    assert entry["reasons"] == {"without its other question": 1}
    assert entry["members"]["ada"]["num_rows"] == 2


def test_a_mistake_leaves_no_folder_that_refuses_its_correction(
    tmp_path: Path, engines: Callable[..., list[str]]
) -> None:
    engines(ada=Parrot())
    out = tmp_path / "out"
    for wrong, complaint in (
        (chart(str(tmp_path / "nowhere.tsv")), "nowhere.tsv"),
        (chart(charts(tmp_path, "1"), prompt="{answer}"), "{answer}"),
        (BenchmarkConfig(name="chair", data="x"), "no files of 'chair' can be read"),
    ):
        with pytest.raises(PeeralignError, match=complaint):
            evaluate(Who((ADA,)), out, config(wrong), Reporter())
    evaluate(Who((ADA,)), out, config(chart(charts(tmp_path, "1"))), Reporter())


def graded(
    folder: Path, name: str, scale: str = "[0, 10]", own: str | None = None
) -> BenchmarkConfig:
    data = str(standin(name, layouts_of(name)[0], folder / name))
    return BenchmarkConfig(name=name, data=data, rubric=own or rubric(folder, scale))


def test_judges_grade_what_needs_a_judge(tmp_path: Path, engines: Callable[..., list[str]]) -> None:
    long, short = Parrot(), Parrot()
    engines(ada=Parrot(reply="seven77"), long=long, short=short)
    judges = tuple(Member(name=name, model=f"none/{name}") for name in ("long", "short"))
    given = config(graded(tmp_path, "mmvet"), chart(charts(tmp_path, "1", "2")))
    figures = evaluate(Who((ADA,), judges), tmp_path / "out", given, Reporter())
    vet, charted = figures["benchmarks"]
    assert vet["members"]["ada"]["score"] == pytest.approx(70.0)
    assert vet["members"]["ada"]["judge"] == "long, short"
    assert "judge" not in charted["members"]["ada"]
    assert long.judged == short.judged
    # The judge reads the bare question, not the words that ask for a short answer.
    asked = {row["question"] for row in lines(tmp_path / "out", "mmvet", "ada")}
    assert {text.split("|")[0] for text in long.judged} == asked
    assert figures["self_judging"] == []


def test_a_rubric_that_changed_is_refused(
    tmp_path: Path, engines: Callable[..., list[str]]
) -> None:
    engines(ada=Parrot(reply="seven77"), eye=Parrot())
    judge = Member(name="eye", model="none/eye")
    given = config(graded(tmp_path, "mmvet"))
    evaluate(Who((ADA,), (judge,)), tmp_path / "out", given, Reporter())
    rubric(tmp_path, "[0, 20]")
    with pytest.raises(PeeralignError, match=r"other settings \(rubrics\.mmvet = "):
        evaluate(Who((ADA,), (judge,)), tmp_path / "out", given, Reporter())


def test_the_reference_is_graded_like_a_reply(
    tmp_path: Path, engines: Callable[..., list[str]]
) -> None:
    eye = Parrot()
    engines(ada=Parrot(reply="four"), eye=eye)
    judge = Member(name="eye", model="none/eye")
    given = graded(tmp_path, "llavabench", scale="[10, 100]")
    out = tmp_path / "out"
    figures = evaluate(Who((ADA,), (judge,)), out, config(given), Reporter())
    score = figures["benchmarks"][0]["members"]["ada"]
    rows = lines(out, "llavabench", "ada")
    # "four" is shorter than the scale, so nobody could read its score; references are not.
    assert {row["score"] for row in rows} == {None}
    assert [row["reference_score"] for row in rows] == [
        pytest.approx(len(row["answer"]) / 10) for row in rows
    ]
    assert score["num_none"] == score["num_rows"] == len(rows)
    assert len(eye.judged) == 2 * sum("|four|" in text for text in eye.judged)


def test_a_rubric_that_does_not_fit_the_benchmark(tmp_path: Path) -> None:
    judge = Member(name="eye", model="none/eye")
    for given, complaint in (
        (graded(tmp_path, "llavabench"), "starts at 0, and the scale of llavabench at 1 of 10"),
        (
            graded(tmp_path, "mmvet", own="pairwise"),
            "is pairwise; mmvet needs one that is absolute",
        ),
    ):
        with pytest.raises(PeeralignError, match=complaint):
            evaluate(Who((ADA,), (judge,)), tmp_path / "out", config(given), Reporter())
        assert not (tmp_path / "out" / "manifest.json").exists()


def test_without_a_judge(tmp_path: Path) -> None:
    with pytest.raises(PeeralignError, match=r"MM-Vet, protocol official, is graded by a judge"):
        evaluate(Who((ADA,)), tmp_path / "out", config(graded(tmp_path, "mmvet")), Reporter())
    wrong = chart(charts(tmp_path, "1"), rubric="classroom")
    with pytest.raises(PeeralignError, match="ChartQA is scored by rules; leave out rubric"):
        evaluate(Who((ADA,)), tmp_path / "out", config(wrong), Reporter())
    assert not (tmp_path / "out").exists()


def test_nobody_grades_itself_unseen(tmp_path: Path, engines: Callable[..., list[str]]) -> None:
    given = config(graded(tmp_path, "mmvet"))
    # The same model under another name.
    twin = ADA.model_copy(update={"name": "examiner"})
    for who in (
        Who((ADA,), (twin,)),
        Who((BEN,), (twin,), together=together(ADA, BEN)),
    ):
        with pytest.raises(PeeralignError, match="'examiner' is evaluated here or rewarded"):
            evaluate(who, tmp_path / "out", given, Reporter())
    engines(ada=Parrot(reply="seven77"), examiner=Parrot())
    allowed = given.model_copy(update={"allow_self_judging": True})
    figures = evaluate(Who((ADA,), (twin,)), tmp_path / "out", allowed, Reporter())
    assert figures["self_judging"] == ["examiner"]


def test_a_member_that_cannot_learn_is_evaluated(
    tmp_path: Path, engines: Callable[..., list[str]]
) -> None:
    engines(far=Parrot(reply="seven77"), eye=Parrot())
    server = Server(base_url="http://127.0.0.1:1/v1")
    far, eye = (Member(name=name, model=name, server=server) for name in ("far", "eye"))
    figures = evaluate(
        Who((far,), (eye,)), tmp_path / "out", config(graded(tmp_path, "mmvet")), Reporter()
    )
    assert figures["benchmarks"][0]["members"]["far"]["score"] == pytest.approx(70.0)


def together(*members: Member, num_draws: int = 2, rubric: str = "classroom") -> Together:
    answering = AnswerConfig(
        generate=GenerateConfig(num_draws=num_draws), judge=JudgeConfig(rubric=rubric)
    )
    return Together(Panel(members), answering, 0)


def test_a_panel_answers_as_one(tmp_path: Path, engines: Callable[..., list[str]]) -> None:
    # Longer answers are better: ben's first, ada's second.
    engines(
        ada=Parrot({"q0": "1", "q1": "2222"}),
        ben=Parrot({"q0": "333", "q1": "4"}),
    )
    data = charts(tmp_path, "333", "2222")
    who = Who((ADA, BEN), together=together(ADA, BEN, rubric=rubric(tmp_path)))
    out = tmp_path / "out"
    figures = evaluate(who, out, config(chart(data)), Reporter())
    (entry,) = figures["benchmarks"]
    assert figures["members"] == ["ada", "ben", "panel", "ada-best-of-2", "ben-best-of-2"]
    assert figures["single"] == ["ada", "ben"]
    assert {label: score["score"] for label, score in entry["members"].items()} == {
        "ada": 0.5,
        "ben": 0.5,
        "panel": 1.0,
        "ada-best-of-2": 0.5,
        "ben-best-of-2": 0.5,
    }
    assert [row["prediction"] for row in lines(out, "chartqa", "panel")] == ["333", "2222"]
    engines()
    assert evaluate(who, out, config(chart(data)), Reporter()) == figures


def test_a_panel_loads_each_member_once_a_stage(
    tmp_path: Path, engines: Callable[..., list[str]]
) -> None:
    opened = engines(ada=Parrot(), ben=Parrot())
    pope = BenchmarkConfig(name="pope", data=str(standin("pope", HUB, tmp_path / "pope")))
    who = Who((ADA, BEN), together=together(ADA, BEN, rubric=rubric(tmp_path)))
    given = config(chart(charts(tmp_path, "1", "2")), pope)
    evaluate(who, tmp_path / "out", given, Reporter())
    # Alone; then their draws for both benchmarks, then their verdicts.
    assert opened == ["ada", "ben"] * 3


def test_names_and_benchmarks_that_clash(tmp_path: Path) -> None:
    data = charts(tmp_path, "1")
    panel = ADA.model_copy(update={"name": "panel"})
    who = Who((panel,), together=together(panel))
    with pytest.raises(PeeralignError, match="cannot be named 'panel' here"):
        evaluate(who, tmp_path / "out", config(chart(data)), Reporter())
    twice = config(chart(data), BenchmarkConfig(name="ChartQA", data=data))
    with pytest.raises(PeeralignError, match="'chartqa' is given twice"):
        evaluate(Who((ADA,)), tmp_path / "out", twice, Reporter())
    with pytest.raises(PeeralignError, match="no benchmark was named"):
        evaluate(Who((ADA,)), tmp_path / "out", config(), Reporter())
    unknown = config(BenchmarkConfig(name="chartq", data=data))
    with pytest.raises(PeeralignError, match=r"no benchmark named 'chartq'.*chartqa"):
        evaluate(Who((ADA,)), tmp_path / "out", unknown, Reporter())
