"""What a run prints: its closing tables, and rows of its tables, worked out by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from peeralign.errors import PeeralignError
from peeralign.evals.exam import skill_scores
from peeralign.records import CANDIDATE_SCHEMA, EXAM_SCHEMA, REWARD_SCHEMA
from peeralign.report.rows import select_rows
from peeralign.report.terminal import SHOWN, print_summary, show_rows
from peeralign.store.run import Run

NewRun = Callable[..., Run]


def printed(show: Callable[[Console], None], width: int = 160) -> str:
    # As the command line makes it, and with a terminal's colours left out.
    console = Console(file=io.StringIO(), width=width, soft_wrap=True)
    show(console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def shown(rows: pl.DataFrame, table: str, limit: int = 20, width: int = 160) -> str:
    return printed(lambda console: show_rows(rows, table, limit, False, console), width)


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that starts with `first`."""
    rows = [line.replace("┃", "│").strip("│ ").split("│") for line in text.splitlines()]
    (found,) = [row for row in rows if row[0].strip() == first]
    return [cell.strip() for cell in found[1:]]


def summary_of(run: Run, rounds: tuple[int, ...], examined: bool = True) -> dict[str, Any]:
    entries = []
    for number in rounds:
        members = {
            name: skill_scores(run.stage(number, "exam", name).read(EXAM_SCHEMA))
            for name in ("ada", "ben")
            if examined
        }
        means = [member["mean"] for member in members.values()]
        counts = dict.fromkeys(("questions", "candidates", "judgments", "unscored", "pairs"), 0)
        if number:
            counts |= {"questions": 1200, "candidates": 21600, "judgments": 9000, "unscored": 12}
        entries.append(
            {
                "round": number,
                "panel_mean": sum(means) / len(means) if means else None,
                "members": members,
                "counts": counts,
                "seconds": {"exam": 3.1, "train": 10.05 * number},
            }
        )
    return {"recipe": "pop", "seed": 0, "seconds": 16.2, "rounds": entries}


def test_summary_scores_and_gains(whole_run: Run) -> None:
    text = printed(lambda console: print_summary(summary_of(whole_run, (0, 1)), console))
    assert cells(text, "member") == ["before", "round 1", "gain, points"]
    assert cells(text, "ada") == ["50.0", "75.0", "+25.0"]
    assert cells(text, "panel mean") == ["50.0", "75.0", "+25.0"]


def test_summary_skills(whole_run: Run) -> None:
    text = printed(lambda console: print_summary(summary_of(whole_run, (0, 1)), console))
    panel, each = text.split("Each member by skill")
    assert cells(panel, "count") == ["50.0", "75.0", "+25.0"]
    assert cells(each, "before -> round 1") == ["ada", "ben"]
    assert cells(each, "count") == ["25.0 -> 50.0", "75.0 -> 100.0"]
    assert cells(each, "colour") == ["75.0 -> 100.0", "25.0 -> 50.0"]


def test_summary_counts(whole_run: Run) -> None:
    text = printed(lambda console: print_summary(summary_of(whole_run, (0, 1)), console))
    made = text.split("What was made")[1]
    assert cells(made, "1") == ["1,200", "21,600", "9,000", "12", "0", "13.2"]
    assert cells(made, "all") == ["1,200", "21,600", "9,000", "12", "0", "16.2"]


def test_summary_counts_comparisons(whole_run: Run) -> None:
    summary = summary_of(whole_run, (0, 1), examined=False)
    for entry in summary["rounds"]:
        entry["counts"] |= {"judgments": 0, "comparisons": 0}
    summary["rounds"][1]["counts"]["comparisons"] = 94000
    text = printed(lambda console: print_summary(summary, console))
    assert cells(text, "round")[:-1] == [
        *("questions", "candidates", "comparisons", "unscored", "pairs")
    ]
    assert cells(text, "1") == ["1,200", "21,600", "94,000", "12", "0", "13.2"]
    summary["rounds"][1]["counts"] |= {"comparisons": 0, "unscored": 0}
    assert "unscored" not in printed(lambda console: print_summary(summary, console))


def test_summary_of_a_fall(whole_run: Run) -> None:
    summary = summary_of(whole_run, (0, 1))
    summary["rounds"][1]["members"]["ada"]["mean"] = 0.4996
    summary["rounds"][1]["members"]["ben"]["mean"] = 0.25
    text = printed(lambda console: print_summary(summary, console))
    assert cells(text, "ada") == ["50.0", "50.0", "+0.0"]
    assert cells(text, "ben") == ["50.0", "25.0", "-25.0"]


def test_summary_without_an_exam(whole_run: Run) -> None:
    summary = summary_of(whole_run, (0, 1), examined=False)
    text = printed(lambda console: print_summary(summary, console))
    assert "No exam" in text
    assert "panel mean" not in text
    assert cells(text, "1")[0] == "1,200"


def test_summary_before_the_first_round(whole_run: Run) -> None:
    text = printed(lambda console: print_summary(summary_of(whole_run, (0,)), console))
    # Nobody has judged yet, so it is too early to speak of a panel.
    assert cells(text, "mean over members") == ["50.0", "-"]
    assert "Each member" not in text


def test_summary_with_a_skill_one_member_lacks(whole_run: Run) -> None:
    summary = summary_of(whole_run, (0, 1))
    for entry in summary["rounds"]:
        del entry["members"]["ben"]["skills"]["count"]
    text = printed(lambda console: print_summary(summary, console))
    panel, each = text.split("Each member by skill")
    assert cells(panel, "count") == ["25.0", "50.0", "+25.0"]
    assert cells(each, "count") == ["25.0 -> 50.0", "- -> -"]


def test_candidates_come_with_their_question(whole_run: Run) -> None:
    rows = select_rows(whole_run.folder, "candidates")
    assert rows.columns[:3] == ["round", "category", "question"]
    assert set(CANDIDATE_SCHEMA.names()) < set(rows.columns)
    assert "image" not in rows.columns
    # By the order in which the questions were asked, then author and draw.
    assert rows["id"].to_list() == [f"c{n}" for n in range(1, 10)]
    first = rows.row(0, named=True)
    assert (first["round"], first["category"]) == (1, "General")
    assert first["question"] == "what colour is the circle?"


def test_judgments_come_with_the_answer(whole_run: Run, write: SimpleNamespace) -> None:
    rows = select_rows(whole_run.folder, "judgments", member="ben")
    assert rows["judge"].unique().to_list() == ["ben"]
    texts = dict(rows.select("answer_id", "answer").iter_rows())
    assert texts == {"a1": "red", "a2": write.script, "a3": "2", "a4": "3", "a5": "cross"}


def test_pairs_come_with_their_authors(whole_run: Run) -> None:
    rows = select_rows(whole_run.folder, "pairs")
    authors = rows.select("id", "chosen_authors", "rejected_authors").rows()
    assert authors == [("p1", ["ada", "ben"], ["ben"]), ("p2", ["ada"], ["ben"])]
    assert select_rows(whole_run.folder, "pairs", member="ada")["id"].to_list() == ["p1", "p2"]


def test_filters(whole_run: Run) -> None:
    def ids(**filters: Any) -> list[str]:
        return select_rows(whole_run.folder, "candidates", **filters)["id"].to_list()

    assert ids(question="q2") == ["c5", "c6", "c7"]
    assert ids(question="HOW many") == ["c5", "c6", "c7"]
    assert ids(question="circle") == [f"c{n}" for n in range(1, 8)]
    assert ids(question="q2", member="ben") == ["c7"]
    assert ids(category="Vision-centric") == ["c5", "c6", "c7"]
    assert ids(unscored=True) == ["c6"]
    assert ids(round_number=1, question="nothing like it") == []
    rewards = select_rows(whole_run.folder, "rewards", member="ada")
    assert rewards["answer_id"].to_list() == ["a1", "a3", "a5"]


def test_unscored_judgments_keep_reason_and_reply(whole_run: Run) -> None:
    rows = select_rows(whole_run.folder, "judgments", unscored=True)
    assert rows.select("answer_id", "judge", "reason", "raw").rows() == [
        ("a2", "ben", "no score in the reply", "raw")
    ]
    text = shown(rows, "judgments")
    assert cells(text, "round")[-2:] == ["reason", "raw"]
    assert cells(text, "1")[-2:] == ["no score in the reply", "raw"]


def test_unscored_rewards_say_why(whole_run: Run) -> None:
    stage = whole_run.stage(1, "rewards")
    unscored = [("q1", "a2", "x", 1, None, None, 0), ("q1", "a9", "y", 1, None, None, 0)]
    rows = pl.DataFrame(unscored, schema=REWARD_SCHEMA, orient="row")
    stage.write_shard(0, rows)
    found = select_rows(whole_run.folder, "rewards", unscored=True)
    assert found.select("answer_id", "reason", "raw").rows() == [
        ("a2", "ben: no score in the reply", "ben: raw"),
        ("a9", "no judge was asked", None),
    ]
    assert "no score in the reply" in shown(found, "rewards")


def test_rounds_are_joined_and_chosen(whole_run: Run) -> None:
    # A second round in which the same question got another answer under the same ids.
    questions = whole_run.table(1, "questions", pl.Schema()).head(1)
    whole_run.stage(2, "questions").write_shard(0, questions)
    row = ("c1", "q1", "a1", "ada", 0, "clean", "blue", 1, None)
    table = pl.DataFrame([row], schema=CANDIDATE_SCHEMA, orient="row")
    whole_run.stage(2, "candidates", "ada").write_shard(0, table)
    both = select_rows(whole_run.folder, "candidates", question="q1", member="ada")
    assert both.select("round", "text").rows() == [(1, "red"), (1, "Red"), (2, "blue")]
    one = select_rows(whole_run.folder, "candidates", round_number=2)
    assert one.select("round", "text").rows() == [(2, "blue")]
    assert select_rows(whole_run.folder, "pairs", round_number=2).is_empty()


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"table": "pair"}, "no table named 'pair', .*; did you mean 'pairs'?"),
        ({"round_number": 4}, "has no round 4; its rounds are 1"),
        ({"round_number": 0}, "has no round 0; its rounds are 1"),
        ({"member": "adda"}, "no member named 'adda', there are ada, ben; did you mean 'ada'?"),
        ({"category": "Genral"}, "there are General, Vision-centric; did you mean 'General'?"),
        ({"table": "pairs", "unscored": True}, "--unscored selects nothing of pairs"),
    ],
)
def test_refusals(whole_run: Run, filters: dict[str, Any], said: str) -> None:
    with pytest.raises(PeeralignError, match=said.replace("?", r"\?")):
        select_rows(whole_run.folder, **{"table": "candidates", **filters})


def test_run_without_a_round(new_run: NewRun) -> None:
    with pytest.raises(PeeralignError, match="has no round yet"):
        select_rows(new_run().folder, "pairs")


def test_damaged_table(whole_run: Run) -> None:
    whole_run.stage(1, "pairs").shard(0).write_bytes(b"PAR1 and then nothing")
    with pytest.raises(PeeralignError, match="remove the damaged file") as caught:
        select_rows(whole_run.folder, "pairs")
    assert "\n" not in str(caught.value)


def write_answer(run: Run, text: str) -> None:
    row = ("c1", "q1", "a1", "ada", 0, "clean", text, 1, None)
    table = pl.DataFrame([row], schema=CANDIDATE_SCHEMA, orient="row")
    run.stage(1, "candidates", "ada").write_shard(0, table)


def test_markup_in_an_answer_is_shown_as_it_is(whole_run: Run) -> None:
    write_answer(whole_run, "[bold]red[/bold] :cat: [/]")
    rows = select_rows(whole_run.folder, "candidates", question="q1", member="ada")
    assert cells(shown(rows, "candidates"), "1")[-1] == "[bold]red[/bold] :cat: [/]"


def test_answer_cannot_steer_the_terminal(whole_run: Run) -> None:
    write_answer(whole_run, "a\x1b[31mred\x9b2J\nnext\u202eline")
    rows = select_rows(whole_run.folder, "candidates", question="q1", member="ada")
    text = shown(rows, "candidates")
    assert cells(text, "1")[-1] == r"a\x1b[31mred\x9b2J next\u202eline"


def test_long_answer_is_cut_and_a_row_is_a_line(whole_run: Run) -> None:
    write_answer(whole_run, "word " * 5000)
    rows = select_rows(whole_run.folder, "candidates", question="q1", member="ada")
    lines = shown(rows, "candidates", width=80).splitlines()
    assert len(lines) == 4  # head, rule, the row, the counts
    assert all(len(line) <= 80 for line in lines)
    assert "…" in lines[2]
    # The columns of numbers and names keep their width.
    assert cells("\n".join(lines), "round")[2:4] == ["author", "draw"]


def test_counts_line_and_limit(whole_run: Run) -> None:
    rows = select_rows(whole_run.folder, "candidates")
    assert shown(rows, "candidates", 2).splitlines()[-1] == "2 of 9 rows; --limit 0 shows all"
    whole = shown(rows, "candidates", 0).splitlines()
    assert whole[-1] == "9 of 9 rows"
    assert len(whole) == 9 + 3
    with pytest.raises(PeeralignError, match="--limit -1 is below 0"):
        shown(rows, "candidates", -1)


@pytest.mark.parametrize("table", [name for name in SHOWN if name != "comparisons"])
def test_nothing_found_is_a_line(whole_run: Run, table: str) -> None:
    rows = select_rows(whole_run.folder, table, question="nothing like it")
    assert shown(rows, table) == f"no {table} match\n"
    as_json = printed(lambda console: show_rows(rows, table, 20, True, console))
    assert as_json == ""


@pytest.mark.parametrize("table", [name for name in SHOWN if name != "comparisons"])
def test_every_table_can_be_shown(whole_run: Run, table: str) -> None:
    rows = select_rows(whole_run.folder, table)
    assert len(rows)
    text = shown(rows, table)
    assert text.splitlines()[-1] == f"{len(rows)} of {len(rows)} rows"


def test_json_lines(whole_run: Run, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    answer = '[bold]é\u2028"\n' + "long " * 100
    write_answer(whole_run, answer)
    rows = select_rows(whole_run.folder, "candidates", question="q1")
    show_rows(rows, "candidates", 2, True, Console(width=40, soft_wrap=True))
    out, err = capsysbinary.readouterr()
    lines = [json.loads(line) for line in out.decode("utf-8").split("\n")[:-1]]
    assert lines == rows.head(2).to_dicts()
    assert lines[0]["text"] == answer
    assert set(lines[0]) == set(rows.columns)
    # Not on standard output, where it would be no JSON.
    assert err.decode() == "2 of 3 rows; --limit 0 shows all\n"


def test_json_has_no_nan(whole_run: Run) -> None:
    rows = select_rows(whole_run.folder, "rewards").with_columns(reward=pl.lit(float("nan")))
    text = printed(lambda console: show_rows(rows, "rewards", 1, True, console))
    assert json.loads(text)["reward"] is None
    assert "NaN" not in text
