"""Verdicts: a score is read only where the judge wrote one, and never guessed."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import Form, parse_verdict

AXES = ["Helpfulness", "Correctness", "Coherence", "Complexity", "Verbosity"]
SCORES = [5.0, 4.0, 3.0, 2.0, 1.0]
GOOD = '{"Helpfulness": 5, "Correctness": 4, "Coherence": 3, "Complexity": 2, "Verbosity": 1}'


@pytest.fixture(scope="module")
def form() -> Form:
    return load_rubric("five_axis").form()


def with_correctness(literal: str) -> str:
    """The good verdict with another JSON literal as its second score."""
    return GOOD.replace('"Correctness": 4', f'"Correctness": {literal}')


@pytest.mark.parametrize(
    "raw",
    [
        GOOD,
        f"  \n{GOOD}\n",
        f"Here is my grade: {GOOD} I hope it helps.",
        f"```json\n{GOOD}\n```",
        f"```\n{json.dumps(json.loads(GOOD), indent=2)}\n```",
        f"The set {{red}} is {{not}} right. {GOOD}",
        "I looked at {} and { } twice. " + GOOD,
        GOOD.upper(),
        GOOD.lower(),
        with_correctness("4.0"),
        with_correctness("4e0"),
        GOOD.replace("5", "5.0").replace("1", "1.000"),
        json.dumps(dict(sorted(json.loads(GOOD).items(), reverse=True))),
        GOOD[:-1] + ', "Reason": "clear", "Total": 15}',
        f"{GOOD}\n{GOOD}",
        f"{GOOD} or, in other words, {GOOD.lower()}",
        f"[{GOOD}]",
    ],
)
def test_a_verdict_is_found_and_read(form: Form, raw: str) -> None:
    verdict = parse_verdict(raw, form)
    assert verdict.axes == SCORES
    assert verdict.reason is None
    assert verdict.raw == raw
    assert verdict.label_mass is None


UNREADABLE = [
    "",
    "5 4 3 2 1",
    "I cannot grade this.",
    "[5, 4, 3, 2, 1]",
    "{}",
    "null",
    GOOD.replace('"', "'"),
    GOOD[:-1],
    GOOD[1:],
    GOOD.replace(', "Verbosity": 1', ""),
    GOOD.replace("Verbosity", "Verbosty"),
    f'{{"scores": {GOOD}}}',
    json.dumps([[[json.loads(GOOD)]]]).replace("5", "9"),
    '{"Helpfulness": {"Helpfulness": 5}}',
    *(
        with_correctness(literal)
        for literal in (
            *("4.5", "0", "6", "-1", "-4", "4.0000001", '"4"', '"5"', '""', "true", "false"),
            *("null", "[4]", '{"value": 4}', "[]", "{}", "NaN", "Infinity", "-Infinity"),
            *("1e999", "-1e999", "1e308", "1" * 300, "1" * 5000, "4" + "0" * 5000, "04", "+4"),
        )
    ),
]


@pytest.mark.parametrize("raw", UNREADABLE, ids=lambda raw: raw[:70] + "~" * (len(raw) > 70))
def test_anything_else_is_unscored_with_a_reason(form: Form, raw: str) -> None:
    verdict = parse_verdict(raw, form)
    assert verdict.axes is None
    assert verdict.reason
    assert verdict.raw == raw


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("well", "no JSON object in the reply"),
        (GOOD.replace(', "Coherence": 3', ""), "the reply has no score for coherence"),
        (with_correctness("4.5"), "correctness is 4.5, not a whole number from 1 to 5"),
        (with_correctness("true"), "correctness is True, not a whole number from 1 to 5"),
        (GOOD + GOOD.replace("5", "1"), "the reply holds several verdicts that differ"),
    ],
)
def test_the_reason_says_what_is_wrong(form: Form, raw: str, reason: str) -> None:
    assert parse_verdict(raw, form).reason == reason


@pytest.mark.parametrize("between", ["", " ", "\nNo, rather: ", "```\n```"])
def test_two_verdicts_that_differ_are_none(form: Form, between: str) -> None:
    other = with_correctness("3")
    for raw in (GOOD + between + other, other + between + GOOD, GOOD + GOOD + between + other):
        assert parse_verdict(raw, form).axes is None


@pytest.mark.parametrize("second", ["Correctness", "correctness", "CORRECTNESS"])
def test_one_axis_scored_twice_and_differently_is_none(form: Form, second: str) -> None:
    raw = GOOD[:-1] + f', "{second}": 1}}'
    assert parse_verdict(raw, form).axes is None


def test_another_scale_is_kept_to() -> None:
    form = Form(("a",), (0, 10))
    assert parse_verdict('{"a": 10}', form).axes == [10.0]
    assert parse_verdict('{"a": 0}', form).axes == [0.0]
    assert parse_verdict('{"a": 11}', form).axes is None
    assert parse_verdict('{"a": -1}', form).axes is None


RANKS = Form(("A", "B", "C"), (1, 3), distinct=True)


@pytest.mark.parametrize(
    ("raw", "places"),
    [
        ('{"A": 2, "B": 3, "C": 1}', [2.0, 3.0, 1.0]),
        ('{"c": 1, "b": 3, "a": 2}', [2.0, 3.0, 1.0]),
        # An attempt that is no ranking, as while thinking, does not count.
        ('{"A": 1, "B": 1, "C": 2} no: {"A": 1, "B": 2, "C": 3}', [1.0, 2.0, 3.0]),
    ],
)
def test_a_ranking_is_read(raw: str, places: list[float]) -> None:
    assert parse_verdict(raw, RANKS).axes == places


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ('{"A": 2, "B": 2, "C": 1}', "two answers got the same place"),
        ('{"A": 1, "B": 1, "C": 1.0}', "two answers got the same place"),
        ('{"A": 1, "B": 2}', "the reply has no score for c"),
        ('{"A": 1, "B": 2, "C": 4}', "c is 4, not a whole number from 1 to 3"),
        ('{"A": 0, "B": 1, "C": 2}', "a is 0, not a whole number from 1 to 3"),
        ("A > B > C", "no JSON object in the reply"),
        (
            '{"A": 1, "B": 2, "C": 3} {"A": 3, "B": 2, "C": 1}',
            "the reply holds several verdicts that differ",
        ),
    ],
)
def test_what_is_no_ranking_is_unscored(raw: str, reason: str) -> None:
    verdict = parse_verdict(raw, RANKS)
    assert (verdict.axes, verdict.reason) == (None, reason)


def test_scores_may_be_given_twice_where_places_may_not() -> None:
    raw = '{"A": 2, "B": 2, "C": 2}'
    assert parse_verdict(raw, Form(("A", "B", "C"), (1, 3))).axes == [2.0, 2.0, 2.0]
    assert parse_verdict(raw, RANKS).axes is None


def test_a_form_writes_what_is_read_back() -> None:
    form = Form(("A", "B"), (0, 10))
    assert form.labels == list(range(11))
    assert form.write([10, 0]) == '{"A": 10, "B": 0}'
    assert parse_verdict(form.write([10, 0]), form).axes == [10.0, 0.0]
    with pytest.raises(ValueError, match="longer"):
        form.write([1, 2, 3])


def test_equal_forms_are_one_key() -> None:
    """Engines keep what they computed for a form."""
    same = {Form(("A",), (1, 5)): 1, Form(("A",), (1, 5), distinct=False): 2}
    assert list(same.values()) == [2]
    assert len({Form(("A",), (1, 5)), RANKS, Form(("A",), (1, 5), distinct=True)}) == 3


def test_the_schema_allows_the_axes_and_the_scale_and_nothing_else() -> None:
    assert Form(("Tone", "Über"), (1, 3)).schema() == {
        "type": "object",
        "properties": {
            "Tone": {"type": "integer", "enum": [1, 2, 3]},
            "Über": {"type": "integer", "enum": [1, 2, 3]},
        },
        "required": ["Tone", "Über"],
        "additionalProperties": False,
    }
    # Servers are sent it as JSON.
    assert json.loads(json.dumps(RANKS.schema())) == RANKS.schema()


@pytest.mark.parametrize("opening", ["[", "{", '{"a":', '{"a":[', '[{"Helpfulness":'])
def test_deep_nesting_is_only_unreadable(form: Form, opening: str) -> None:
    raw = opening * 3000
    assert parse_verdict(raw, form).axes is None
    assert parse_verdict(raw + "]" * 3000, form).axes is None


def replies(rng: random.Random) -> tuple[str, list[float]]:
    """A random verdict in a random dress."""
    scores = [rng.randint(1, 5) for _ in AXES]
    value: dict[str, Any] = dict(zip(AXES, scores, strict=True))
    text = json.dumps(value, indent=rng.choice([None, 2]))
    dress = rng.choice(["{}", "My grade: {} Good.", "```json\n{}\n```", "{{red}} {}", "{}\n{}"])
    return dress.replace("{{", "<").replace("}}", ">").replace("{}", text), list(map(float, scores))


def test_a_reply_cut_off_is_never_misread(form: Form) -> None:
    rng = random.Random(0)
    read = 0
    for _ in range(1000):
        raw, scores = replies(rng)
        cut = raw[: rng.randint(0, len(raw))]
        verdict = parse_verdict(cut, form)
        assert verdict.axes in (None, scores), cut
        assert (verdict.axes is None) == bool(verdict.reason)
        read += verdict.axes is not None
    assert 50 < read < 500


def test_a_reply_with_a_piece_missing_is_never_misread(form: Form) -> None:
    rng = random.Random(1)
    for _ in range(1000):
        raw, scores = replies(rng)
        start, stop = sorted(rng.choices(range(len(raw) + 1), k=2))
        for damaged in (raw[start:stop], raw[:start] + raw[stop:]):
            assert parse_verdict(damaged, form).axes in (None, scores), damaged
