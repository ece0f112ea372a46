"""Ids, seeds and normalising: what every join and every resumed run rests on."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from peeralign import records
from peeralign.records import (
    CANDIDATE_SCHEMA,
    DEMONSTRATION_SCHEMA,
    JUDGMENT_SCHEMA,
    PAIR_SCHEMA,
    QUESTION_SCHEMA,
    REWARD_SCHEMA,
    make_id,
    normalise_answer,
    seed_of,
)


def test_an_id_is_the_start_of_a_sha256_over_the_parts() -> None:
    # printf 'answer\x1fq1\x1fred' | sha256sum
    assert make_id("answer", "q1", "red") == "5699ab1bc88e2f49"


def test_a_seed_is_the_upper_63_bits_of_a_sha256_over_the_parts() -> None:
    # printf 'draw\x1e0\x1eq1' | sha256sum, first 16 digits, shifted right by one bit
    assert seed_of("draw", 0, "q1") == 7881232207570372846


@pytest.mark.parametrize("hash_seed", ["0", "1", "12345"])
def test_ids_and_seeds_are_the_same_in_every_process(hash_seed: str) -> None:
    code = (
        "from peeralign.records import make_id, seed_of;"
        "print(make_id('candidate', 'q', 'ada', 3), seed_of('draw', 0, 'q', 'ada'))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    here = [make_id("candidate", "q", "ada", 3), str(seed_of("draw", 0, "q", "ada"))]
    assert printed == here


def test_ids_depend_on_where_one_part_ends() -> None:
    assert make_id("ab", "c") != make_id("a", "bc")
    assert make_id("a", "") != make_id("a")
    assert seed_of("ab", "c") != seed_of("a", "bc")


def test_numbers_are_named_like_their_digits() -> None:
    assert make_id("pool", 0, 7) == make_id("pool", "0", "7")


def test_seeds_fill_63_bits_and_differ() -> None:
    seeds = [seed_of("draw", number) for number in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 2000
    # Half of them lie in the upper half of the range: a shift too many would leave it empty.
    assert 900 < sum(seed >= 2**62 for seed in seeds) < 1100


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Red", "red"),
        ("  red \n", "red"),
        ("dark\t\n  RED", "dark red"),
        ("dark\u00a0red", "dark red"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("", ""),
        (" \n\t ", ""),
        ("red.", "red."),
    ],
)
def test_normalise_answer(text: str, folded: str) -> None:
    assert normalise_answer(text) == folded


@pytest.mark.parametrize(
    ("record", "schema"),
    [
        (records.Question, QUESTION_SCHEMA),
        (records.Candidate, CANDIDATE_SCHEMA),
        (records.Judgment, JUDGMENT_SCHEMA),
        (records.Comparison, records.COMPARISON_SCHEMA),
        (records.Reward, REWARD_SCHEMA),
        (records.PreferencePair, PAIR_SCHEMA),
        (records.Demonstration, DEMONSTRATION_SCHEMA),
    ],
)
def test_a_record_has_its_tables_columns_in_order(record: type, schema: dict[str, object]) -> None:
    assert [field.name for field in dataclasses.fields(record)] == list(schema)


def test_a_question_has_no_place_for_an_answer() -> None:
    assert list(QUESTION_SCHEMA) == ["id", "text", "category", "image"]
