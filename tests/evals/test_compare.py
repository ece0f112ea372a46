"""Two folders compared: which items, which members, and figures worked out by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evals.folders import Rows, gqa, write_eval, write_exam, write_exam_file, write_run

from peeralign.errors import PeeralignError
from peeralign.evals.compare import Comparison, compare
from peeralign.evals.sheets import open_side
from peeralign.store.run import Stage

# Of 12 items, B wins two and loses one.
A, B = "111100001100", "111011001100"
Write = Callable[..., Path]


def compared(a: Path, b: Path, **how: Any) -> Comparison:
    sides = open_side(a, how.pop("round", None)), open_side(b, how.pop("against_round", None))
    return compare(*sides, **{"resamples": 200, **how})


def mistake(a: Path, b: Path, **how: Any) -> str:
    with pytest.raises(PeeralignError) as caught:
        compared(a, b, **how)
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an evaluation of one benchmark: name of the folder, member -> rows."""

    def folder(name: str, members: dict[str, Rows], benchmark: str = "gqa", **asked: Any) -> Path:
        return write_eval(tmp_path / name, {benchmark: members}, **asked)

    return folder


def test_one_member_each(write: Write) -> None:
    a, b = write("a", {"base": gqa(A)}), write("b", {"tuned": gqa(B)})
    found = compared(a, b)
    assert found.figures["a"] == {"folder": str(a), "round": None}
    assert (found.figures["skipped"], found.figures["notes"]) == ([], [])
    (entry,) = found.figures["benchmarks"]
    assert {key: entry[key] for key in ("title", "protocol", "headline", "unit", "mean")} == {
        **{"title": "GQA", "protocol": "official", "headline": "accuracy"},
        **{"unit": "share, 0 to 1", "mean": None},
    }
    (pair,) = entry["pairs"]
    figure = pair["figures"]["accuracy"]
    assert (figure["a"], figure["b"], figure["difference"]) == (0.5, 0.583333, 0.083333)
    assert figure["interval"][0] < 0 < figure["interval"][1]
    assert figure["p"] == figure["p_holm"] > 0.3
    assert (pair["a"], pair["b"], pair["wins"], pair["ties"], pair["losses"]) == (
        *("base", "tuned"),
        *(2, 9, 1),
    )
    # 2 (C(3, 0) + C(3, 1)) / 2^3 is 1.
    assert pair["mcnemar"] == {"only_a": 1, "only_b": 2, "p": 1.0}
    assert (pair["num_items"], pair["num_clusters"], pair["clustered_by"]) == (12, 12, "question")
    json.dumps(found.figures, allow_nan=False)
    assert len(found.items) == 12


def test_only_items_that_both_have(write: Write) -> None:
    rows = gqa(A + "111")
    a, b = write("a", {"x": rows[1:]}), write("b", {"x": gqa(B)})
    (pair,) = compared(a, b).figures["benchmarks"][0]["pairs"]
    assert (pair["num_items"], pair["num_only_a"], pair["num_only_b"]) == (11, 3, 1)
    # The first item is right in both, and missing here.
    assert pair["figures"]["accuracy"]["a"] == pytest.approx(5 / 11, abs=1e-6)


def test_the_same_twice_does_not_differ(write: Write) -> None:
    a, b = write("a", {"x": gqa(A)}), write("b", {"x": gqa(A)})
    (pair,) = compared(a, b).figures["benchmarks"][0]["pairs"]
    for figure in pair["figures"].values():
        assert figure["difference"] == 0
        assert figure["p"] in (1.0, None)
    assert (pair["wins"], pair["losses"], pair["mcnemar"]["p"]) == (0, 0, 1.0)
    notes = compared(a, a).figures["notes"]
    assert notes == [
        "A and B are the same answers; --round, --against-round, --member and --against choose "
        "others"
    ]


def test_swapping_the_two_turns_all_signs(write: Write) -> None:
    a, b = write("a", {"x": gqa(A)}), write("b", {"x": gqa(B)})
    (one,) = compared(a, b).figures["benchmarks"][0]["pairs"]
    (other,) = compared(b, a).figures["benchmarks"][0]["pairs"]
    figures = one["figures"]["accuracy"], other["figures"]["accuracy"]
    assert figures[0]["difference"] == -figures[1]["difference"]
    assert figures[0]["interval"] == [-end for end in reversed(figures[1]["interval"])]
    assert figures[0]["p"] == figures[1]["p"]
    assert (one["wins"], one["losses"]) == (other["losses"], other["wins"])


def test_neither_order_nor_process_matter(write: Write) -> None:
    rows = [{**row, "image": f"{n // 2}"} for n, row in enumerate(gqa(A * 4))]
    other = [{**row, "image": f"{n // 2}"} for n, row in enumerate(gqa(B * 4))]
    a, b = write("a", {"x": rows}), write("b", {"x": other})
    shuffled = write("c", {"x": rows[::-1]}), write("d", {"x": other[7:] + other[:7]})
    first = compared(a, b).figures["benchmarks"]
    assert compared(*shuffled).figures["benchmarks"] == first
    code = (
        "import json, sys; from pathlib import Path\n"
        "from peeralign.evals.compare import compare\n"
        "from peeralign.evals.sheets import open_side\n"
        "sides = [open_side(Path(p), None) for p in sys.argv[1:]]\n"
        "print(json.dumps(compare(*sides, resamples=200).figures['benchmarks']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(a), str(b)],
        **{"capture_output": True, "text": True, "timeout": 120},
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    assert json.loads(done.stdout) == first, done.stderr


def test_clusters_are_those_of_scores(write: Write) -> None:
    def rows(letters: str) -> Rows:
        return [{**row, "image": f"{n // 4}"} for n, row in enumerate(gqa(letters))]

    # Items of one image go together: all right or all wrong in B.
    a, b = "0" * 80, "11110000" * 10
    together = compared(write("a", {"x": rows(a)}), write("b", {"x": rows(b)}))
    apart = compared(write("c", {"x": gqa(a)}), write("d", {"x": gqa(b)}))
    (wide,), (narrow,) = (found.figures["benchmarks"][0]["pairs"] for found in (together, apart))
    assert (wide["num_clusters"], wide["clustered_by"]) == (20, "image")
    widths = [
        pair["figures"]["accuracy"]["interval"][1] - pair["figures"]["accuracy"]["interval"][0]
        for pair in (wide, narrow)
    ]
    # The root of 4.
    assert 1.6 < widths[0] / widths[1] < 2.5


def mmbench(said: str) -> list[dict[str, Any]]:
    """Two rotations a question, whose answers are A and B."""
    item = {"choices": ["x", "y"], "category": "c"}
    return [
        {**item, "id": n, "group": n // 2, "answer": "AB"[n % 2], "prediction": letter}
        for n, letter in enumerate(said)
    ]


def test_figures_are_the_benchmarks_own(write: Write) -> None:
    a = write("a", {"x": mmbench("AB" * 5 + "AA" * 5)}, "mmbench")
    b = write("b", {"x": mmbench("AB" * 7 + "BA" * 3)}, "mmbench")
    (pair,) = compared(a, b).figures["benchmarks"][0]["pairs"]
    overall, vanilla = pair["figures"]["Overall"], pair["figures"]["vanilla"]
    # Questions with both rotations right, against rotations.
    assert (overall["a"], overall["b"]) == (0.5, 0.7)
    assert (vanilla["a"], vanilla["b"]) == (0.75, 0.7)
    assert (pair["num_items"], pair["num_clusters"], pair["clustered_by"]) == (20, 10, "unit")
    part = pair["by"]["category"]["c"]
    assert (part["num_items"], part["difference"]) == (20, 0.2)


def test_what_is_scored_together_is_left_out_together(write: Write) -> None:
    a = write("a", {"x": mmbench("AB" * 12)}, "mmbench")
    b = write("b", {"x": mmbench("AB" * 12)[:-1]}, "mmbench")
    (pair,) = compared(a, b).figures["benchmarks"][0]["pairs"]
    assert (pair["num_items"], pair["num_only_a"], pair["num_left_out"]) == (22, 1, 1)
    assert pair["figures"]["num_incomplete"]["a"] == 0
    assert len(compared(a, b).items) == 22


def test_points_have_no_mcnemar(write: Write) -> None:
    rows = [
        {"id": n, "prediction": "x", "score": score, "capabilities": ["rec"]}
        for n, score in enumerate([0.5] * 6 + [0.9] * 6)
    ]
    better = [{**row, "score": 0.75} for row in rows]
    a, b = write("a", {"x": rows}, "mmvet"), write("b", {"x": better}, "mmvet")
    (pair,) = compared(a, b).figures["benchmarks"][0]["pairs"]
    assert pair["mcnemar"] is None
    assert (pair["wins"], pair["losses"]) == (6, 6)
    assert pair["figures"]["total"]["difference"] == pytest.approx(5)


def test_members_are_paired_by_name_and_have_a_mean(write: Write) -> None:
    a = write("a", {"ada": gqa(A), "ben": gqa(B), "cleo": gqa(A)})
    b = write("b", {"ben": gqa(A), "ada": gqa("1" * 12), "dora": gqa(A)})
    found = compared(a, b).figures
    (entry,) = found["benchmarks"]
    assert [(pair["a"], pair["b"]) for pair in entry["pairs"]] == [("ada", "ada"), ("ben", "ben")]
    mean = entry["mean"]
    assert (mean["num_members"], mean["num_items"]) == (2, 12)
    figure = mean["figures"]["accuracy"]
    # 6 and 7 of 12 against 12 and 6.
    assert (figure["a"], figure["b"]) == (0.541667, 0.75)
    assert figure["p_holm"] == figure["p"]
    assert found["notes"] == [
        "only A has cleo, who are not compared",
        "only B has dora, who are not compared",
    ]


def test_who_is_compared_may_be_said(write: Write) -> None:
    a = write("a", {"ada": gqa(A), "ben": gqa(B)})
    b = write("b", {"ben": gqa(A), "cleo": gqa(A)})

    def pairs(**how: Any) -> list[tuple[str, str]]:
        found = compared(a, b, **how).figures
        assert found["notes"] == []
        return [(pair["a"], pair["b"]) for pair in found["benchmarks"][0]["pairs"]]

    assert pairs(member="ada", against="cleo") == [("ada", "cleo")]
    assert pairs(member="ben") == [("ben", "ben")]
    assert mistake(a, b, member="ada") == (
        "it is not clear whom to compare: A has ada, B has ben, cleo; name one of A with --member "
        "and one of B with --against"
    )
    assert "A has ada, ben, B has cleo" in mistake(a, b, against="cleo")
    assert mistake(a, b, member="bem").endswith(
        "did you mean 'ben'?; give one of them with --member"
    )
    other = write("c", {"cleo": gqa(A), "dora": gqa(A)})
    assert "A has ada, ben, B has cleo, dora" in mistake(a, other)
    within = compared(a, a, member="ada", against="ben").figures["benchmarks"][0]["pairs"]
    assert within[0]["figures"]["accuracy"]["difference"] == 0.083333


def test_an_id_must_be_one_item(write: Write) -> None:
    a = write("a", {"x": gqa(A)})
    rows = gqa(B)
    rows[3]["question"] = "is it something else?"
    assert mistake(a, write("b", {"x": rows})) == (
        "gqa: the item '003' is not the same on both sides, its question is 'is it 3?' in A and "
        "'is it something else?' in B; compare answers to the same data, or choose other "
        "benchmarks with --benchmark"
    )
    rows = gqa(B)
    rows[3]["answer"] = "no"
    assert "its answer is 'yes' in A and 'no' in B" in mistake(a, write("c", {"x": rows}))


def test_protocols_must_be_one(write: Write) -> None:
    a, b = write("a", {"x": gqa(A)}), write("b", {"x": gqa(B)}, protocol="lmms-eval")
    said = mistake(a, b)
    assert said.startswith(f"gqa was scored by protocol official in {a} and lmms-eval in {b}; ")


def test_scores_of_different_judges_do_not_compare(tmp_path: Path) -> None:
    scored = [
        {"id": str(n), "prediction": "x", "score": 0.5, "capabilities": ["ocr"]} for n in range(12)
    ]
    given = {"gqa": {"x": gqa(A)}, "mmvet": {"x": scored}}
    a = write_eval(tmp_path / "a", given, judges=["eye"])
    b = write_eval(tmp_path / "b", given, judges=["eye", "ear"])
    found = compared(a, b).figures
    # Who may judge says nothing of what rules score.
    assert [entry["name"] for entry in found["benchmarks"]] == ["gqa"]
    (passed,) = found["skipped"]
    assert passed["name"] == "mmvet"
    assert passed["reason"] == "A was graded by eye (readout text), B by ear, eye (readout text)"
    c = write_eval(tmp_path / "c", given, judges=["eye"], rubric="own.toml")
    assert "rubric own.toml" in compared(a, c).figures["skipped"][0]["reason"]
    assert not compared(a, a).figures["skipped"]


def test_other_settings_are_noted(write: Write) -> None:
    a, b = write("a", {"x": gqa(A)}), write("b", {"x": gqa(B)}, prompt="{question}?", limit=12)
    assert compared(a, b).figures["notes"] == [
        "gqa was asked with limit None in A and 12 in B",
        "gqa was asked with prompt None in A and '{question}?' in B",
    ]


def test_scores_of_other_judges_are_not_compared(tmp_path: Path) -> None:
    row = {"question": "how?", "answer": "so", "prediction": "x", "score": 0.5}
    rows = [{**row, "id": name, "capabilities": ["rec"]} for name in "ab"]
    sides = []
    for judge in ("org/one", "org/other"):
        folder = write_eval(tmp_path / judge, {"mmvet": {"x": rows}, "gqa": {"x": gqa(A)}})
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["settings"]["judges"] = [{"name": "judge", "model": judge}]
        path.write_text(json.dumps(manifest))
        sides.append(folder)
    found = compared(*sides).figures
    assert [entry["name"] for entry in found["benchmarks"]] == ["gqa"]
    (skipped,) = found["skipped"]
    assert skipped["name"] == "mmvet"
    assert re.fullmatch(r"A was graded by org/one \(.*\), B by org/other \(.*\)", skipped["reason"])


def test_benchmarks_are_chosen_or_passed_over(tmp_path: Path) -> None:
    judged = [{"id": 1, "prediction": "x"}]
    a = write_eval(tmp_path / "a", {"gqa": {"x": gqa(A)}, "pope": {"x": gqa(A)}, "mme": {}})
    b = write_eval(tmp_path / "b", {"gqa": {"x": gqa(B)}, "pope": {"x": gqa(B)}, "mme": {}})
    found = compared(a, b).figures
    assert [entry["name"] for entry in found["benchmarks"]] == ["gqa", "pope"]
    assert found["skipped"] == [{"name": "mme", "reason": "A has no finished answers of x"}]
    for entry in found["benchmarks"]:
        headline = entry["pairs"][0]["figures"]["accuracy"]
        assert headline["p_holm"] == min(1.0, 2 * headline["p"])
    chosen = compared(a, b, names=["pope"]).figures["benchmarks"]
    assert [entry["name"] for entry in chosen] == ["pope"]
    assert {"accuracy", "precision", "recall", "f1"} <= set(chosen[0]["pairs"][0]["figures"])
    assert "did you mean 'pope'?" in mistake(a, b, names=["popo"])
    other = write_eval(tmp_path / "c", {"gqa": {"x": gqa(A)[:0]}, "chair": {"x": judged[:0]}})
    assert mistake(a, other, names=["pope"]).endswith("(pope: B has no answers to it)")
    assert "x of A and x of B share no item" in mistake(a, other, names=["gqa"])


def test_rows_that_cannot_be_scored_stop_only_their_benchmark(tmp_path: Path) -> None:
    a, b = (
        write_eval(tmp_path / name, {"gqa": {"x": gqa(A)}, "mmvet": {"x": gqa(A)}}) for name in "ab"
    )
    found = compared(a, b).figures
    assert [entry["name"] for entry in found["benchmarks"]] == ["gqa"]
    (skipped,) = found["skipped"]
    assert skipped["name"] == "mmvet"
    assert skipped["reason"].startswith(
        f"{a / 'rows' / 'mmvet' / 'x.jsonl'}, line 1 has no 'score'"
    )


def test_half_of_an_image_cannot_be_scored(tmp_path: Path) -> None:
    row = {"answer": "yes", "category": "count", "prediction": "yes"}
    one = [{**row, "id": f"{n}", "image": f"{n}"} for n in range(12)]
    a, b = (write_eval(tmp_path / name, {"mme": {"x": one}}) for name in "ab")
    assert "the items that both have cannot be scored: the image '0' of MME" in mistake(a, b)


def test_rounds_of_a_run(tmp_path: Path) -> None:
    exam = write_exam_file(tmp_path / "exam.parquet", {"count": 12, "colour": 6})
    rounds = {
        0: {"ada": {"count": A, "colour": "111000"}, "ben": {"count": A, "colour": "111000"}},
        1: {"ada": {"count": B, "colour": "111100"}, "ben": {"count": A, "colour": "111111"}},
    }
    run = write_run(tmp_path / "run", exam, rounds)
    found = compared(run, run, round=0)
    assert (found.figures["a"]["round"], found.figures["b"]["round"]) == (0, 1)
    (entry,) = found.figures["benchmarks"]
    assert (entry["protocol"], entry["headline"]) == ("exact match", "mean over skills")
    ada = entry["pairs"][0]
    # Items of one image are one cluster, whatever they ask.
    assert (ada["num_items"], ada["num_clusters"], ada["clustered_by"]) == (18, 12, "image")
    figure = ada["figures"]["mean over skills"]
    assert (figure["a"], figure["b"]) == (0.5, pytest.approx((7 / 12 + 4 / 6) / 2, abs=1e-6))
    assert ada["by"]["skill"]["count"]["difference"] == 0.083333
    assert ada["by"]["skill"]["colour"]["reason"] == "fewer than 10 clusters"
    assert ada["by"]["category"]["all"]["num_items"] == 18
    assert entry["mean"]["figures"]["mean over items"]["difference"] == 0.138889
    assert found.figures["notes"] == []


def test_exams_must_be_one(tmp_path: Path) -> None:
    exam = write_exam_file(tmp_path / "exam.parquet", {"count": 12})
    runs = [write_run(tmp_path / name, exam, {0: {"ada": {"count": A}}}) for name in "ab"]
    assert compared(*runs).figures["benchmarks"][0]["pairs"][0]["ties"] == 12
    write_exam(Stage(runs[0] / "exams" / "second" / "round-0" / "ada"), {"shape": A})
    assert compared(*runs).figures["skipped"] == [
        {"name": "exams/second", "reason": "B has no answers to it"}
    ]
    evaluation = write_eval(tmp_path / "c", {"gqa": {"ada": gqa(A)}})
    said = mistake(runs[0], evaluation)
    assert "have nothing to compare (exam: B has no answers to it; " in said
