"""Judge: who judges which answer, how often, and what is kept of a verdict."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal

from peeralign.engines.base import AnswerRequest, Draw, Engine, JudgeRequest, Readout, Sampling
from peeralign.errors import PeeralignError
from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import Form, Verdict, parse_verdict
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.records import CANDIDATE_SCHEMA, JUDGMENT_SCHEMA, QUESTION_SCHEMA, make_id
from peeralign.stages.generate import answer_id, distinct_answers
from peeralign.stages.judge import JudgeConfig, judge
from peeralign.store.run import Stage

NAMES = ("ada", "ben", "cleo")
PANEL = Panel(
    (
        *(Member(name=name, model="none") for name in NAMES),
        Member(name="pupil", model="none", judges=False),
    )
)


class LengthJudge:
    """Gives every axis the answer's number of letters; knows no models."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, ...]]] = []
        self.asked: list[str] = []
        self.readouts: set[str] = set()
        self.closed = 0

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        raise AssertionError("nobody is to answer here")

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        self.calls.append([request.texts for request in requests])
        self.asked += [text for request in requests for text in request.texts]
        self.readouts.add(readout)
        return [[self.verdict(text, r.form) for text in r.texts] for r in requests]

    def verdict(self, text: str, form: Form) -> Verdict:
        answer = text.removesuffix(" GRADE:").split(" ASSISTANT: ")[1]
        if answer == "broken":
            raise IndexError("token out of range")
        size = len(answer)
        if size > 5:
            return Verdict(None, "too long to read", answer)
        return Verdict([float(size)] * len(form.axes), None, form.write([size] * 5), 0.75)

    def close(self) -> None:
        self.closed += 1


class Opener:
    """An engine factory that keeps one engine a member."""

    def __init__(self) -> None:
        self.engines: dict[str, LengthJudge] = {}

    def __call__(self, member: Member) -> Engine:
        return self.engines.setdefault(member.name, LengthJudge())

    def asked(self, name: str) -> list[str]:
        return sorted(self.engines[name].asked)


def questions(number: int) -> pl.DataFrame:
    rows = []
    for place in range(number):
        data = io.BytesIO()
        Image.new("RGB", (4, 4), (place, 0, 0)).save(data, "PNG")
        rows.append(
            (f"q{place}", f"what {place}?", "General", {"bytes": data.getvalue(), "path": None})
        )
    return pl.DataFrame(rows, schema=QUESTION_SCHEMA, orient="row")


def answers(*drawn: tuple[str, str, str]) -> pl.DataFrame:
    """Distinct answers of candidates given as (question, author, text)."""
    rows = [
        (f"c{place:03d}", q, answer_id(q, text), author, place, "clean", text, 1, None)
        for place, (q, author, text) in enumerate(drawn)
    ]
    return distinct_answers(pl.DataFrame(rows, schema=CANDIDATE_SCHEMA, orient="row"))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., pl.DataFrame]:
    def call(
        asked: pl.DataFrame,
        given: pl.DataFrame,
        opener: Callable[[Member], Engine],
        folder: str = "run",
        seed: int = 0,
        **settings: Any,
    ) -> pl.DataFrame:
        stages = {member.name: Stage(tmp_path / folder / member.name) for member in PANEL.members}
        config = JudgeConfig(**{"rubric": "classroom", "readout": "expected", **settings})
        judge(stages.__getitem__, asked, given, PANEL, config, opener, seed, Reporter())
        return pl.concat([stage.read(JUDGMENT_SCHEMA) for stage in stages.values()])

    return call


DRAWN = answers(
    ("q0", "ada", "red"),
    ("q0", "ada", "Red "),
    ("q0", "ben", "RED"),
    ("q0", "cleo", "blue"),
    ("q1", "ada", "no"),
)


def test_equal_answers_are_judged_once_by_every_judge(run: Callable[..., pl.DataFrame]) -> None:
    opener = Opener()
    rows = run(questions(2), DRAWN, opener)
    assert rows.schema == JUDGMENT_SCHEMA
    assert set(opener.engines) == set(NAMES)
    expected = [
        "what 0? ASSISTANT: blue GRADE:",
        "what 0? ASSISTANT: red GRADE:",
        "what 1? ASSISTANT: no GRADE:",
    ]
    for name in NAMES:
        assert opener.asked(name) == expected
        assert opener.engines[name].closed == 1
        assert opener.engines[name].readouts == {"expected"}
    assert len(rows) == 9
    red = rows.filter(
        (pl.col("judge") == "ben") & (pl.col("answer_id") == answer_id("q0", "red"))
    ).row(0, named=True)
    assert red == {
        "id": make_id("judgment", answer_id("q0", "red"), "ben"),
        "question_id": "q0",
        "answer_id": answer_id("q0", "red"),
        "judge": "ben",
        "score": pytest.approx(15 / 25),
        "axes": [3.0] * 5,
        "label_mass": 0.75,
        "reason": None,
        "raw": load_rubric("classroom").form().write([3] * 5),
    }


@pytest.mark.parametrize(
    ("judges", "expected"),
    [
        # "red" is ada's and ben's, "blue" cleo's, "no" ada's.
        ("all", {name: {"red", "blue", "no"} for name in NAMES}),
        (
            "others",
            {"ada": {"red", "blue"}, "ben": {"red", "blue", "no"}, "cleo": {"red", "no"}},
        ),
        ("self", {"ada": {"red", "no"}, "ben": {"red"}, "cleo": {"blue"}}),
    ],
)
def test_who_judges(
    run: Callable[..., pl.DataFrame], judges: str, expected: dict[str, set[str]]
) -> None:
    rows = run(questions(2), DRAWN, Opener(), judges=judges)
    names = {
        answer: text.strip().lower() for answer, text in DRAWN["answer_id", "text"].iter_rows()
    }
    found: dict[str, set[str]] = {}
    for name, answer in rows.select("judge", "answer_id").iter_rows():
        found.setdefault(name, set()).add(names[answer])
    assert found == expected
    assert rows["id"].n_unique() == len(rows)


def test_the_judge_reads_no_author(run: Callable[..., pl.DataFrame]) -> None:
    opener = Opener()
    run(questions(2), DRAWN, opener, rubric="classroom")
    for engine in opener.engines.values():
        assert not any(name in text for text in engine.asked for name in NAMES)


def test_an_unreadable_verdict_keeps_its_reason_and_its_reply(
    run: Callable[..., pl.DataFrame],
) -> None:
    rows = run(questions(1), answers(("q0", "ada", "elephant")), Opener())
    assert rows["score"].to_list() == [None] * 3
    assert rows["axes"].to_list() == [None] * 3
    assert set(rows["reason"]) == {"too long to read"}
    assert set(rows["raw"]) == {"elephant"}


def test_a_broken_answer_costs_its_own_judgments_only(run: Callable[..., pl.DataFrame]) -> None:
    given = answers(("q0", "ada", "red"), ("q0", "ada", "broken"), ("q1", "ben", "no"))
    rows = run(questions(2), given, Opener())
    broken = rows.filter(pl.col("answer_id") == answer_id("q0", "broken"))
    assert broken["reason"].to_list() == ["IndexError: token out of range"] * 3
    assert broken["score"].null_count() == 3
    assert rows.filter(pl.col("score").is_not_null()).height == 6


def test_a_call_that_fails_is_made_by_question_and_then_by_answer(
    run: Callable[..., pl.DataFrame],
) -> None:
    given = answers(
        *(("q0", "ada", text) for text in ("red", "broken", "no")),
        ("q1", "ben", "no"),
        ("q2", "ben", "one"),
    )
    opener = Opener()
    rows = run(questions(3), given, opener)
    sizes = [[len(texts) for texts in call] for call in opener.engines["ben"].calls]
    # All three questions; the first alone; its three answers, halved; then the other questions.
    assert sizes[0] == [3, 1, 1]
    assert sizes[1] == [3]
    assert sizes[-1] == [1, 1]
    assert all(call == [1] * len(call) for call in sizes[2:-1])
    assert ["what 0? ASSISTANT: broken GRADE:"] in [
        [text for texts in call for text in texts] for call in opener.engines["ben"].calls
    ]
    lost = rows.filter(pl.col("score").is_null())
    assert lost["answer_id"].to_list() == [answer_id("q0", "broken")] * 3
    assert len(rows) == 15


def test_the_size_of_the_blocks_changes_no_row(run: Callable[..., pl.DataFrame]) -> None:
    given = answers(*((f"q{n}", "ada", text) for n in range(5) for text in ("red", "no", "one")))
    expected = run(questions(5), given, Opener(), folder="whole")
    assert len(expected) == 45
    for size in (1, 2, 5):
        rows = run(questions(5), given, Opener(), folder=f"blocks-{size}", block_size=size)
        assert_frame_equal(rows, expected, check_row_order=False)


def test_only_missing_shards_are_judged(run: Callable[..., pl.DataFrame], tmp_path: Path) -> None:
    given = answers(*((f"q{n}", "ada", "red") for n in range(5)))
    expected = run(questions(5), given, Opener(), block_size=2)
    (tmp_path / "run" / "cleo" / "part-00002.parquet").unlink()
    opener = Opener()
    assert_frame_equal(run(questions(5), given, opener, block_size=2), expected)
    assert list(opener.engines) == ["cleo"]
    assert opener.asked("cleo") == ["what 4? ASSISTANT: red GRADE:"]
    opener = Opener()
    run(questions(5), given, opener, block_size=2)
    assert opener.engines == {}


def test_questions_without_answers_leave_no_judgment(run: Callable[..., pl.DataFrame]) -> None:
    rows = run(questions(3), answers(("q1", "ada", "red")), Opener(), block_size=1)
    assert rows["question_id"].to_list() == ["q1"] * 3


class NoModel:
    """The random control must not ask a model anything."""

    def answer(self, requests: Sequence[AnswerRequest], sampling: Sampling) -> list[list[Draw]]:
        raise AssertionError("asked to answer")

    def judge(self, requests: Sequence[JudgeRequest], readout: Readout) -> list[list[Verdict]]:
        raise AssertionError("asked to judge")

    def close(self) -> None: ...


def test_random_verdicts_belong_to_seed_answer_and_judge(
    run: Callable[..., pl.DataFrame],
) -> None:
    given = answers(*((f"q{n}", "ada", text) for n in range(20) for text in ("red", "no", "one")))
    asked = questions(20)

    def drawn(folder: str, **settings: Any) -> pl.DataFrame:
        table = run(
            asked, given, lambda member: NoModel(), folder=folder, readout="random", **settings
        )
        return table.sort("id")

    first = drawn("first", seed=1)
    assert_frame_equal(drawn("again", seed=1), first)
    assert_frame_equal(drawn("blocks", seed=1, block_size=3), first)
    other = drawn("other", seed=2)
    assert other["id"].to_list() == first["id"].to_list()
    assert other["axes"].to_list() != first["axes"].to_list()
    assert first["score"].null_count() == 0
    axes = [axis for row in first["axes"] for axis in row]
    assert set(axes) == {1.0, 2.0, 3.0, 4.0, 5.0}
    # 900 uniform draws: 180 of each, standard deviation 12.
    assert all(120 < axes.count(value) < 240 for value in set(axes))
    form = load_rubric("classroom").form()
    for row in first.iter_rows(named=True):
        assert row["score"] == pytest.approx(sum(row["axes"]) / 25)
        assert parse_verdict(row["raw"], form).axes == row["axes"]
    # Two judges of one answer draw apart.
    by_judge = {name: first.filter(pl.col("judge") == name).sort("answer_id") for name in NAMES}
    assert by_judge["ada"]["axes"].to_list() != by_judge["ben"]["axes"].to_list()


def test_a_reference_answer_reaches_the_judge(
    run: Callable[..., pl.DataFrame], tmp_path: Path
) -> None:
    rubric = tmp_path / "by-reference.toml"
    rubric.write_text(
        'version = 1\naxes = ["a", "b", "c", "d", "e"]\n'
        'prompt = "{question} {reference} ASSISTANT: {answer} GRADE:"\n'
    )
    asked, given = questions(2), answers(("q0", "ada", "red"), ("q1", "ada", "no"))
    opener = Opener()
    referred = asked.with_columns(reference=pl.lit("a rose"))
    rows = run(referred, given, opener, rubric=str(rubric), readout="text")
    assert opener.asked("ada") == [
        "what 0? a rose ASSISTANT: red GRADE:",
        "what 1? a rose ASSISTANT: no GRADE:",
    ]
    assert set(rows["score"]) == {3 / 5, 2 / 5}
    with pytest.raises(PeeralignError, match="a reference answer, and there is none here"):
        run(asked, given, Opener(), "other", rubric=str(rubric))


def test_a_pairwise_rubric_is_not_for_single_answers(run: Callable[..., pl.DataFrame]) -> None:
    with pytest.raises(PeeralignError, match="is pairwise, and needed here is one that is abs"):
        run(questions(1), answers(("q0", "ada", "red")), Opener(), rubric="pairwise")


def test_a_score_of_several_tokens_is_read_from_text(run: Callable[..., pl.DataFrame]) -> None:
    class Captioner(LengthJudge):
        def verdict(self, text: str, form: Form) -> Verdict:
            return parse_verdict("It is complete.\n**Final score:** 85", form)

    judged = answers(("q0", "ada", "red"))
    rows = run(
        questions(1), judged, lambda _: Captioner(), rubric="detailed_captions", readout="text"
    )
    assert rows["score"].to_list() == [0.85] * 3
    assert rows["axes"].to_list() == [[85.0]] * 3
    assert set(rows["raw"]) == {"It is complete.\n**Final score:** 85"}
