"""A panel's answer as people and programs see it."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import polars as pl
from rich.console import Console

from peeralign.recipes.answer import UNSCORED, WEIGHED_SCHEMA
from peeralign.report.answered import answered_json, print_answered

ROWS: list[dict[str, Any]] = [
    {
        "answer_id": name,
        "text": text,
        "authors": authors,
        "num_draws": draws,
        "reward": reward,
        "verdicts": [
            {"judge": "ben", "score": reward, "reason": None if reward else "not readable"},
            {"judge": "ada", "score": 0.25, "reason": None},
        ],
    }
    for name, text, authors, draws, reward in (
        ("a", "teal", ["ada"], 2, 0.5),
        ("b", "mauve", ["ada"], 9, None),
        ("c", "red\x1b[2J[bold]\nblue", ["[i]ada", "ben"], 1, 0.75),
        ("d", "ochre", ["ben"], 3, 0.5),
    )
]
ANSWERS = pl.DataFrame(
    [{"question_id": "q", "num_judges": 2, **row} for row in ROWS], schema=WEIGHED_SCHEMA
)


def best(name: str, reason: str | None = None) -> dict[str, Any]:
    (row,) = [row for row in ROWS if row["answer_id"] == name]
    return {**row, "num_judges": 2, "num_answers": 4, "reason": reason}


def printed(chosen: dict[str, Any]) -> list[str]:
    console = Console(file=StringIO(), width=100)
    print_answered(chosen, ANSWERS, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_for_programs() -> None:
    told = answered_json(best("c"), ANSWERS)
    assert json.loads(json.dumps(told)) == told
    assert (told["answer"], told["authors"]) == (ROWS[2]["text"], ["[i]ada", "ben"])
    assert [answer["text"] for answer in told["answers"][1:]] == ["ochre", "teal", "mauve"]
    unread = told["answers"][-1]
    assert unread["scores"] == {"ben": None, "ada": 0.25}
    assert unread["reasons"] == {"ben": "not readable"}
    assert told["answers"][0]["reasons"] == {}


def test_the_chosen_answer_stands_first_whatever_its_reward() -> None:
    # As with "weighted".
    order = [answer["text"] for answer in answered_json(best("d"), ANSWERS)["answers"]]
    assert order == ["ochre", ROWS[2]["text"], "teal", "mauve"]


def test_answers_obey_no_terminal() -> None:
    lines = printed(best("c"))
    assert not any("\x1b" in line for line in lines)
    assert lines[:3] == ["red\\x1b[2J[bold]", "blue", "by [i]ada, ben"]
    assert ["teal", "ada", "2", "0.500", "0.250", "0.500"] in [
        [cell.strip() for cell in line.split("│")] for line in lines
    ]


def test_a_long_answer_is_whole_and_what_decided_is_told() -> None:
    long = {**best("b", UNSCORED), "text": "word " * 100}
    lines = printed(long)
    by = lines.index("by ada")
    assert " ".join(lines[:by]).split() == ["word"] * 100
    assert lines[by + 1] == UNSCORED
