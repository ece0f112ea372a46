"""Which items one of two members wins, beside what both said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from peeralign.escape import without_surrogates
from peeralign.evals.reading.letters import LETTERS
from peeralign.evals.sheets import Sheet
from peeralign.records import normalise_answer

WIN, LOSS, TIE = "win", "loss", "tie"
_SAID = {"prediction": pl.String, "parsed": pl.String, "reading": pl.String, "score": pl.Float64}
# The outcome is B's; `is_same` is whether both said the same but for case and white space.
OUTCOME_SCHEMA = pl.Schema(
    {
        **dict.fromkeys(("task", "member_a", "member_b", "id", "question", "expected"), pl.String),
        "outcome": pl.String,
        "is_same": pl.Boolean,
        **{f"{name}_{side}": dtype for side in "ab" for name, dtype in _SAID.items()},
    }
)
MAX_EXPECTED = 5


def outcomes(
    task: str, members: tuple[str, str], sheets: tuple[Sheet, Sheet], ids: Sequence[str]
) -> pl.DataFrame:
    """A row of OUTCOME_SCHEMA for each of the items, which both sheets have."""
    rows = []
    for name in ids:
        written = sheets[0].written[name]
        row: dict[str, Any] = {
            **{"task": task, "member_a": members[0], "member_b": members[1], "id": name},
            "question": _text(written.get("question")),
            "expected": expected(written),
        }
        for side, sheet in zip("ab", sheets, strict=True):
            grade = sheet.grades[name]
            row[f"prediction_{side}"] = _text(sheet.written[name].get("prediction"))
            row[f"parsed_{side}"] = grade.parsed
            row[f"reading_{side}"] = grade.reading
            row[f"score_{side}"] = grade.score
        better = row["score_b"] - row["score_a"]
        row["outcome"] = WIN if better > 0 else LOSS if better < 0 else TIE
        said = [normalise_answer(row[f"prediction_{side}"] or "") for side in "ab"]
        row["is_same"] = said[0] == said[1]
        rows.append(row)
    return pl.DataFrame(rows, schema=OUTCOME_SCHEMA)


def expected(row: Mapping[str, Any]) -> str | None:
    """The right answers as people read them, a letter with its option; None if none is known."""
    right = row.get("answers", row.get("answer"))
    if right is None:
        return None
    texts = dict.fromkeys(
        _text(each) or "" for each in (right if isinstance(right, list) else [right])
    )
    choices = row.get("choices")
    options = choices if isinstance(choices, list) else []
    # Of letters alone: an option's text may begin with one, too.
    letters = dict(zip(LETTERS, options, strict=False))
    named = [f"{text}: {_text(letters[text])}" if text in letters else text for text in texts]
    more = f" and {len(named) - MAX_EXPECTED} more" if len(named) > MAX_EXPECTED else ""
    return " / ".join(named[:MAX_EXPECTED]) + more


def _text(value: Any) -> str | None:
    return None if value is None else without_surrogates(str(value))
