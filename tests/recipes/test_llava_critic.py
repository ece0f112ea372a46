"""Critic-guided DPO on the classroom, with critics whose verdicts are known."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from peeralign.classroom.demo import draw_pool
from peeralign.classroom.peers import shipped_peer
from peeralign.config import build
from peeralign.engines import opening
from peeralign.engines.base import AnswerRequest, Draw, Engine, JudgeRequest, Readout, Sampling
from peeralign.errors import PeeralignError
from peeralign.judging.verdict import Verdict, parse_verdict
from peeralign.panel import Member
from peeralign.recipes import llava_critic
from peeralign.records import normalise_answer
from peeralign.report import write_report
from peeralign.report.collect import collect
from peeralign.report.gallery import collect_gallery
from peeralign.report.rows import select_rows
from peeralign.report.terminal import print_summary
from peeralign.store.run import Run

BARE = (
    'version = 1\nkind = "pairwise"\nreason = "after"\n'
    'prompt = "{question}|{answer_a}|{answer_b}"\n'
)
ADA: dict[str, Any] = {"name": "ada", "model": "classroom:ada", "judges": False}
BEN: dict[str, Any] = {"name": "ben", "model": "classroom:ben", "judges": False}
# It answers by default, and still only learners' answers count.
SENIOR: dict[str, Any] = {"name": "senior", "model": "classroom:cleo", "learns": False}
BASE: dict[str, Any] = {
    "rounds": 2,
    "questions_per_round": 10,
    "generate": {"temperature": 2.0, "top_p": 1.0, "max_new_tokens": 4, "block_size": 4},
    "train": {"learning_rate": 1e-4, "batch_size": 4, "trackers": [], "save_every_steps": 1},
}


class Critic:
    """Likes what comes later in the alphabet, and the first where a z stands; cannot read an x."""

    def __init__(self, asked: list[JudgeRequest]) -> None:
        self.asked = asked

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        raise AssertionError("a critic is not asked for answers")

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        self.asked += requests
        return [[self.verdict(text, request) for text in request.texts] for request in requests]

    def verdict(self, text: str, request: JudgeRequest) -> Verdict:
        label = {1.0: "A", 0.0: "B", 0.5: "tie", None: ""}[liked(*text.split("|")[-2:])]
        said = f'{{"better": "{label}", "reason": "so"}}' if label else "hm"
        return parse_verdict(said, request.form)

    def close(self) -> None: ...


def liked(a: str, b: str) -> float | None:
    """What the critic thinks of `a`, shown first, and `b`."""
    a, b = normalise_answer(a), normalise_answer(b)
    if "x" in b:
        return None
    if "l" in a + b:
        return 1.0
    return float(a > b)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("given")
    draw_pool(11, 20).write_parquet(folder / "pool.parquet")
    (folder / "bare.toml").write_text(BARE)
    judge = {"rubric": str(folder / "bare.toml"), "block_size": 3}
    return {**BASE, "judge": judge, "pool": {"path": str(folder / "pool.parquet")}}


def config_of(settings: dict[str, Any], *members: dict[str, Any], **changes: Any) -> Any:
    return build(llava_critic.Config, {**settings, "members": list(members), **changes}, "test")


@pytest.fixture(scope="module")
def asked() -> list[JudgeRequest]:
    return []


@pytest.fixture(scope="module", autouse=True)
def scripted(asked: list[JudgeRequest]) -> Any:
    """Members with "senior" in their names are the critic above."""
    real = opening.open_engine

    def opened(member: Member, *args: Any) -> Engine:
        return Critic(asked) if "senior" in member.name else real(member, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "open_engine", opened)
        yield


@pytest.fixture(scope="module")
def finished(
    settings: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
    watched: Callable[[], Any],
    asked: list[JudgeRequest],
) -> tuple[Path, Any, dict[str, Any]]:
    """(the folder of a run of two learners and one senior critic, its witness, its summary)."""
    folder = tmp_path_factory.mktemp("critic") / "run"
    with watched() as witness:
        summary = llava_critic.run(config_of(settings, ADA, BEN, SENIOR), folder)
    return folder, witness, summary


def table(folder: Path, number: int, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"round-{number}" / name / "part-*.parquet")


def by_hand(texts: dict[str, str]) -> dict[str, float | None]:
    """Section 4.3, step 3, over what the critic likes."""
    rewards: dict[str, float | None] = dict.fromkeys(texts)
    for i, j in permutations(texts, 2):
        if None in (liked(texts[i], texts[j]), liked(texts[j], texts[i])):
            continue
        a_ij = 1 - (liked(texts[i], texts[j]) or 0.0)
        rewards[j] = (rewards[j] or 0.0) + a_ij
        rewards[i] = (rewards[i] or 0.0) - a_ij
    return rewards


def test_rewards_and_pairs_are_those_of_section_4_3(finished: Any) -> None:
    folder, _, summary = finished
    made = 0
    for number in (1, 2):
        round_folder = folder / f"round-{number}"
        assert sorted(p.name for p in (round_folder / "candidates").iterdir()) == ["ada", "ben"]
        comparisons = table(folder, number, "comparisons/senior")
        assert comparisons["id"].n_unique() == len(comparisons)
        compared = 0
        for name in ("ada", "ben"):
            candidates = table(folder, number, f"candidates/{name}")
            assert set(candidates["draw"]) == set(range(5))
            rewards = table(folder, number, f"rewards/{name}")
            answered = candidates.filter(pl.col("text").is_not_null())
            assert set(rewards["answer_id"]) == set(answered["answer_id"])
            pairs = {r["question_id"]: r for r in table(folder, number, f"pairs/{name}").to_dicts()}
            for (question,), rows in rewards.group_by("question_id"):
                expected = by_hand(dict(rows.select("answer_id", "text").iter_rows()))
                found = dict(rows.select("answer_id", "reward").iter_rows())
                assert found == expected
                compared += len(rows) * (len(rows) - 1)
                known = {v for v in expected.values() if v is not None}
                assert (question in pairs) == (len(known) > 1)
                if question in pairs:
                    pair = pairs[question]
                    assert expected[pair["chosen_answer_id"]] == max(known)
                    assert expected[pair["rejected_answer_id"]] == min(known)
                    made += 1
        # What both learners wrote is asked once.
        assert 0 < len(comparisons) <= compared
        counts = summary["rounds"][number]["counts"]
        assert counts["comparisons"] == len(comparisons)
        assert counts["unscored"] == comparisons["preference"].null_count()
        assert counts["judgments"] == 0
    assert made > 10


def test_each_learns_its_own_pairs_from_its_last_weights(finished: Any) -> None:
    folder, witness, _ = finished
    assert [job.label for job, _, _ in witness.taught] == ["ada learns", "ben learns"] * 2
    for place, (job, trees, config) in enumerate(witness.taught):
        number, name = 1 + place // 2, job.final.name
        before = shipped_peer(name) if number == 1 else folder / "round-1/members" / name
        assert job.checkpoint == str(before)
        assert (config.objective, config.beta, config.epochs) == ("dpo", 0.1, 1)
        pairs = table(folder, number, f"pairs/{name}")
        learnt = {(t.item, *(b.response for b in t.branches)) for t in trees}
        assert learnt == set(pairs.select("question_id", "chosen", "rejected").iter_rows())
    assert {request.text.count("|") for _, request, _ in witness.asked} == {0}


def test_thresholds_leave_pairs_out_and_earlier_rounds_are_kept(
    finished: Any, settings: dict[str, Any], tmp_path: Path, watched: Callable[[], Any]
) -> None:
    folder, _, _ = finished
    whole = table(folder, 1, "pairs/ada")
    margin = pl.col("chosen_reward") - pl.col("rejected_reward")
    limits = {
        "min_chosen_reward": float(whole["chosen_reward"].min()) + 0.5,  # type: ignore[arg-type]
        "min_margin": float(whole.select(margin.min()).item()) + 0.5,
    }
    train = {**settings["train"], "keep_pairs": True}
    with watched() as witness:
        llava_critic.run(
            config_of(settings, ADA, SENIOR, curate=limits, train=train), tmp_path / "run"
        )
    expected = whole.filter(
        pl.col("chosen_reward") >= limits["min_chosen_reward"], margin >= limits["min_margin"]
    )
    pairs = [table(tmp_path / "run", number, "pairs/ada") for number in (1, 2)]
    assert 0 < len(expected) < len(whole)
    assert pairs[0].equals(expected)
    taught = [len(trees) for _, trees, _ in witness.taught]
    assert taught == [len(pairs[0]), len(pairs[0]) + len(pairs[1])]


def test_the_same_command_again_asks_nothing(
    finished: Any, settings: dict[str, Any], tmp_path: Path, asked: list[JudgeRequest]
) -> None:
    folder, _, summary = finished
    shutil.copytree(folder, tmp_path / "again")
    before = len(asked)
    again = llava_critic.run(config_of(settings, ADA, BEN, SENIOR), tmp_path / "again")
    assert [r["counts"] for r in again["rounds"]] == [r["counts"] for r in summary["rounds"]]
    assert len(asked) == before


MOMENTS: list[tuple[str, str | int]] = [
    ("after", "round-1/candidates/ada/part-00001.parquet"),
    ("after", "round-1/comparisons/senior/part-00000.parquet"),
    ("before", "round-1/comparisons/senior/done.json"),
    ("after", "round-1/rewards/ada/part-00000.parquet"),
    ("before", "round-1/pairs/ada/done.json"),
    ("step", 1),
    ("before", "summary.json"),
]


def test_stopped_at_any_moment_it_ends_the_same(
    settings: dict[str, Any],
    tmp_path: Path,
    run_killed: Callable[[Callable[[], Any], tuple[str, str | int]], None],
    assert_same_result: Callable[[Path, Path], None],
) -> None:
    config = config_of(settings, ADA, SENIOR, rounds=1)
    for moment in MOMENTS:
        run_killed(lambda: llava_critic.run(config, tmp_path / "stopped"), moment)
    stopped = llava_critic.run(config, tmp_path / "stopped")
    whole = llava_critic.run(config, tmp_path / "whole")
    assert_same_result(tmp_path / "whole", tmp_path / "stopped")
    assert [r["counts"] for r in stopped["rounds"]] == [r["counts"] for r in whole["rounds"]]


def test_pointwise_and_judged_by_itself(settings: dict[str, Any], tmp_path: Path) -> None:
    learners = [{**ADA, "judges": True}, {**BEN, "judges": True}]
    judge = {"rubric": "classroom", "readout": "greedy", "judges": "self"}
    config = config_of(settings, *learners, rewards="pointwise", judge=judge, rounds=1)
    summary = llava_critic.run(config, tmp_path / "run")
    for name in ("ada", "ben"):
        candidates = table(tmp_path / "run", 1, f"candidates/{name}")
        answers = set(candidates.drop_nulls("text")["answer_id"])
        judgments = table(tmp_path / "run", 1, f"judgments/{name}")
        assert set(judgments["answer_id"]) == answers
        rewards = table(tmp_path / "run", 1, f"rewards/{name}")
        scores = dict(judgments.select("answer_id", "score").iter_rows())
        assert dict(rewards.select("answer_id", "reward").iter_rows()) == pytest.approx(scores)
    assert summary["rounds"][1]["counts"]["comparisons"] == 0


def test_others_compare_what_they_did_not_write(settings: dict[str, Any], tmp_path: Path) -> None:
    learners = [{**ADA, "judges": True}, {**BEN, "judges": True}]
    judge = {**settings["judge"], "judges": "others", "readout": "random"}
    llava_critic.run(config_of(settings, *learners, judge=judge, rounds=1), tmp_path / "run")
    for critic, author in (("ada", "ben"), ("ben", "ada")):
        comparisons = table(tmp_path / "run", 1, f"comparisons/{critic}")
        answers = set(table(tmp_path / "run", 1, f"candidates/{author}")["answer_id"])
        assert {*comparisons["first_id"], *comparisons["second_id"]} <= answers
        assert set(table(tmp_path / "run", 1, f"rewards/{author}")["num_judges"]) <= {0, 1}


def test_report_and_tables(finished: Any) -> None:
    folder, _, summary = finished
    page = write_report(folder).read_text(encoding="utf-8")
    assert 'id="critics"' in page
    assert "not finished yet:" not in page
    data = collect(Run.existing(folder))
    for number in (1, 2):
        entry = data.rounds[number - 1]
        comparisons = table(folder, number, "comparisons/senior")
        # In both orders.
        assert [2 * bias.pairs for bias in entry.orders] == [len(comparisons)]
        for outcome in entry.outcomes:
            done = json.loads(
                (folder / f"round-{number}/pairs/{outcome.member}/done.json").read_text()
            )
            assert (outcome.pairs, outcome.equal) == (done["rows"], done["equal"])
            assert (outcome.pairs or 0) + (outcome.equal or 0) + (outcome.without or 0) == 10
        rows = select_rows(folder, "comparisons", round_number=number, unscored=True)
        assert len(rows) == summary["rounds"][number]["counts"]["unscored"]
    cards = [card for number in (1, 2) for card in collect_gallery(Run.existing(folder), number)]
    # Every pair's two answers were compared, and the critic gives a reason with each verdict.
    assert {len(card.opinions) for card in cards} == {2}
    said = [opinion for card in cards for opinion in card.opinions if opinion.better]
    assert {opinion.explanation for opinion in said} == {"so"}
    printed = io.StringIO()
    print_summary(summary, Console(file=printed, width=120))
    assert "comparisons" in printed.getvalue()


# ---- settings ----------------------------------------------------------------------------------

PAPER = {"members": [], "pool": {"path": "x"}}


def test_the_papers_numbers_are_the_defaults() -> None:
    config = build(llava_critic.Config, PAPER, "defaults")
    assert (config.rounds, config.rewards) == (3, "pairwise")
    assert config.generate.sampling() == Sampling(5, 0.7, 0.9, 256)
    assert (config.judge.rubric, config.judge.orders) == ("pairwise", "both")
    assert (config.train.objective, config.train.beta) == ("dpo", 0.1)
    assert (config.train.learning_rate, config.train.epochs) == (5e-7, 1)
    # Nothing is left out, however little an answer is worth.
    assert config.curate.min_chosen_reward < -2 * config.generate.num_draws
    assert (config.curate.min_margin, config.curate.tie_tolerance) == (0.0, 0.0)


def test_a_table_given_in_part_keeps_the_others() -> None:
    given = {**PAPER, "judge": {"readout": "greedy"}, "generate": {"num_draws": 3}}
    given["curate"] = {"min_margin": 1.0}
    config = build(llava_critic.Config, given, "part")
    assert (config.curate.min_chosen_reward, config.curate.min_margin) == (-1000.0, 1.0)
    assert (config.judge.rubric, config.judge.readout) == ("pairwise", "greedy")
    assert config.generate.sampling() == Sampling(3, 0.7, 0.9, 256)
    pointwise = build(llava_critic.Config, {**given, "rewards": "pointwise"}, "pointwise")
    assert (pointwise.judge.rubric, pointwise.judge.readout) == ("visual_chat", "greedy")


@pytest.mark.parametrize(
    ("members", "changes", "sentence"),
    [
        ([ADA], {}, "no member judges"),
        ([SENIOR], {}, "no member learns"),
        ([ADA, SENIOR], {"judge": {"judges": "self"}}, "nobody judges 'ada'"),
        ([ADA, SENIOR], {"judge": {"rubric": "five_axis"}}, "needed here is one that is pairwise"),
        ([ADA, SENIOR], {"rewards": "pointwise", "judge": {"rubric": "pairwise"}}, "is pairwise"),
        ([ADA, SENIOR], {"generate": {"sampler": "greedy"}}, "one answer to a question makes no"),
        ([ADA, SENIOR], {"aggregate": {"method": "min"}}, "aggregate has no effect on pairwise"),
    ],
)
def test_a_mistake_leaves_no_run_behind(
    settings: dict[str, Any],
    tmp_path: Path,
    members: list[dict[str, Any]],
    changes: dict[str, Any],
    sentence: str,
) -> None:
    with pytest.raises(PeeralignError, match=sentence) as caught:
        llava_critic.run(config_of(settings, *members, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_other_rewards_are_other_settings(finished: Any, settings: dict[str, Any]) -> None:
    other = config_of(settings, ADA, BEN, SENIOR, rewards="pointwise", judge={})
    with pytest.raises(PeeralignError, match="this changes everything from the judgments on"):
        llava_critic.run(other, finished[0])
