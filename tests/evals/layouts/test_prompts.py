"""Wordings of questions."""

from __future__ import annotations

import pytest

from peeralign.errors import PeeralignError
from peeralign.evals.layouts.layout import Item, Layout
from peeralign.evals.layouts.prompts import (
    OPTIONS,
    PLAIN,
    SHORT,
    YES_OR_NO,
    check_template,
    without_instruction,
    worded,
)

LAYOUT = Layout("Set", (), OPTIONS, prompt_without_options=SHORT)


def asked(template: str | None, question: str = "Which?", **parts: object) -> str:
    return worded(Item(question, None, {}, **parts), LAYOUT, template)  # type: ignore[arg-type]


def test_options_and_hint() -> None:
    assert asked(None, options=["one", "two"], hint="It is small.") == (
        "It is small.\nWhich?\nA. one\nB. two\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_lines_without_a_value_are_left_out() -> None:
    assert asked(None, options=["one", "two"]).startswith("Which?\nA. one\n")
    assert asked("Context: {hint}\n\n{question}") == "Which?"
    assert asked("Context: {hint}\n{question}", hint="h") == "Context: h\nWhich?"


def test_items_without_options_may_have_their_own_wording() -> None:
    assert asked(None) == "Which?\nAnswer the question using a single word or phrase."


def test_a_text_of_the_file_is_asked_unless_there_is_a_template() -> None:
    assert asked(None, asked=" Which?\nA: one, B: two ", options=["one", "two"]) == (
        "Which?\nA: one, B: two"
    )
    assert asked(PLAIN, asked="Which?\nA: one, B: two") == "Which?"


def test_the_question_alone() -> None:
    assert asked(PLAIN, question="  Which?\n") == "Which?"


def test_braces_of_a_question_are_no_fields() -> None:
    assert asked("{question} {{x}}", question="Is {hint} {0}?", hint="no") == "Is {hint} {0}? {x}"


def test_the_instruction_of_some_files() -> None:
    whole = asked(YES_OR_NO, question="Is it?")
    assert whole == "Is it? Please answer yes or no."
    assert without_instruction(whole) == "Is it?"
    assert without_instruction("Is it?  ") == "Is it?"


@pytest.mark.parametrize(
    "template", ["{question}", "{hint} {question} {options}", "{{{question}}}"]
)
def test_templates(template: str) -> None:
    check_template(template)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{question} {choices}", r"^prompt has the field \{choices\}; its fields are "),
        ("{question} {}", r"^prompt has the field \{\}; "),
        ("Say it.", r"^prompt has no \{question\}; put it where the question goes$"),
        ("{{question}}", r"^prompt has no \{question\}"),
    ],
)
def test_templates_that_cannot_be(template: str, sentence: str) -> None:
    with pytest.raises(PeeralignError, match=sentence):
        check_template(template)
