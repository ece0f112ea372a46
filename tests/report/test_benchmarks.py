"""What a run's report says of its members on benchmarks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from peeralign.evals import suite
from peeralign.evals.score import no_score, score_rows
from peeralign.report import write_report
from peeralign.report.benchmarks import read_benchmarks
from peeralign.store.run import Run, write_json


def score(value: float | None, headline: str = "accuracy", **more: Any) -> dict[str, Any]:
    between = None if value is None else [value - 0.1, value + 0.1]
    return {
        **{"score": value, "interval": between, "num_rows": 50, "protocol": "official"},
        **{"parse_failure_rate": 0.0},
        **{"headline": headline, "unit": "share, 0 to 1", **more},
    }


def entry(name: str, title: str, **members: dict[str, Any]) -> dict[str, Any]:
    return {
        **{"name": name, "title": title, "protocol": "official", "limit": None},
        **{"num_set_aside": 0, "reasons": {}, "members": members},
    }


def write_figures(run: Run, *entries: dict[str, Any], **more: Any) -> None:
    labels = dict.fromkeys(label for each in entries for label in each["members"])
    rounds = {label: [label.split("_")[0], int(label.split("_")[1])] for label in labels}
    figures = {"benchmarks": list(entries), "members": list(labels), "rounds": rounds}
    more = {"averages": {}, "self_judging": [], **more}
    write_json(run.folder / "evals" / "figures.json", {**figures, **more})


def test_curves_are_shares_and_points_stay_points(whole_run: Run) -> None:
    assert read_benchmarks(whole_run) is None
    vet = score(30.0, "total", interval=[20.0, 40.0], unit="points, 0 to 100")
    write_figures(
        whole_run,
        entry("pope", "POPE", ada_0=score(0.5), ada_1=score(0.7), ben_0=score(None)),
        entry("mmvet", "MM-Vet", ada_0={**vet, "judge": "eye"}),
        entry("mme", "MME", ada_0=score(900.0, "total", unit="points, 200 a task")),
        averages={"ada_0": {"Average": 40.0}},
        self_judging=["eye"],
    )
    found = read_benchmarks(whole_run)
    assert found is not None
    assert (found.curves.rounds, found.curves.members) == ([0, 1], ["ada", "ben"])
    assert {skill.name: skill.means for skill in found.curves.skills} == {
        "Average of 2": {(0, "ada"): 0.4},
        "POPE": {(0, "ada"): 0.5, (1, "ada"): 0.7},
        "MM-Vet": {(0, "ada"): 0.3},
    }
    (ada, ben) = found.lines["Hallucination"]
    assert (ada.values, ben.values) == ({0: 50.0, 1: 70.0}, {})
    assert ada.intervals[0] == (40.0, 60.0)
    (points, _) = found.lines["Further"]
    assert (points.figure, points.values) == ("total, points, 200 a task", {0: 900.0})
    assert found.notes == [
        "MM-Vet was graded by eye.",
        "Self-judged: eye graded replies of its own or of its panel.",
    ]


def test_strangers_names_are_escaped_on_the_page(whole_run: Run) -> None:
    write_figures(
        whole_run, entry("pope", "POPE", ada_0=score(0.5, "<b>bold</b>"), ada_1=score(0.6))
    )
    page = write_report(whole_run.folder).read_text()
    section = re.search(r'<section id="benchmarks">.*?</section>', page, re.DOTALL)
    assert section is not None
    assert "&lt;b&gt;bold&lt;/b&gt;, %" in section[0]
    assert "<b>bold" not in section[0]
    assert "40.0\N{EN DASH}60.0" in section[0]
    assert section[0].count("<svg") == 1


def test_an_evaluation_of_something_else_is_not_the_run_s(whole_run: Run, tmp_path: Path) -> None:
    write_figures(whole_run, entry("pope", "POPE"))
    assert read_benchmarks(whole_run) is None
    assert "#benchmarks" not in write_report(whole_run.folder).read_text()


def pope(*replies: str) -> dict[str, Any]:
    rows = [
        {"id": str(n), "prediction": reply, "answer": "yes", "image": str(n)}
        for n, reply in enumerate(replies)
    ]
    return score_rows("pope", rows)


def written(folder: Path, **scores: dict[str, dict[str, Any]]) -> Run:
    """A run's folder with figures of benchmark -> label -> what `score_rows` gives."""
    labels = ["ada-round-0", "ada-round-1"]
    entries = [
        {
            **{"name": name, "title": name.upper(), "protocol": "official", "limit": None},
            **{"num_set_aside": 0, "members": members},
        }
        for name, members in scores.items()
    ]
    figures = {
        "benchmarks": entries,
        "rounds": {label: ["ada", number] for number, label in enumerate(labels)},
        "self_judging": [],
        "averages": suite.averages(entries),
    }
    write_json(folder / "evals" / "figures.json", figures)
    return Run(folder)


def test_replies_that_could_not_be_read_are_told(tmp_path: Path) -> None:
    # By POPE's script a reply without yes or no is a yes, so the score alone deceives.
    unread = pope("a dog", "yes")
    found = read_benchmarks(
        written(tmp_path, pope={"ada-round-0": pope("yes", "no"), "ada-round-1": unread})
    )
    assert found is not None
    assert found.lines["Hallucination"][0].values[1] == 100.0
    said = "POPE: of some members, up to 50.0% of the replies could not be read."
    assert found.notes == [said]


def test_no_score_leaves_a_gap(tmp_path: Path) -> None:
    nothing = no_score("llavabench", "official", "no judge graded a reference answer")
    found = read_benchmarks(
        written(
            tmp_path,
            pope={"ada-round-0": pope("yes"), "ada-round-1": pope("yes")},
            llavabench={"ada-round-0": nothing, "ada-round-1": nothing},
        )
    )
    assert found is not None
    assert found.lines[suite.FURTHER][0].values == {}
    assert found.lines["Hallucination"][0].values == {0: 100.0, 1: 100.0}
