"""POPE: is the object there?"""

from __future__ import annotations

import pytest
from evals.golden import figures, mistake, parsed, scores


@pytest.mark.parametrize(
    ("prediction", "answer", "worth", "read"),
    [
        ("yes", "yes", (1, 1, 1), ("parsed", "parsed", "parsed")),
        ("No", "no", (1, 1, 1), ("parsed", "parsed", "parsed")),
        # lmms-eval compares the whole reply.
        ("Yes.", "yes", (1, 0, 1), ("parsed", "none", "parsed")),
        ("No, there is no dog", "no", (1, 0, 1), ("parsed", "none", "parsed")),
        # Only the first sentence counts, officially.
        ("Yes. But no dog.", "yes", (1, 0, 0), ("ambiguous", "ambiguous", "ambiguous")),
        # What is not negative is a yes, officially.
        ("Maybe", "yes", (1, 0, 0), ("none", "none", "none")),
        ("Maybe", "no", (0, 0, 0), ("none", "none", "none")),
        ("There is a dog", "yes", (1, 0, 0), ("none", "none", "none")),
        # "not" is negative, "NO" and "isn't" are not, officially.
        ("It is not there", "no", (1, 0, 0), ("parsed", "none", "none")),
        ("NO", "no", (0, 1, 1), ("parsed", "parsed", "parsed")),
        ("It isn't there", "no", (0, 0, 0), ("none", "none", "none")),
        # "No" must be a word by itself; a line break does not end one.
        ("No\n", "no", (0, 1, 1), ("parsed", "parsed", "parsed")),
        ("I know", "no", (0, 0, 0), ("none", "none", "none")),
        ("", "yes", (0, 0, 0), ("none", "none", "none")),
        (None, "no", (0, 0, 0), ("none", "none", "none")),
    ],
)
def test_golden(
    prediction: str | None, answer: str, worth: tuple[int, ...], read: tuple[str, ...]
) -> None:
    assert scores("pope", prediction, answer=answer) == worth
    assert parsed("pope", prediction, answer=answer) == read


# There: yes, "Yes.", no, nothing. Not there: yes, no, no, "maybe".
ROWS = [
    {"prediction": "yes", "answer": "yes", "category": "random"},
    {"prediction": "Yes.", "answer": "yes", "category": "random"},
    {"prediction": "no", "answer": "yes", "category": "random"},
    {"prediction": None, "answer": "yes", "category": "popular"},
    {"prediction": "yes", "answer": "no", "category": "random"},
    {"prediction": "no", "answer": "no", "category": "popular"},
    {"prediction": "no", "answer": "no", "category": "popular"},
    {"prediction": "maybe", "answer": "no", "category": "popular"},
]


def test_official_figures() -> None:
    found = figures("pope", ROWS)
    # Yes: two hits and two false ones, "maybe" among them.
    assert found["score"] == found["accuracy"] == 0.5
    assert found["precision"] == 0.5
    assert found["recall"] == 0.5
    assert found["f1"] == 0.5
    assert found["yes_ratio"] == 0.5
    # Random: one hit, a false one, and two of three found. Popular: a false one only.
    assert (found["f1_random"], found["f1_popular"]) == (pytest.approx(2 / 3, abs=1e-6), 0)
    assert "f1_adversarial" not in found
    assert found["parse_failure_rate"] == 0.25
    assert found["by"] == {"category": {"random": 0.5, "popular": 0.5}}


def test_lmms_eval_counts_otherwise() -> None:
    found = figures("pope", [*ROWS, {"prediction": "no", "answer": "no"}], "lmms-eval")
    assert found["accuracy"] == pytest.approx(4 / 9, abs=1e-6)
    assert found["precision"] == 0.5
    # One hit and one miss: "Yes." and the missing reply are neither.
    assert found["recall"] == 0.5
    # The answers' own share of yes, not the replies'.
    assert found["yes_ratio"] == pytest.approx(4 / 9, abs=1e-6)


def test_vlmevalkit_reads_words() -> None:
    found = figures("pope", ROWS, "vlmevalkit")
    assert found["accuracy"] == 0.5
    assert found["precision"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["recall"] == 0.5
    assert found["f1"] == pytest.approx(4 / 7, abs=1e-6)
    assert found["yes_ratio"] == pytest.approx(3 / 8)
    assert (found["f1_random"], found["f1_popular"]) == (pytest.approx(2 / 3, abs=1e-6), 0)


def test_without_a_yes_there_is_no_precision() -> None:
    rows = [{"prediction": "no", "answer": "yes"}, {"prediction": "no", "answer": "no"}]
    found = figures("pope", rows)
    assert (found["precision"], found["recall"], found["f1"]) == (None, 0, 0)
    assert figures("pope", rows, "vlmevalkit")["precision"] == 0


def test_the_answer_must_be_yes_or_no() -> None:
    sentence = mistake("pope", [{"prediction": "yes", "answer": "maybe"}])
    assert sentence == "row 1 has an answer that is neither yes nor no"
