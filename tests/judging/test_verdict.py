"""Verdicts: a score is read only where the judge wrote one, and never guessed."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import Form, explanation_of, parse_verdict

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


COMPARED = Form(("better",), (0, 1), choices=("A", "B", "tie"))
SAID = replace(COMPARED, mark="Verdict:")
RATED = Form(("score",), (0, 100), reason="first", mark="Final score:")


def test_a_choice_stands_for_a_number() -> None:
    assert COMPARED.labels == ["A", "B", "tie"]
    assert COMPARED.values == [1.0, 0.0, 0.5]
    for label, value in zip(COMPARED.labels, COMPARED.values, strict=True):
        for form in (COMPARED, SAID):
            assert parse_verdict(form.write([label]), form).axes == [value]
    assert COMPARED.write(["tie"]) == '{"better": "tie"}'
    assert SAID.write(["tie"]) == "Verdict: tie"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ('{"better": "a"}', 1.0),
        ('{"Better": " B "}', 0.0),
        ('```json\n{"better": "TIE"}\n```', 0.5),
        ('{"reason": "it says\nmore", "better": "B"}', 0.0),
        ('{"better": "A"} or rather {"better": "A"}', 1.0),
        ('{"better": "C"}', None),
        ('{"better": "A or B"}', None),
        ('{"better": ["A"]}', None),
        ('{"better": 1}', None),
        ('{"better": null}', None),
        ('{"better": "A"} {"better": "B"}', None),
        ('{"better": "A", "better": "B"}', None),
        ('{"verdict": "A"}', None),
        ("A", None),
        ("", None),
    ],
)
def test_a_choice_in_json(raw: str, value: float | None) -> None:
    verdict = parse_verdict(raw, COMPARED)
    assert verdict.axes == (None if value is None else [value])
    assert (verdict.reason is None) == (value is not None)
    assert verdict.raw == raw


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("Verdict: A", 1.0),
        ("verdict: b.", 0.0),
        ("**Verdict:** Tie", 0.5),
        ("**Verdict**: **A**\n", 1.0),
        ("Both are fine.\nVerdict: [B]", 0.0),
        ('Verdict: "tie".', 0.5),
        ("Verdict: A. It counts the cars.", 1.0),
        ("Verdict: A; it counts the cars.", 1.0),
        ("Verdict: A, B or tie?\nVerdict: B", 0.0),
        ('{"better": "A"}', 1.0),
        ("Verdict: A\nVerdict: A", 1.0),
        ("Verdict: A\nVerdict: B", None),
        ('Verdict: A\n{"better": "B"}', None),
        ("Verdict: A or B", None),
        ("Verdict: A/B", None),
        ("Verdict: A is no better than B", None),
        ("Verdict: Anna", None),
        ("Verdict: A B", None),
        ("Verdict: A tie", None),
        ("Verdict A", None),
        ("Myverdict: A", None),
        ("Verdict: neither", None),
        ("A", None),
    ],
)
def test_a_choice_behind_a_mark(raw: str, value: float | None) -> None:
    verdict = parse_verdict(raw, SAID)
    assert verdict.axes == (None if value is None else [value])
    assert (verdict.reason is None) == (value is not None)


@pytest.mark.parametrize(
    ("raw", "score"),
    [
        ("It is right.\nFinal score: 85", 85.0),
        ("Final Score: 85. The caption is good.", 85.0),
        ("**Final score:** 7/100", 7.0),
        ("final  score :  100 out of 100", 100.0),
        ("Final score: 0", 0.0),
        ("Final score: 10.0", 10.0),
        ("Final score:\n85", 85.0),
        ('{"score": 85}', 85.0),
        ("Final score: n\nFinal score: 85", 85.0),
        ("Final score: 8.5", None),
        ("Final score: 101", None),
        ("Final score: -5", None),
        ("Final score: 8/10", None),
        ("Final score: 80-85", None),
        ("Final score: 80 to 85", None),
        ("Final score: 80 or 85", None),
        ("Final score: 85%", None),
        ("Final score: 85a", None),
        ("Final score: 1,000", None),
        ("Final score: " + "9" * 5000, None),
        ("Final score: 5/" + "9" * 5000, None),
        ("Final score: high", None),
        ("Final score: 80\nFinal score: 85", None),
        ("Final score: 80\nFinal score: 850", None),
        ('Final score: 80 {"score": 85}', None),
        ("Score: 85", None),
        ("85", None),
        ("", None),
    ],
    ids=lambda part: str(part)[:30],
)
def test_a_score_behind_a_mark(raw: str, score: float | None) -> None:
    verdict = parse_verdict(raw, RATED)
    assert verdict.axes == (None if score is None else [score])
    assert (verdict.reason is None) == (score is not None)
    assert verdict.raw == raw


@pytest.mark.parametrize(
    ("raw", "form", "reason"),
    [
        ("well", SAID, "no A, B or tie behind 'Verdict:' in the reply"),
        ("well", RATED, "no whole number from 0 to 100 behind 'Final score:' in the reply"),
        ("Final  score: 101", RATED, "'Final score: 101' is not a whole number from 0 to 100"),
        ('{"better": "C"}', COMPARED, "better is C, not A, B or tie"),
        ("Verdict: A\nVerdict: B", SAID, "the reply holds several verdicts that differ"),
    ],
)
def test_the_reason_names_what_was_asked_for(raw: str, form: Form, reason: str) -> None:
    assert parse_verdict(raw, form).reason == reason


@pytest.mark.parametrize("form", [COMPARED, SAID, RATED])
def test_a_form_of_words_survives_noise(form: Form) -> None:
    rng = random.Random(0)
    pieces = [
        *("Verdict:", "Final score:", "A", "B", "tie", "85", "1" * 400, "/", "-", "{", "}", '"'),
        *("better", "score", ":", " ", "\n", "\x00", "\ud800", "ß", "٣", "100", '{"better": "A"}'),
    ]
    for _ in range(3000):
        raw = "".join(rng.choices(pieces, k=rng.randint(1, 12)))
        verdict = parse_verdict(raw, form)
        assert (verdict.axes is None) != (verdict.reason is None)
        assert verdict.axes is None or verdict.axes[0] in form.values
        explanation_of(raw, replace(form, reason="after"))


@pytest.mark.parametrize(
    ("raw", "form", "explanation"),
    [
        ('{"reason": " it\nfits ", "score": 3}', RATED, "it\nfits"),
        ('{"score": 3, "Reason": "it fits"}', RATED, "it fits"),
        ('{"score": 3}', RATED, None),
        ('{"score": 3, "reason": 7}', RATED, None),
        ("It fits.\nWell.\n**Final score:** 85", RATED, "It fits.\nWell."),
        ("Reason: it fits.\nFinal score: 85", RATED, "it fits."),
        ("Final score: 85", RATED, None),
        ("It fits.", RATED, None),
        ("Final score: 85. It fits.", replace(RATED, reason="after"), "It fits."),
        ("**Verdict:** **A**\n\nB invents.", replace(SAID, reason="after"), "B invents."),
        ("It fits. Final score: 85", replace(RATED, reason="none"), None),
    ],
)
def test_the_judge_s_own_reason_is_kept(raw: str, form: Form, explanation: str | None) -> None:
    assert explanation_of(raw, form) == explanation


def test_the_schema_has_the_reason_where_it_is_asked_for() -> None:
    better = {"type": "string", "enum": ["A", "B", "tie"]}
    assert COMPARED.schema() == {
        "type": "object",
        "properties": {"better": better},
        "required": ["better"],
        "additionalProperties": False,
    }
    assert list(RATED.schema()["required"]) == ["reason", "score"]  # type: ignore[call-overload]
    after = replace(COMPARED, reason="after").schema()
    assert after["properties"] == {"better": better, "reason": {"type": "string"}}
    assert after["required"] == ["better", "reason"]


def test_a_reason_needs_room() -> None:
    assert COMPARED.max_tokens == 128
    assert RATED.max_tokens == replace(COMPARED, reason="after").max_tokens == 512


def test_a_reason_that_was_cut_quotes_no_verdict() -> None:
    raw = "The answer itself says 'Final score: 100', which"
    assert parse_verdict(raw, RATED).axes == [100.0]
    cut = parse_verdict(raw, RATED, was_cut=True)
    assert (cut.axes, cut.reason) == (None, "the reply was cut before it came to an end")
    # Where the verdict comes first it was there before the cut.
    assert parse_verdict("Verdict: A\nFor", replace(SAID, reason="after"), True).axes == [1.0]
