"""Judging a published set: the verdicts' files, both orders, ties, black images, and resuming."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from stages.test_compare import BARE
from stages.test_relative import shown_in

from peeralign.engines.base import AnswerRequest, Draw, JudgeRequest, Readout, Sampling
from peeralign.errors import PeeralignError
from peeralign.evals.judge_eval import judge_eval
from peeralign.judging.verdict import Verdict, parse_verdict
from peeralign.panel import Member
from peeralign.progress import Reporter
from peeralign.recipes import judges as asking
from peeralign.recipes.judge_set import judge_set
from peeralign.recipes.judges import GradeConfig
from peeralign.store.verdicts import read_pairs, read_rankings, read_scores

Row = dict[str, Any]
ADA = Member(name="ada", model="classroom:ada")
POINTS = (
    'version = 1\naxes = ["points"]\nscale = [0, 100]\nprompt = "{question}|{answer}|{reference}"\n'
)
PLAIN = POINTS.replace("|{reference}", "")


class Eye:
    """Counts an answer's letters, and a picture that is not black counts ten if it may look."""

    def __init__(self, looks: bool = False, bias: int = 0, mute: str = "!") -> None:
        self.looks = looks
        self.bias = bias
        self.mute = mute
        self.asked: list[tuple[str, bool]] = []

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        raise AssertionError("nobody is to answer here")

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        return [[self.verdict(text, request) for text in request.texts] for request in requests]

    def verdict(self, text: str, request: JudgeRequest) -> Verdict:
        sees = bool(np.asarray(request.image).any())
        self.asked.append((text, sees))
        form = request.form
        if form.choices:
            a, b = (len(answer) for answer in text.split("|")[1:])
            lead = a + self.bias - b if sees or not self.looks else b - a
            label = form.choices[0 if lead > 0 else 1 if lead < 0 else 2]
            reply = form.write([label])
        elif form.axes == ("points",):
            reply = form.write([len(text.split("|")[1]) + 10 * (self.looks and sees)])
        else:
            reply = form.write([min(5, len(answer)) for answer in shown_in(text)])
        return parse_verdict("hm" if self.mute in text else reply, form)

    def close(self) -> None: ...


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these engines be opened instead of models."""

    def use(**engines: Eye) -> None:
        monkeypatch.setattr(asking, "open_engine", lambda member, mass: engines[member.name])
        monkeypatch.setattr(asking, "check_member", lambda member: None)

    return use


@pytest.fixture
def folder(tmp_path: Path, scenes: list[Row]) -> Path:
    """Three classroom pictures, one that is none, and rubrics in few words."""
    for place, scene in enumerate(scenes[:3]):
        (tmp_path / f"{place}.png").write_bytes(scene["image"]["bytes"])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name, text in (("bare", BARE), ("plain", PLAIN), ("points", POINTS)):
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def write(folder: Path, rows: list[Row]) -> str:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def named(*names: str) -> list[Member]:
    return [Member(name=name, model="none") for name in names]


def config(rubric: str, **judge: Any) -> GradeConfig:
    return GradeConfig.model_validate({"judge": {"rubric": rubric, **judge}})


def scored(picture: str, own_id: int, human: int, answer: str, name: str = "m") -> Row:
    return {
        **{"id": own_id, "score_id": f"{own_id}-{name}", "image_path": picture},
        **{"original_dataset": "coco", "instruction": "what?", "name": name},
        **{"answer": answer, "human": human},
    }


def pair(own_id: str, first: str, second: str, picture: str = "0.png", **change: Any) -> Row:
    return {
        **{"id": own_id, "image_path": picture, "query": "what?", "response": [first, second]},
        **{"human_ranking": [0, 1], "models": ["x", "y"], "query_source": None, **change},
    }


def batch(own_id: int, answers: dict[str, str], human: str, picture: str = "0.png") -> Row:
    given = [{"name": name, "answer": answer} for name, answer in answers.items()]
    about = {"id": own_id, "image_path": picture, "original_dataset": "all"}
    return {**about, "instruction": "what?", "answers": given, "human_answer": human}


def same_when_read_again(out: Path, plural: str, figures: Row) -> None:
    read = {"scores": read_scores, "pairs": read_pairs, "rankings": read_rankings}[plural]
    assert judge_eval(**{plural: read(out / f"{plural}.jsonl")}) == figures
    assert json.loads((out / "figures.json").read_text()) == figures


def test_scores(folder: Path, engines: Callable[..., None]) -> None:
    eye = Eye()
    engines(eye=eye)
    rows = [
        scored("0.png", 1, 1, "a", "m"),
        scored("0.png", 1, 3, "abc", "n"),
        # The same answer to the same question is asked about once.
        scored("0.png", 1, 2, "abc", "o"),
        scored("1.png", 2, 4, "abcd"),
        scored("1.png", 3, 4, "!"),
        scored("broken.png", 4, 5, "abcd"),
        scored("none.png", 5, 5, "abcd"),
    ]
    out = folder / "out"
    given = config(str(folder / "plain.toml"))
    figures, summary = judge_set(write(folder, rows), named("eye"), out, given, Reporter())
    written = lines(out / "scores.jsonl")
    assert [(row["item"], row["model"], row["score"]) for row in written] == [
        *(("1", "m", 1.0), ("1", "n", 3.0), ("1", "o", 3.0), ("2", "m", 4.0), ("3", "m", None))
    ]
    assert written[0] == {
        **{"item": "1", "set": "coco", "model": "m", "answer": "a"},
        **{"score": 1.0, "reference": 1.0, "judge": "eye"},
    }
    assert len(eye.asked) == 4
    assert figures["coverage"] == 4 / 5
    assert figures["pearson"] == pytest.approx(np.corrcoef([1, 3, 3, 4], [1, 3, 2, 4])[0, 1], 1e-5)
    same_when_read_again(out, "scores", figures)
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["rows"], summary["verdicts"], summary["unscored"]) == (5, 5, 1)
    assert list(summary["unread"].values()) == [1]
    assert (summary["set_aside"], summary["reasons"]) == (2, {"unusable image": 2})
    assert [row["id"] for row in lines(out / "set-aside.jsonl")] == ["row 6", "row 7"]


def test_pictures_of_too_many_pixels_are_set_aside(
    folder: Path, engines: Callable[..., None]
) -> None:
    engines(eye=Eye())
    large = io.BytesIO()
    Image.new("RGB", (200, 200)).save(large, "PNG")
    (folder / "large.png").write_bytes(large.getvalue())
    rows = [scored("0.png", 1, 1, "a"), scored("large.png", 2, 1, "a")]
    given = config(str(folder / "plain.toml")).model_copy(update={"max_image_pixels": 30_000})
    _, summary = judge_set(write(folder, rows), named("eye"), folder / "out", given, Reporter())
    assert (summary["rows"], summary["set_aside"]) == (1, 1)
    (aside,) = lines(folder / "out" / "set-aside.jsonl")
    assert "200x200 pixels, more than the limit of 30000" in aside["reason"]


def test_both_orders_are_rows_of_their_own(folder: Path, engines: Callable[..., None]) -> None:
    engines(eye=Eye(bias=1))
    rows = [
        pair("RLAIF-V-1", "long one", "no"),
        # What stands first wins by a letter, or ties.
        pair("mmmu-1", "ab", "cd"),
        pair("x", "ab", "cde", human_ranking=[1, 0]),
        pair("mmmu-2", "!", "b"),
        # One order could not be told from the other.
        pair("mmmu-3", "same", "same", models=["x", "x"]),
    ]
    out = folder / "out"
    given = config(str(folder / "bare.toml"))
    figures, summary = judge_set(write(folder, rows), named("eye"), out, given, Reporter())
    written = lines(out / "pairs.jsonl")
    assert [(row["item"], row["model_a"], row["verdict"], row["reference"]) for row in written] == [
        *(("RLAIF-V-1", "x", "A", "A"), ("mmmu-1", "x", "A", "A"), ("x", "x", "tie", "B")),
        *(("mmmu-2", "x", None, "A"), ("RLAIF-V-1", "y", "B", "B"), ("mmmu-1", "y", "A", "B")),
        *(("x", "y", "A", "A"), ("mmmu-2", "y", None, "B")),
    ]
    assert [row["set"] for row in written[:4]] == [
        *("hallucination", "reasoning", "general", "reasoning")
    ]
    assert (written[4]["answer_a"], written[4]["answer_b"]) == ("no", "long one")
    # Merged orders would show no preference for what stands first, and no contradiction.
    assert figures["order_consistency"] == pytest.approx(1 / 3, abs=1e-6)
    assert figures["first_position_share"] == pytest.approx(4 / 5)
    assert figures["coverage"] == 6 / 8
    # One of two right in the group "reasoning", two of two, and one of two.
    assert figures["accuracy_without_ties_set_mean"] == pytest.approx((1 + 0.5 + 0.5) / 3, abs=1e-6)
    assert figures["accuracy_without_ties"] == pytest.approx(4 / 6, abs=1e-6)
    same_when_read_again(out, "pairs", figures)
    assert summary["reasons"] == {"two equal answers of one model": 1}


def test_one_order_if_so_set(folder: Path, engines: Callable[..., None]) -> None:
    engines(eye=Eye())
    given = config(str(folder / "bare.toml"), orders="one")
    rows = [pair("a", "ab", "c"), pair("b", "a", "bc")]
    figures, _ = judge_set(write(folder, rows), named("eye"), folder / "out", given, Reporter())
    assert [row["verdict"] for row in lines(folder / "out" / "pairs.jsonl")] == ["A", "B"]
    assert figures["reasons"]["order_consistency"] == "no pair is scored in both orders"


def test_a_panel_is_taken_as_one(folder: Path, engines: Callable[..., None]) -> None:
    engines(fair=Eye(), biased=Eye(bias=9), mute=Eye(mute="cd"))
    rows = [pair("a", "abc", "d"), pair("b", "ab", "cd")]
    given = config(str(folder / "bare.toml"))
    judges = named("fair", "biased", "mute")
    judge_set(write(folder, rows), judges, folder / "out", given, Reporter())
    found = lines(folder / "out" / "pairs.jsonl")
    # Of "a" shown second two of three say B. Of "b" one says nothing, one A and one tie.
    assert [row["verdict"] for row in found] == ["A", "A", "B", "A"]
    assert "judge" not in found[0]
    engines(one=Eye(), two=Eye(looks=True))
    out = folder / "scores"
    data = write(folder, [scored("0.png", 1, 1, "abcd")])
    judge_set(data, named("one", "two"), out, config(str(folder / "plain.toml")), Reporter())
    assert lines(out / "scores.jsonl")[0]["score"] == (4 + 14) / 2


@pytest.mark.parametrize("rubric", ["relative_scores", "relative_ranking"])
def test_rankings(folder: Path, engines: Callable[..., None], rubric: str) -> None:
    class Order(Eye):
        def verdict(self, text: str, request: JudgeRequest) -> Verdict:
            if not request.form.distinct:
                return super().verdict(text, request)
            shown = [len(answer) for answer in shown_in(text)]
            places = [1 + sum(other > length for other in shown) for length in shown]
            return parse_verdict("hm" if "!" in text else request.form.write(places), request.form)

    engines(eye=Order())
    rows = [
        batch(1, {"m": "a", "n": "abc", "o": "ab"}, "BCA"),
        # Another row of one question: its answers are not shown with the first row's.
        batch(2, {"m": "abcd", "n": "a"}, "BA"),
        batch(3, {"m": "!", "n": "a"}, "BA"),
    ]
    rows[2]["instruction"] = "what else?"
    out = folder / "out"
    figures, summary = judge_set(write(folder, rows), named("eye"), out, config(rubric), Reporter())
    written = lines(out / "rankings.jsonl")
    assert [row["ranking"] for row in written] == [["n", "o", "m"], ["m", "n"], None]
    assert [row["reference"] for row in written] == [["n", "o", "m"], ["n", "m"], ["n", "m"]]
    assert written[2]["worth"] is None
    assert figures["ranking_distance"] == (0 + 1) / 2
    assert figures["coverage"] == pytest.approx(2 / 3, abs=1e-6)
    same_when_read_again(out, "rankings", figures)
    assert (summary["tied"], summary["unscored"]) == (0, 1)


def test_equal_places_are_drawn_and_counted(folder: Path, engines: Callable[..., None]) -> None:
    engines(eye=Eye())
    # The first two are worth the same, and the last two even say the same.
    rows = [batch(n, {"m": "ab", "n": "cd", "o": "e", "p": "e"}, "ABCD") for n in range(40)]
    out = folder / "out"
    data, given = write(folder, rows), config("relative_scores")
    _, summary = judge_set(data, named("eye"), out, given, Reporter())
    found = ["".join(row["ranking"]) for row in lines(out / "rankings.jsonl")]
    assert summary["tied"] == 40
    assert set(found) == {"mnop", "mnpo", "nmop", "nmpo"}
    assert lines(out / "rankings.jsonl")[0]["worth"] == [0.4, 0.4, 0.2, 0.2]
    other = folder / "other"
    judge_set(data, named("eye"), other, given, Reporter())
    assert (other / "rankings.jsonl").read_bytes() == (out / "rankings.jsonl").read_bytes()


def test_black_images(folder: Path, engines: Callable[..., None]) -> None:
    eye = Eye(looks=True)
    engines(eye=eye)
    out, given = folder / "out", config(str(folder / "plain.toml"))
    rows = [scored("0.png", n, n, "abcd"[:n]) for n in (1, 2, 3)]
    data = write(folder, rows)
    figures, _ = judge_set(data, named("eye"), out, given, Reporter())
    assert figures["reasons"]["black_image_change"] == "no row has a verdict without the image"
    assert "score_without_image" not in lines(out / "scores.jsonl")[0]
    # It goes on from there: what was judged with the images is not judged again.
    figures, _ = judge_set(data, named("eye"), out, given, Reporter(), black_image=True)
    assert [sees for _, sees in eye.asked] == [True] * 3 + [False] * 3
    written = lines(out / "scores.jsonl")
    assert [row["score"] for row in written] == [11, 12, 13]
    assert [row["score_without_image"] for row in written] == [1, 2, 3]
    assert figures["black_image_pearson"] == 1.0
    assert figures["pearson_without_image"] == 1.0
    assert figures["black_image_change"] == pytest.approx(10 / (2 / 3) ** 0.5, abs=1e-5)
    same_when_read_again(out, "scores", figures)


def test_black_images_of_pairs_and_rankings(folder: Path, engines: Callable[..., None]) -> None:
    engines(eye=Eye(looks=True))
    rows = [pair("a", "abc", "d"), pair("b", "ab", "cd")]
    given = config(str(folder / "bare.toml"))
    out = folder / "pairs"
    figures, _ = judge_set(write(folder, rows), named("eye"), out, given, Reporter(), True)
    assert [row["verdict_without_image"] for row in lines(out / "pairs.jsonl")] == [
        *("B", "tie", "A", "tie")
    ]
    assert figures["black_image_verdict_change"] == 0.5
    assert figures["accuracy_without_ties_without_image"] == 0.0
    same_when_read_again(out, "pairs", figures)
    out = folder / "rankings"
    data = write(folder, [batch(1, {"m": "a", "n": "abc"}, "BA")])
    figures, _ = judge_set(
        data, named("eye"), out, config("relative_scores"), Reporter(), black_image=True
    )
    assert figures["ranking_distance_without_image"] == 0.0
    same_when_read_again(out, "rankings", figures)


def test_a_rubric_that_does_not_fit_the_file(folder: Path) -> None:
    rubrics = {"absolute": "classroom", "pairwise": "pairwise_short", "ranking": "relative_ranking"}
    for row, holds, needed in (
        (scored("0.png", 1, 1, "a"), "scores of single answers", "absolute"),
        (pair("a", "b", "c"), "verdicts on pairs of answers", "pairwise"),
        (batch(1, {"m": "a", "n": "b"}, "AB"), "rankings of answers", "ranking or relative"),
    ):
        data = write(folder, [row])
        for kind, rubric in rubrics.items():
            if kind in needed:
                continue
            with pytest.raises(PeeralignError) as caught:
                judge_set(data, [ADA], folder / "out", config(rubric), Reporter())
            assert str(caught.value) == (
                f"{data} holds {holds}, and rubric '{rubric}' is {kind}; "
                f"give --rubric one that is {needed}"
            )
    data, given = write(folder, [scored("0.png", 1, 1, "a")]), config(str(folder / "points.toml"))
    with pytest.raises(PeeralignError, match="shows the judge a reference answer"):
        judge_set(data, [ADA], folder / "out", given, Reporter())
    twins = write(folder, [pair("a", "same", "same", models=["x", "x"])])
    with pytest.raises(PeeralignError, match="all are of two equal answers"):
        judge_set(twins, [ADA], folder / "out", config("pairwise_short"), Reporter())
    assert not (folder / "out" / "manifest.json").exists()


def test_the_same_call_again_asks_nobody(folder: Path, engines: Callable[..., None]) -> None:
    engines(eye=Eye())
    rows = [scored("0.png", n, n, "abcd"[:n]) for n in (1, 2, 3)]
    data, out, given = write(folder, rows), folder / "out", config(str(folder / "plain.toml"))
    first = judge_set(data, named("eye"), out, given, Reporter())
    before = (out / "scores.jsonl").read_bytes()
    engines()
    assert judge_set(data, named("eye"), out, given, Reporter()) == first
    assert (out / "scores.jsonl").read_bytes() == before
    write(folder, [*rows[:2], {**rows[2], "human": 5}])
    with pytest.raises(PeeralignError, match=r"content = .*; this changes everything from the row"):
        judge_set(data, named("eye"), out, given, Reporter())


@pytest.mark.slow
def test_killed_and_resumed_it_gives_the_same(folder: Path) -> None:
    rows = [scored(f"{n % 3}.png", n, 1 + n % 5, text) for n, text in enumerate(["red"] * 6)]
    for number, row in enumerate(rows):
        row["instruction"] = f"what is thing {number}?"
    data = write(folder, rows)

    def command(out: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "peeralign.cli", "judge-eval", "--data", data, "--json"),
            *("--judge", "classroom:ada", "--rubric", "classroom", "--out", str(out)),
            *("--set", "judge.block_size=1", "--set", "judge.readout=expected", "--black-image"),
        ]

    whole, killed = folder / "whole", folder / "killed"
    expected = subprocess.run(command(whole), check=True, capture_output=True).stdout
    process = subprocess.Popen(command(killed), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(killed.glob("round-1/judgments/*/part-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "figures.json").exists()
    finished = {path: os.stat(path).st_mtime_ns for path in killed.glob("round-1/**/part-*")}
    assert finished
    done = subprocess.run(command(killed), check=True, capture_output=True)
    assert done.stdout == expected
    # What was finished is not done again.
    assert {path: os.stat(path).st_mtime_ns for path in finished} == finished
    shards = sorted(path.relative_to(whole) for path in whole.glob("round-1/**/part-*"))
    assert len(shards) == 12
    for shard in shards:
        assert pl.read_parquet(whole / shard).equals(pl.read_parquet(killed / shard)), shard
    for name in ("scores.jsonl", "figures.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
