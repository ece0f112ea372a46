"""The panel as an answerer: which answer is best, what is asked of whom, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from peeralign.classroom.demo import draw_exam
from peeralign.engines.base import Draw, Engine, JudgeRequest, Readout, Sampling
from peeralign.engines.opening import open_engine
from peeralign.errors import PeeralignError
from peeralign.judging.verdict import Verdict
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes.answer import (
    ANSWERED_SCHEMA,
    UNSCORED,
    WEIGHED_SCHEMA,
    AnswerConfig,
    best_answers,
    check_answering,
    panel_answers,
    panel_from,
    weighed_answers,
)
from peeralign.records import CANDIDATE_SCHEMA, QUESTION_SCHEMA
from peeralign.stages.generate import answer_id
from peeralign.store.run import Run, Stage

NAMES = ("ada", "ben")
PANEL = Panel(tuple(Member(name=name, model=f"classroom:{name}") for name in NAMES))
CONFIG: dict[str, Any] = {
    "generate": {"num_draws": 3, "max_new_tokens": 4, "block_size": 4},
    "judge": {"rubric": "classroom", "readout": "expected", "block_size": 5},
}


def config(**changes: Any) -> AnswerConfig:
    sections = {
        name: {**CONFIG.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return AnswerConfig.model_validate({**CONFIG, **sections})


def stages(folder: Path) -> Callable[[str, str], Stage]:
    return lambda name, who: Stage(folder / name / who)


@pytest.fixture(scope="module")
def questions() -> pl.DataFrame:
    """Nine questions, one a skill, with their answers beside them."""
    return draw_exam(5, 1)


def weighed(*rows: tuple[str, str, int, float | None]) -> pl.DataFrame:
    """From (question, text, draws, reward)."""
    full = [
        (question, answer_id(question, text), text, ["ada"], draws, reward, 1, [])
        for question, text, draws, reward in rows
    ]
    return pl.DataFrame(full, schema=WEIGHED_SCHEMA, orient="row")


def candidates(*rows: tuple[str, str, str | None, str | None]) -> pl.DataFrame:
    """From (question, author, text, reason)."""
    full = [
        (str(n), question, "", author, n, "clean", text, 1, reason)
        for n, (question, author, text, reason) in enumerate(rows)
    ]
    return pl.DataFrame(full, schema=CANDIDATE_SCHEMA, orient="row")


def asked(*names: str) -> pl.DataFrame:
    image = {"bytes": None, "path": None}
    rows = [(name, "what?", "", image) for name in names]
    return pl.DataFrame(rows, schema=QUESTION_SCHEMA, orient="row")


NOBODY = candidates()


def best(*rows: tuple[str, str, int, float | None], **choice: Any) -> Any:
    table = best_answers(asked("q"), NOBODY, weighed(*rows), AnswerConfig(**choice), 0)
    return table.row(0, named=True)


def test_the_highest_reward_wins_however_rarely_it_was_drawn() -> None:
    found = best(("q", "red", 1, 0.8), ("q", "blue", 9, 0.7), ("q", "green", 3, None))
    assert (found["text"], found["reward"], found["num_draws"]) == ("red", 0.8, 1)
    assert (found["num_answers"], found["authors"], found["reason"]) == (3, ["ada"], None)


def test_ties_go_to_the_answer_drawn_more_often() -> None:
    # Sums that differ only in the last bit are a tie.
    tied = [("q", "red", 1, 0.1 + 0.2), ("q", "blue", 2, 0.3), ("q", "green", 7, 0.29)]
    assert best(*tied)["text"] == "blue"
    assert best(*tied, tie_tolerance=0.01)["text"] == "green"
    assert best(*tied, tie_tolerance=0.009)["text"] == "blue"


def test_weighted_by_draws_the_sum_of_rewards_counts() -> None:
    rows = [("q", "red", 1, 0.9), ("q", "blue", 3, 0.4), ("q", "green", 9, None)]
    found = best(*rows, choose="weighted")
    assert (found["text"], found["reward"]) == ("blue", 0.4)
    # 0.9 and 0.9, of which the more often drawn, whatever the tolerance for "best".
    assert best(*rows[:1], ("q", "blue", 3, 0.3), choose="weighted")["text"] == "blue"
    assert (
        best(*rows[:1], ("q", "blue", 2, 0.4), choose="weighted", tie_tolerance=1)["text"] == "red"
    )
    below = [("q", "red", 9, -0.5), ("q", "blue", 1, -0.1), ("q", "green", 1, 0.01)]
    assert best(*below, choose="weighted")["text"] == "green"
    assert best(*rows[2:], ("q", "red", 2, None), choose="weighted")["reason"] == UNSCORED


def test_what_is_tied_in_all_is_drawn_by_lot() -> None:
    names = [str(number) for number in range(60)]
    rows = [(name, text, 1, 0.5) for name in names for text in ("red", "blue")]
    first = best_answers(asked(*names), NOBODY, weighed(*rows), AnswerConfig(), 0)
    again = best_answers(asked(*names), NOBODY, weighed(*reversed(rows)), AnswerConfig(), 0)
    assert first.equals(again)
    reds = first["text"].to_list().count("red")
    assert 15 < reds < 45
    other = best_answers(asked(*names), NOBODY, weighed(*rows), AnswerConfig(), 1)
    assert 15 < (first["text"] != other["text"]).sum() < 45


def test_without_a_score_the_answer_drawn_most_often() -> None:
    found = best(("q", "red", 2, None), ("q", "blue", 3, None))
    assert (found["text"], found["reward"], found["reason"]) == ("blue", None, UNSCORED)
    # A single answer needs no score to be the best.
    assert best(("q", "red", 2, None))["reason"] is None


def test_questions_without_an_answer_keep_their_row() -> None:
    given = candidates(
        ("none", "ben", None, "empty answer"),
        ("none", "ada", None, "empty answer"),
        ("none", "ada", None, "empty answer"),
        ("some", "ada", None, "empty answer"),
        ("some", "ben", "red", None),
    )
    scored = weighed(("some", "red", 1, 0.5))
    table = best_answers(asked("none", "some"), given, scored, AnswerConfig(), 0)
    assert table.schema == ANSWERED_SCHEMA
    none, some = table.to_dicts()
    assert (none["question_id"], none["text"], none["authors"]) == ("none", None, [])
    assert none["reason"] == "ada: empty answer; ben: empty answer"
    assert (none["num_answers"], none["num_draws"]) == (0, 0)
    assert (some["text"], some["reason"]) == ("red", None)


def ask(
    folder: Path,
    questions: pl.DataFrame,
    panel: Panel = PANEL,
    given: AnswerConfig | None = None,
    opened: Callable[[Member], Engine] = open_engine,
) -> pl.DataFrame:
    return panel_answers(stages(folder), questions, panel, given or config(), opened, 0, Reporter())


def test_real_peers_answer_together(questions: pl.DataFrame, tmp_path: Path) -> None:
    table = ask(tmp_path, questions)
    assert table["question_id"].to_list() == questions["id"].to_list()
    assert table["text"].null_count() == table["reason"].len() - 9 == 0
    assert table["num_judges"].to_list() == [2] * 9
    answers = weighed_answers(stages(tmp_path), questions, PANEL, config())
    drawn = pl.read_parquet(tmp_path / "candidates/*/part-*.parquet")
    assert len(drawn) == 9 * 2 * 3
    assert answers["num_draws"].sum() == drawn["text"].count()
    for row in answers.iter_rows(named=True):
        scores = {verdict["judge"]: verdict["score"] for verdict in row["verdicts"]}
        assert set(scores) == set(NAMES)
        assert row["reward"] == pytest.approx(sum(scores.values()) / 2)
    top = answers.group_by("question_id").agg(pl.col("reward").max())
    assert table.join(top, on=["question_id", "reward"]).height == 9
    assert {tuple(authors) for authors in table["authors"]} > {("ada",), ("ben",)}


class Witness:
    """An engine that answers and judges by rule, and keeps what it was shown."""

    def __init__(self, says: str, *, scores: bool = True) -> None:
        self.says, self.scores = says, scores
        self.shown: list[str] = []

    def answer(self, requests: Any, sampling: Sampling) -> list[list[Draw]]:
        self.shown += [request.text for request in requests]
        return [[Draw(self.says, 1)] * sampling.num_draws for _ in requests]

    def judge(self, requests: Any, readout: Readout) -> list[list[Verdict]]:
        self.shown += [text for request in requests for text in request.texts]
        return [[self._verdict(text, request) for text in request.texts] for request in requests]

    def _verdict(self, text: str, request: JudgeRequest) -> Verdict:
        if not self.scores:
            return Verdict(None, "not readable", "")
        first, second = text.find("crimson"), text.find("teal")
        if request.form.choices:
            return Verdict([1.0 if first < second else 0.0], None, "")
        return Verdict([5.0 if first >= 0 else 1.0] * len(request.form.axes), None, "")

    def close(self) -> None: ...


def by_rule(**engines: Witness) -> Callable[[Member], Engine]:
    return lambda member: engines[member.name]


def test_no_key_is_shown_to_anybody(questions: pl.DataFrame, tmp_path: Path) -> None:
    keyed = questions.with_columns(answer=pl.lit("secret"), reference=pl.lit("secret"))
    engines = {"ada": Witness("teal"), "ben": Witness("crimson")}
    table = ask(tmp_path, keyed, opened=by_rule(**engines))
    assert set(table["text"]) == {"crimson"}
    assert set(table["authors"].explode()) == {"ben"}
    for engine in engines.values():
        assert len(engine.shown) == 9 + 9 * 2
        assert not any("secret" in text for text in engine.shown)


def test_roles_choose_who_answers_and_who_judges(questions: pl.DataFrame, tmp_path: Path) -> None:
    engines = {"ada": Witness("teal"), "ben": Witness("crimson", scores=False)}
    alone = Panel((PANEL.members[0], PANEL.members[1].model_copy(update={"answers": False})))
    table = ask(tmp_path / "alone", questions, alone, opened=by_rule(**engines))
    assert set(table["text"]) == {"teal"}
    # One of two judges could be read.
    assert table["num_judges"].to_list() == [1] * 9
    assert len(engines["ben"].shown) == 9
    judge = Panel(
        (
            PANEL.members[0].model_copy(update={"judges": False}),
            PANEL.members[1],
        )
    )
    unread = ask(tmp_path / "unread", questions, judge, opened=by_rule(**engines))
    assert set(unread["reason"]) == {UNSCORED}
    # Each drawn three times: a lot decides, and not for one author always.
    assert set(unread["text"]) == {"teal", "crimson"}


def test_comparisons_choose_too(questions: pl.DataFrame, tmp_path: Path) -> None:
    pairwise = config(judge={"rubric": "classroom_pairwise", "readout": "greedy"})

    class Fair(Witness):
        def _verdict(self, text: str, request: JudgeRequest) -> Verdict:
            return Verdict([float(text.rfind("crimson") < text.rfind("teal"))], None, "")

    engines = {"ada": Fair("teal"), "ben": Fair("crimson")}
    table = ask(tmp_path, questions, given=pairwise, opened=by_rule(**engines))
    assert set(table["text"]) == {"crimson"}
    # Better in both orders, shown first or second.
    assert table["reward"].to_list() == [1.0] * 9
    answers = weighed_answers(stages(tmp_path), questions, PANEL, pairwise)
    assert sorted(answers["reward"].unique()) == [-1.0, 1.0]
    assert answers["verdicts"].list.len().sum() == 0


def test_a_broken_image_is_a_reason_and_no_end(questions: pl.DataFrame, tmp_path: Path) -> None:
    image = pl.Series([{"bytes": b"no image", "path": None}] * 9, dtype=questions["image"].dtype)
    broken = questions.with_columns(
        image=pl.when(pl.int_range(9) == 4).then(image).otherwise(pl.col("image"))
    )
    table = ask(tmp_path, broken, opened=by_rule(ada=Witness("teal"), ben=Witness("teal")))
    assert table["text"].is_null().to_list() == [place == 4 for place in range(9)]
    assert "not a PNG" in table["reason"][4]


def test_no_questions_give_no_answers(questions: pl.DataFrame, tmp_path: Path) -> None:
    table = ask(tmp_path, questions.head(0), opened=by_rule())
    assert (len(table), table.schema) == (0, ANSWERED_SCHEMA)


@pytest.mark.parametrize(
    "moment",
    [
        ("after", "candidates/ben/part-00001.parquet"),
        ("before", "candidates/ada/done.json"),
        ("after", "judgments/ada/part-00000.parquet"),
    ],
)
def test_killed_and_resumed_it_gives_the_same(
    questions: pl.DataFrame,
    tmp_path: Path,
    run_killed: Callable[..., None],
    moment: tuple[str, str],
) -> None:
    whole = ask(tmp_path / "whole", questions)
    run_killed(lambda: ask(tmp_path / "killed", questions), moment)
    assert ask(tmp_path / "killed", questions).equals(whole)
    kept = weighed_answers(stages(tmp_path / "killed"), questions, PANEL, config())
    assert kept.equals(weighed_answers(stages(tmp_path / "whole"), questions, PANEL, config()))

    def nobody(member: Member) -> Engine:
        raise AssertionError("all is there")

    assert ask(tmp_path / "killed", questions, opened=nobody).equals(whole)


def roles(**who: str) -> Panel:
    """Members by name, with "a" if they answer and "j" if they judge."""
    return Panel(
        tuple(
            Member(name=name, model="none", answers="a" in does, judges="j" in does)
            for name, does in who.items()
        )
    )


@pytest.mark.parametrize(
    ("panel", "changes", "said"),
    [
        (roles(ada="j"), {}, "no member answers"),
        (roles(ada="a"), {}, "no member judges"),
        (roles(ada="aj"), {"judge": {"judges": "others"}}, "nobody judges 'ada'"),
        (roles(ada="a", ben="aj"), {"judge": {"judges": "self"}}, "nobody judges 'ada'"),
        (roles(ada="aj"), {"judge": {"rubric": "reference_based"}}, "a reference answer"),
        (roles(ada="aj"), {"judge": {"rubric": "pairwise", "judges": "others"}}, "compares two"),
        (
            roles(ada="aj"),
            {"judge": {"rubric": "pairwise"}, "aggregate": {"method": "min"}},
            "no effect on comparisons",
        ),
        (roles(ada="aj"), {"judge": {"rubric": "pairwise"}, "choose": "weighted"}, "sums rewards"),
        (roles(ada="aj"), {}, "no member at none"),
    ],
)
def test_what_cannot_answer_is_told_first(panel: Panel, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PeeralignError, match=said):
        check_answering(panel, config(**changes))


FILE = """
recipe = "pop"
rounds = 2
seed = 7
[pool]
path = "classroom:pool"
[[members]]
name = "ada"
model = "classroom:ada"
replay = "classroom:replay-ada"
[[members]]
name = "far"
model = "x/y"
answers = false
server = {base_url = "http://one/v1"}
learns = false
[judge]
rubric = "classroom"
[curate]
tie_tolerance = 0.05
[train]
epochs = 9
"""


def test_a_recipe_s_file_is_a_panel(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(FILE)
    panel, read, seed = panel_from(path, ["generate.num_draws=1", "members.1.answers=true"])
    assert [(m.name, m.answers, m.learns, m.replay) for m in panel.members] == [
        ("ada", True, False, None),
        ("far", True, False, None),
    ]
    assert (read.generate.num_draws, read.judge.rubric) == (1, "classroom")
    assert (read.tie_tolerance, seed) == (0.05, 7)
    assert panel_from(path, ["tie_tolerance=0"])[1].tie_tolerance == 0


def test_a_run_s_folder_is_the_panel_after_its_last_round(tmp_path: Path) -> None:
    members = [
        {"name": "ada", "model": "classroom:ada"},
        {"name": "ben", "model": "classroom:ben", "learns": False},
    ]
    settings = {"members": members, "pool": {"path": "p"}, "seed": 3, "rounds": 2, **CONFIG}
    run = Run.open(tmp_path / "run", "pop", settings, 3)
    # The third round was interrupted before anybody had learnt.
    for number, name in ((1, "members/ada"), (2, "members/ada"), (3, "candidates/ada")):
        (run.round_folder(number) / name).mkdir(parents=True)
    panel, read, seed = panel_from(run.folder, ["members.1.judges=false"])
    ada, ben = panel.members
    assert (ada.model, ben.model) == (str(run.checkpoint(2, "ada")), "classroom:ben")
    assert (ada.judges, ben.judges, seed) == (True, False, 3)
    assert read == config()


@pytest.mark.parametrize(
    ("text", "assignments", "said"),
    [
        (FILE, ["genrate.num_draws=1"], "no setting 'genrate'; did you mean 'generate'"),
        (FILE, ["train.epochs=1"], "no setting 'train'"),
        (FILE, ["generate.num_draw=1"], "unknown setting 'generate.num_draw'"),
        (FILE, ["members.0.judges=false", "members.1.judges=false"], "no member judges"),
        (FILE, ["members.1.answers=true", "generate.sampler=sentence_beam"], "behind a server"),
        ("seed = 1", [], "'members' is missing"),
        ("seed =", [], "not valid TOML"),
    ],
)
def test_mistakes_in_a_panel_s_file(
    tmp_path: Path, text: str, assignments: list[str], said: str
) -> None:
    path = tmp_path / "panel.toml"
    path.write_text(text)
    with pytest.raises(PeeralignError, match=said):
        panel_from(path, assignments)


def test_what_is_no_panel(tmp_path: Path) -> None:
    with pytest.raises(PeeralignError, match="no panel at"):
        panel_from(tmp_path / "missing.toml")
    with pytest.raises(PeeralignError, match="no run at"):
        panel_from(tmp_path)
