"""Runs whose critics compare answers: the report's numbers against those worked out by hand."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from report.compared import (
    CRITICS,
    EXPLANATION,
    LEARNERS,
    REASON,
    SCRIPT,
    SETTINGS,
    write_answers,
    write_comparisons,
    write_critic_run,
    write_pairs,
)
from rich.console import Console

from peeralign.errors import PeeralignError
from peeralign.recipes.llava_critic import PAPER_CURATE
from peeralign.records import (
    CANDIDATE_SCHEMA,
    COMPARISON_SCHEMA,
    JUDGMENT_SCHEMA,
    PAIR_SCHEMA,
    REWARD_SCHEMA,
)
from peeralign.report import figures, write_report
from peeralign.report.collect import Histogram, Tally, collect
from peeralign.report.critics import Opinion, OrderBias, Outcome
from peeralign.report.gallery import Verdict, collect_gallery
from peeralign.report.rows import select_rows
from peeralign.report.terminal import show_rows
from peeralign.stages.aggregate import AggregateConfig, aggregate
from peeralign.stages.curate import CurateConfig, curate
from peeralign.store.run import Run


@pytest.fixture
def critic_run(tmp_path: Path, write: SimpleNamespace) -> Run:
    return write_critic_run(tmp_path / "critic", write.questions)


def body_of(run: Run) -> str:
    source = write_report(run.folder).read_text(encoding="utf-8")
    body = source.split("<body>")[1].split("<script>")[0]
    # What the settings hold is not for the tests below.
    return body.split('<section id="settings">')[0]


def section_of(run: Run, name: str) -> str:
    return body_of(run).split(f'<section id="{name}">')[1].split("</section>")[0]


def table_of(section: str) -> list[list[str]]:
    """The cells of a section's rows, without those of the head."""
    rows = re.findall(r"<tr>(.*?)</tr>", section.split("<tbody>")[1], flags=re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_order_bias_of_each_critic(critic_run: Run) -> None:
    # cleo could not be read once: of three whole pairs one changes with the order. Its verdicts on
    # these that are no tie are first, first and first, second: three are for what was shown first.
    assert collect(critic_run).rounds[0].orders == [
        OrderBias("cleo", 4, 3, 1 / 3, 3 / 4, 2 / 7, 1 / 8),
        OrderBias("dan", 4, 4, 1 / 4, 3 / 5, 3 / 8, 0.0),
    ]
    assert table_of(section_of(critic_run, "critics")) == [
        ["1", "cleo", "4", "3", "33.3", "75.0", "28.6", "12.5"],
        ["1", "dan", "4", "4", "25.0", "60.0", "37.5", "0.0"],
    ]


def test_one_order_alone_says_nothing_of_orders(critic_run: Run) -> None:
    for critic in CRITICS:
        stage = critic_run.stage(1, "comparisons", critic)
        rows = stage.read(COMPARISON_SCHEMA).filter(pl.col("order") == 0)
        stage.write_shard(0, rows)
    assert table_of(section_of(critic_run, "critics")) == [
        ["1", "cleo", "4", "0", "\N{EN DASH}", "\N{EN DASH}", "25.0", "0.0"],
        ["1", "dan", "4", "0", "\N{EN DASH}", "\N{EN DASH}", "25.0", "0.0"],
    ]


def test_critic_that_says_nothing_readable(critic_run: Run) -> None:
    stage = critic_run.stage(1, "comparisons", "dan")
    mute = [pl.lit(None, pl.String).alias("verdict"), pl.lit(None, pl.Float64).alias("preference")]
    stage.write_shard(0, stage.read(COMPARISON_SCHEMA).with_columns(mute))
    found = collect(critic_run).rounds[0].orders[1]
    assert found == OrderBias("dan", 4, 0, None, None, None, 1.0)


def test_what_came_of_each_learner_s_answers(critic_run: Run) -> None:
    entry = collect(critic_run).rounds[0]
    assert entry.outcomes == [
        # q3 has a single answer by ada.
        Outcome("ada", 3, 5, 8, 0, 2, equal=0, without=1),
        # ben did not answer q2; the verdicts on q1 cancel.
        Outcome("ben", 3, 4, 8, 1, 1, equal=1, without=1),
    ]
    assert entry.comparisons == Tally(15, {REASON: 1})
    assert table_of(section_of(critic_run, "yield")) == [
        ["1", "ada", "3", "5", "8", "0", "2", "0", "1"],
        ["1", "ben", "3", "4", "8", "1", "1", "1", "1"],
    ]


@pytest.mark.parametrize(
    ("who", "counted"),
    [("all", [(8, 0), (8, 1)]), ("self", [(4, 0), (4, 0)]), ("others", [(4, 0), (4, 1)])],
)
def test_judges_that_do_not_count_are_not_counted(
    tmp_path: Path, write: SimpleNamespace, who: str, counted: list[tuple[int, int]]
) -> None:
    judge = {"rubric": "pairwise", "judges": who}
    members = [{"name": name} for name in LEARNERS]
    settings = {**SETTINGS, "members": members, "judge": judge}
    run = Run.open(tmp_path / "run", "llava_critic", settings, 7)
    write.questions(run)
    write_answers(run, *LEARNERS)
    write_comparisons(run, *LEARNERS)
    found = collect(run).rounds[0].outcomes
    assert [(outcome.verdicts, outcome.unscored) for outcome in found] == counted
    write_pairs(run, "ben")
    (card,) = collect_gallery(run, 1)
    critics = {"all": {"ada", "ben"}, "self": {"ben"}, "others": {"ada"}}[who]
    assert {opinion.critic for opinion in card.opinions} == critics


def test_rewards_beyond_one(critic_run: Run) -> None:
    histogram = collect(critic_run).rounds[0].histogram
    # ada's 0.75, -0.75, 0.5 and -0.5, ben's 0, 0, 1 and -1; bins are halves.
    assert histogram is not None
    assert histogram == Histogram(
        {-2: 1, -1: 2, 0: 2, 1: 1, 2: 2}, {1: 1, 2: 2}, {-2: 1, -1: 2}, per_unit=2, centred=True
    )
    assert (histogram.left(-2), histogram.left(3)) == (-1.25, 1.25)
    assert "8 distinct answers, 3 chosen, 3 rejected" in section_of(critic_run, "rewards")


def test_axis_of_rewards_reaches_as_far_to_either_side(
    critic_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = critic_run.stage(1, "rewards", "ada")
    stage.write_shard(0, stage.read(REWARD_SCHEMA).with_columns(reward=pl.lit(-3.0)))
    drawn: list[Any] = []
    real = figures.reward_histogram

    def watched(*args: Any) -> Any:
        drawn.append(args)
        return real(*args)

    monkeypatch.setattr(figures, "reward_histogram", watched)
    write_report(critic_run.folder)
    ((_, _, _, bins, _),) = drawn
    assert bins == (-6, 6)


def test_scores_of_learners_and_critics_are_no_panel_s(critic_run: Run, write: Any) -> None:
    for number, right in ((0, 1), (1, 3)):
        for member in (*LEARNERS, *CRITICS):
            write.exam(critic_run, number, member, {"count": right, "colour": right})
            critic_run.stage(number, "exam", member).finish()
    body = body_of(critic_run)
    assert "The mean over members rose from 25.0% in round 0 to 75.0% in round 1" in body
    assert "panel mean" not in body


def test_cards_show_what_critics_said(critic_run: Run) -> None:
    cards = {card.chosen.text: card for card in collect_gallery(critic_run, 1)}
    assert {text: card.authors for text, card in cards.items()} == {
        "red": ["ada"],
        "2": ["ada"],
        "bar": ["ben"],
    }
    assert (cards["red"].chosen.reward, cards["red"].rejected.reward) == (0.75, -0.75)
    assert cards["red"].chosen.authors == {"ada": 2}
    assert cards["red"].opinions == [
        Opinion("cleo", "chosen", "chosen", EXPLANATION, None),
        Opinion("cleo", "rejected", "chosen", None, None),
        Opinion("dan", "chosen", "chosen", EXPLANATION, None),
        Opinion("dan", "rejected", "tie", None, None),
    ]
    # Here the chosen answer is the second one of the comparison.
    assert cards["bar"].opinions == [
        Opinion("cleo", "rejected", "rejected", EXPLANATION, None),
        Opinion("cleo", "chosen", None, None, REASON),
        Opinion("dan", "rejected", "chosen", None, None),
        Opinion("dan", "chosen", "chosen", None, None),
    ]
    shown = section_of(critic_run, "gallery")
    assert "<span>0.75</span>" in shown
    assert "<span>\N{MINUS SIGN}0.75</span>" in shown
    assert "<dt>dan, rejected shown first</dt>\n  <dd>a tie</dd>" in shown
    assert "unscored: no &lt;b&gt;object" in shown
    assert "view:" not in shown


def test_strangers_text_is_escaped(critic_run: Run) -> None:
    body = body_of(critic_run)
    assert "The circle is red. &lt;script&gt;" in body
    assert SCRIPT not in body
    assert "<b>object" not in body


def test_page_has_no_thresholds_and_no_scores_by_author(critic_run: Run) -> None:
    body = body_of(critic_run)
    for word in ("threshold", "margin", 'id="judges"', "Judgments", "panel"):
        assert word not in body, word
    assert "it made 3 pairs" in body
    assert "not finished yet:" not in body
    assert (
        write_report(critic_run.folder).read_bytes() == write_report(critic_run.folder).read_bytes()
    )


def test_page_of_a_panel_says_nothing_of_critics(whole_run: Run) -> None:
    body = body_of(whole_run)
    for word in ("critic", "omparison", "learner"):
        assert word not in body, word
    assert "Yield of pairs by both thresholds" in body


def test_every_stop_gives_a_page(tmp_path: Path, write: SimpleNamespace) -> None:
    run = Run.open(tmp_path / "run", "llava_critic", SETTINGS, 7)
    assert "No comparisons yet." in body_of(run)
    rest = "rewards, pairs, training."
    steps: list[tuple[Any, str]] = [
        (lambda: write.questions(run), f"answers, comparisons, {rest}"),
        (
            lambda: write_answers(run, "ada"),
            f"answers (1 of 2 members done), comparisons, {rest}",
        ),
        (lambda: write_answers(run, "ben"), f"comparisons, {rest}"),
        (
            lambda: write_comparisons(run, "cleo"),
            f"comparisons (1 of 2 members done), {rest}",
        ),
        (lambda: write_comparisons(run, *CRITICS), rest),
        (lambda: write_pairs(run, "ada"), "pairs (1 of 2 members done), training."),
    ]
    for step, missing in steps:
        step()
        assert f"Round 1: not finished yet: {missing}" in body_of(run)
    # What is not there yet is no zero.
    assert collect(run).rounds[0].outcomes[1] == Outcome("ben", 3, 4, 8, 1, None, None, None)
    assert [
        "1",
        "ben",
        "3",
        "4",
        "8",
        "1",
        "\N{EN DASH}",
        "\N{EN DASH}",
        "\N{EN DASH}",
    ] in table_of(section_of(run, "yield"))


def write_pointwise(run: Run, explained: str) -> None:
    """Both learners score themselves, as the recipe does with judge.judges = "self"."""
    for name in LEARNERS:
        answers = run.stage(1, "candidates", name).read(CANDIDATE_SCHEMA).drop_nulls("text")
        ids = answers.unique("answer_id", maintain_order=True)
        rows = [
            (f"{name}-{a}", q, a, name, 0.5 + i / 10, None, None, None, explained)
            for i, (q, a) in enumerate(ids.select("question_id", "answer_id").iter_rows())
        ]
        judgments = pl.DataFrame(rows, schema=JUDGMENT_SCHEMA, orient="row")
        rewards = aggregate(answers, judgments, AggregateConfig(), "self")
        pairs = curate(rewards, CurateConfig(**PAPER_CURATE))
        for stage, table in (("judgments", judgments), ("rewards", rewards), ("pairs", pairs)):
            run.stage(1, stage, name).write_shard(0, table)
            run.stage(1, stage, name).finish(rows=len(table), equal=1, unscored=0)


def test_pointwise_rewards(tmp_path: Path, write: SimpleNamespace) -> None:
    settings = {
        **SETTINGS,
        "rewards": "pointwise",
        "members": [{"name": name} for name in LEARNERS],
        "judge": {"rubric": "visual_chat", "judges": "self"},
    }
    run = Run.open(tmp_path / "run", "llava_critic", settings, 7)
    write.questions(run)
    write_answers(run, *LEARNERS)
    assert "not finished yet: judgments, rewards, pairs, training." in body_of(run)
    write_pointwise(run, '{"score": 5, "reason": "<b>because</b>"}')
    data = collect(run)
    assert (data.compared, data.scored, data.chosen_alone) == (False, True, True)
    first = data.rounds[0]
    assert (first.yields, first.orders) == (None, [])
    assert first.outcomes[0] == Outcome("ada", 3, 5, 5, 0, 2, equal=1, without=0)
    card = next(card for card in collect_gallery(run, 1) if card.authors == ["ben"])
    # ada's score of the answer that both gave does not count for ben.
    for side in (card.chosen, card.rejected):
        assert side.verdicts == [Verdict("ben", side.reward, None, "<b>because</b>")]
    body = body_of(run)
    assert "&lt;b&gt;because&lt;/b&gt;" in body
    assert 'id="critics"' not in body
    assert 'id="judges"' in body
    assert "threshold" not in body


def test_rubric_that_is_gone(whole_run: Run, tmp_path: Path, write: SimpleNamespace) -> None:
    judge = {"rubric": str(tmp_path / "gone.toml")}
    run = write.fill(Run.open(tmp_path / "run", "pop", {"judge": judge}, 7))
    assert all(v.explanation is None for c in collect_gallery(run, 1) for v in c.chosen.verdicts)


def test_rows_of_comparisons(critic_run: Run) -> None:
    rows = select_rows(critic_run.folder, "comparisons", member="cleo", question="q1")
    assert rows.select("category", "first", "second", "order", "verdict").rows() == [
        ("General", "red", SCRIPT, 0, "first"),
        ("General", "red", SCRIPT, 1, "first"),
        ("General", "red", "blue", 0, "first"),
        ("General", "red", "blue", 1, "second"),
    ]
    assert set(COMPARISON_SCHEMA.names()) < set(rows.columns)
    assert len(select_rows(critic_run.folder, "comparisons")) == 16
    assert len(select_rows(critic_run.folder, "comparisons", category="Vision-centric")) == 4
    assert len(select_rows(critic_run.folder, "comparisons", round_number=1)) == 16
    (row,) = select_rows(critic_run.folder, "comparisons", unscored=True).to_dicts()
    assert (row["judge"], row["order"], row["reason"], row["raw"]) == ("cleo", 1, REASON, "hm")
    with pytest.raises(PeeralignError, match="did you mean 'cleo'"):
        select_rows(critic_run.folder, "comparisons", member="cloe")


def printed(rows: pl.DataFrame, table: str, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, soft_wrap=True)
    show_rows(rows, table, 0, False, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def heads(text: str) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[0].split("┃")]


def test_comparisons_on_a_terminal(critic_run: Run) -> None:
    rows = select_rows(critic_run.folder, "comparisons")
    wide = ["round", "question", "first", "second", "order", "judge", "verdict"]
    # A preference of 0, 0.5 or 1 only repeats the verdict.
    assert heads(printed(rows, "comparisons", 200)) == [*wide, "explanation", "reason"]
    hedged = rows.with_columns(pl.col("preference") * 0.9)
    assert "preference" in heads(printed(hedged, "comparisons", 200))
    assert max(map(len, printed(rows, "comparisons", 80).splitlines())) <= 80
    unscored = select_rows(critic_run.folder, "comparisons", unscored=True)
    assert heads(printed(unscored, "comparisons", 200))[-2:] == ["reason", "raw"]


def test_rewards_and_pairs_are_each_learner_s_own(critic_run: Run) -> None:
    rows = select_rows(critic_run.folder, "rewards", member="ben")
    assert dict(rows.select("answer_id", "reward").iter_rows()) == {
        "a1": 0.0,
        "a6": 0.0,
        "a5": -1.0,
        "a7": 1.0,
    }
    assert rows["authors"].to_list() == [["ben"]] * 4
    pairs = select_rows(critic_run.folder, "pairs")
    assert heads(printed(pairs, "pairs", 160)) == [
        *("round", "question", "chosen", "authors", "reward", "rejected", "reward")
    ]


def test_unscored_rewards_say_why(critic_run: Run) -> None:
    shutil.rmtree(critic_run.round_folder(1) / "comparisons/dan")
    write_pairs(critic_run, "ben")
    rows = select_rows(critic_run.folder, "rewards", unscored=True)
    told = f"cleo: {REASON}"
    # Nobody compared ada's a5, which was its only answer.
    assert rows.select("answer_id", "authors", "reason", "raw").rows() == [
        ("a5", ["ada"], "no judge was asked", None),
        ("a5", ["ben"], told, "cleo: hm"),
        ("a7", ["ben"], told, "cleo: hm"),
    ]


def test_tables_of_other_runs_are_as_they_were(whole_run: Run) -> None:
    assert select_rows(whole_run.folder, "comparisons").is_empty()
    assert whole_run.table(1, "rewards", REWARD_SCHEMA).height == 5
    assert whole_run.table(1, "pairs", PAIR_SCHEMA).height == 2
