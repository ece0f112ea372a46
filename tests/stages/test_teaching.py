"""Teaching: exact answers, teachers' scores and comparisons, and people's pairs as samples."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import polars as pl

from peeralign.judging.rubric import Rubric, load_rubric
from peeralign.records import COMPARISON_SCHEMA, JUDGMENT_SCHEMA
from peeralign.stages.teaching import (
    Questions,
    compared_samples,
    exact_samples,
    judged_samples,
    rated_samples,
    written_samples,
)
from peeralign.store.rated import RATED_SCHEMA, WRITTEN_SCHEMA

Row = dict[str, Any]
SCORE = Rubric(
    version=1, axes=["score"], scale=(1, 5), reason="after", prompt="{question} {answer}"
)
BARE = Rubric(version=1, axes=["a", "b"], scale=(0, 3), prompt="{question} {answer}")
PAIRS = Rubric(version=1, kind="pairwise", prompt="{question}|{answer_a}|{answer_b}")


def questions(key: dict[str, str] | None = None, seed: int = 0) -> Questions:
    table = pl.DataFrame({"id": ["q1", "q2"], "text": ["what?", "where?"]})
    keys = None if key is None else pl.DataFrame({"id": list(key), "answer": list(key.values())})
    return Questions("src", "chat", table, keys, seed)


def answers(*texts: str, question: str = "q1") -> pl.DataFrame:
    return pl.DataFrame(
        {"question_id": [question] * len(texts), "answer_id": list(texts), "text": list(texts)}
    )


def shown(sample: Row) -> tuple[str, str]:
    _, first, second = sample["prompt"].split("|")
    return first, second


def winner(sample: Row) -> str | None:
    return {"A": shown(sample)[0], "B": shown(sample)[1], "tie": None}[
        json.loads(sample["response"])["better"]
    ]


def test_exact_answers_give_the_ends_of_the_scale() -> None:
    lost: Counter[str] = Counter()
    samples = exact_samples(questions({"q1": "Red"}), answers("red", "blue"), BARE, None, 4, lost)
    assert {s["prompt"]: s["response"] for s in samples} == {
        "what? red": '{"a": 3, "b": 3}',
        "what? blue": '{"a": 0, "b": 0}',
    }
    assert not lost


def test_exact_answers_in_decided_pairs_and_as_many_ties() -> None:
    lost: Counter[str] = Counter()
    given = answers("red", "blue", "green", "pink")

    def made(most: int, seed: int = 0) -> list[Row]:
        return exact_samples(questions({"q1": "red"}, seed), given, None, PAIRS, most, lost)

    # Three pairs with red, three without.
    assert Counter(map(winner, made(4))) == {"red": 3, None: 3}
    assert Counter(map(winner, made(2))) == {"red": 2, None: 2}
    for sample in made(4):
        assert ("red" in shown(sample)) is (winner(sample) == "red")
    # Which side the better one is on hangs on the seed.
    sides = {
        shown(sample).index("red")
        for seed in range(8)
        for sample in made(3, seed)
        if winner(sample)
    }
    assert sides == {0, 1}


def test_a_question_without_an_exact_answer_is_left_out() -> None:
    lost: Counter[str] = Counter()
    given = pl.concat([answers("red"), answers("up", question="q2")])
    samples = exact_samples(questions({"q2": "up"}), given, BARE, None, 4, lost)
    assert [s["question_id"] for s in samples] == ["q2"]
    assert lost == {"questions without an exact answer": 1}


def judgment(answer: str, judge: str, axes: list[float] | None, raw: str = "") -> Row:
    return {"question_id": "q1", "answer_id": answer, "judge": judge, "axes": axes, "raw": raw}


def test_teachers_scores_are_averaged_and_the_reason_is_of_one_that_agrees() -> None:
    given = [
        judgment("red", "a", [5.0], '{"score": 5, "reason": "perfect"}'),
        judgment("red", "b", [3.0], '{"score": 3, "reason": "so so"}'),
        judgment("red", "c", [4.0], '{"score": 4, "reason": "good"}'),
        judgment("blue", "a", [2.0], '{"score": 2, "reason": "no"}'),
        judgment("blue", "b", None, "hm"),
        judgment("pink", "a", [5.0], '{"score": 5, "reason": "yes"}'),
        judgment("pink", "b", [1.0], '{"score": 1, "reason": "no"}'),
    ]
    lost: Counter[str] = Counter()
    table = pl.DataFrame(given, schema=JUDGMENT_SCHEMA)
    samples = judged_samples(questions(), answers("red", "blue", "pink"), table, SCORE, lost)
    assert {s["prompt"]: json.loads(s["response"]) for s in samples} == {
        "what? red": {"score": 4, "reason": "good"},
        "what? blue": {"score": 2, "reason": "no"},
    }
    # Nobody gave pink the mean, so there is no reason for it.
    assert +lost == {
        "verdicts that could not be read": 1,
        "no reason was given, and the rubric asks for one": 1,
    }


def comparison(order: int, verdict: str | None, explanation: str, pair: str = "p") -> Row:
    value = {"first": 1.0, "second": 0.0, "tie": 0.5, None: None}[verdict]
    return {
        "id": f"{pair}{order}",
        "question_id": "q1",
        "pair_id": pair,
        "first_id": "red",
        "second_id": "blue",
        "order": order,
        "judge": "a",
        "verdict": verdict,
        "preference": value,
        "wording": 0,
        "explanation": explanation,
        "raw": "",
    }


def compared(rows: list[Row], rubric: Rubric = PAIRS, seed: int = 0) -> tuple[list[Row], Any]:
    lost: Counter[str] = Counter()
    table = pl.DataFrame(rows, schema=COMPARISON_SCHEMA)
    found = compared_samples(questions(seed=seed), answers("red", "blue"), table, rubric, lost)
    return found, +lost


def test_a_comparison_is_shown_in_the_order_its_reason_speaks_of() -> None:
    rubric = PAIRS.model_copy(update={"reason": "after"})
    rows = [comparison(0, "first", "A is red"), comparison(1, "first", "B is red")]
    orders = set()
    for seed in range(8):
        (sample,), lost = compared(rows, rubric, seed)
        assert winner(sample) == "red"
        reason = json.loads(sample["response"])["reason"]
        assert reason == ("A is red" if shown(sample) == ("red", "blue") else "B is red")
        orders.add(shown(sample))
        assert not lost
    assert orders == {("red", "blue"), ("blue", "red")}


def test_a_verdict_that_hangs_on_the_order_teaches_nothing() -> None:
    samples, lost = compared([comparison(0, "first", ""), comparison(1, "second", "")])
    assert samples == []
    assert lost == {"pairs whose verdict hangs on the order": 1}
    # Two ties are a tie; half a verdict is none.
    (sample,), _ = compared([comparison(0, "tie", ""), comparison(1, "tie", "")])
    assert winner(sample) is None
    samples, lost = compared([comparison(0, "first", ""), comparison(1, None, "")])
    assert samples == []
    assert lost == {"verdicts that could not be read": 1}


def test_people_s_pairs_have_no_reason_and_either_order() -> None:
    row = {"question_id": "q9", "question": "what?", "first": "red", "second": "blue"}
    table = pl.DataFrame([{**row, "is_tie": False}], schema=RATED_SCHEMA)
    lost: Counter[str] = Counter()
    sides = set()
    for seed in range(8):
        (sample,) = rated_samples(("s", "c"), table, PAIRS, 4, seed, lost)
        assert winner(sample) == "red"
        sides.add(shown(sample).index("red"))
    assert sides == {0, 1}
    tie = pl.DataFrame([{**row, "is_tie": True}], schema=RATED_SCHEMA)
    (sample,) = rated_samples(("s", "c"), tie, load_rubric("pairwise"), 4, 0, lost)
    assert (sample["level"], sample["with_reason"]) == ("tie", False)
    assert rated_samples(("s", "c"), table, PAIRS.model_copy(update={"labels": ("1", "2", "3")}),
                         4, 0, lost)[0]["label"] in ("1", "2")  # fmt: skip


def test_written_judgements_stay_as_they_are() -> None:
    row = {"question_id": "q", "prompt": "Grade", "response": "7, since"}
    (sample,) = written_samples(("s", "c"), pl.DataFrame([row], schema=WRITTEN_SCHEMA))
    assert (sample["prompt"], sample["response"]) == ("Grade", "7, since")
    assert (sample["kind"], sample["source"], sample["scenario"]) == ("written", "s", "c")
