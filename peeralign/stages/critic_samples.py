"""Critic samples: what a critic is shown, and the judgement and reason it is to write.

LLaVA-Critic, section 3: pointwise (image, question, answer, criteria) -> (score, reason), and
pairwise (image, question, two answers, criteria) -> (preference, reason).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from peeralign.escape import without_surrogates
from peeralign.judging.rubric import Rubric
from peeralign.judging.verdict import Form, explanation_of, parse_verdict
from peeralign.records import make_id, seed_of

# `label` is the verdict as it is written ("7", "A", "5 5 3"), `level` what samples are balanced by.
SAMPLE_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "source": pl.String,
        "scenario": pl.String,
        "kind": pl.String,
        "question_id": pl.String,
        "label": pl.String,
        "level": pl.String,
        "with_reason": pl.Boolean,
        "wording": pl.Int32,
        "prompt": pl.String,
        "response": pl.String,
    }
)
Row = dict[str, Any]
# Scales of more numbers are balanced by so many equal parts.
MAX_LEVELS = 10
TIE = "tie"


class NotWritable(Exception):
    """A judgement that cannot be written so that it is read back as the same; with the reason."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sample is about, and where it comes from."""

    source: str
    scenario: str
    question_id: str
    question: str
    reference: str | None = None


def pointwise_sample(
    asked: Asked, rubric: Rubric, answer: str, labels: Sequence[int], explanation: str | None
) -> Row:
    """A row of SAMPLE_SCHEMA: `answer` gets `labels`, one for each of the rubric's axes.

    Raises NotWritable.
    """
    (prompt,) = rubric.fill(asked.question, [answer], asked.reference)
    form = rubric.form()
    level = _level(sum(labels) / len(labels), form)
    about = {"kind": "pointwise", "level": level, "wording": 0}
    return about | _written(asked, prompt, form, labels, explanation)


def pairwise_sample(
    asked: Asked,
    rubric: Rubric,
    wording: int,
    shown: tuple[str, str],
    better: int | None,
    explanation: str | None,
) -> Row:
    """A row of SAMPLE_SCHEMA: of two answers as they are `shown`, number `better` is (None: a tie).

    `wording` numbers the rubric's variants. Raises NotWritable.
    """
    one = rubric.variants()[wording]
    (prompt,) = one.fill_pairs(asked.question, [shown], asked.reference)
    form = one.form()
    label = form.choices[2 if better is None else better]
    level = TIE if better is None else ("first", "second")[better]
    about = {"kind": "pairwise", "level": level, "wording": wording}
    return about | _written(asked, prompt, form, [label], explanation)


def _written(
    asked: Asked, prompt: str, form: Form, labels: Sequence[int | str], explanation: str | None
) -> Row:
    if explanation is None and form.reason != "none":
        raise NotWritable("no reason was given, and the rubric asks for one")
    said = None if explanation is None or form.reason == "none" else explanation.strip()
    response = without_surrogates(form.write(labels, said))
    values = dict(zip(form.labels, form.values, strict=True))
    verdict = parse_verdict(response, form)
    # A reason may hold a verdict of its own, say "Verdict: B" while it weighs both.
    if verdict.axes != [values[label] for label in labels]:
        raise NotWritable("the reason holds another verdict")
    if explanation_of(response, form) != said:
        raise NotWritable("the reason cannot be told from the verdict")
    return {
        "id": make_id("critic", asked.question_id, prompt, response),
        "source": asked.source,
        "scenario": asked.scenario,
        "question_id": asked.question_id,
        "label": " ".join(map(str, labels)),
        "with_reason": said is not None,
        "prompt": prompt,
        "response": response,
    }


def _level(mean: float, form: Form) -> str:
    low, high = form.scale
    if high - low < MAX_LEVELS:
        return str(round(mean))
    part = min(int((mean - low) / (high - low) * MAX_LEVELS), MAX_LEVELS - 1)
    edges = [low + (high - low) * number / MAX_LEVELS for number in (part, part + 1)]
    return f"{edges[0]:g} to {edges[1]:g}"


def reasonless(rubric: Rubric) -> list[int]:
    """The numbers of the wordings that ask for no reason."""
    return [n for n, one in enumerate(rubric.variants()) if one.reason == "none"]


def drawn(choices: Sequence[int], *parts: object) -> int:
    """One of `choices`, by a draw that belongs to `parts`."""
    return choices[seed_of(*parts) % len(choices)]


def balance(samples: pl.DataFrame, most: int | None, tie_share: float, seed: int) -> pl.DataFrame:
    """At most `most` of the samples of one kind, in an order drawn with `seed`.

    Scenarios get equal numbers as far as they have them, and so do the levels of a scenario. Ties
    are at most `tie_share` of a scenario's samples.
    """
    keys = [seed_of("balance", seed, sample) for sample in samples["id"]]
    ordered = samples.with_columns(pl.Series("key", keys, dtype=pl.Int64)).sort("key", "id")
    parts: dict[str, pl.DataFrame] = {
        str(name): _fewer_ties(rows, tie_share)
        for (name,), rows in ordered.group_by("scenario", maintain_order=True)
    }
    total = sum(map(len, parts.values()))
    quotas = equal_quotas({name: len(rows) for name, rows in parts.items()}, most or total)
    kept = [_levelled(rows, quotas[name], tie_share) for name, rows in parts.items()]
    return pl.concat([ordered.clear(), *kept]).sort("key", "id").drop("key")


def _fewer_ties(rows: pl.DataFrame, share: float) -> pl.DataFrame:
    is_tie = pl.col("level") == TIE
    others = len(rows.filter(~is_tie))
    room = len(rows) if share >= 1 else int(others * share / (1 - share))
    return rows.filter(~is_tie | (is_tie.cum_sum() <= room))


def _levelled(rows: pl.DataFrame, most: int, tie_share: float) -> pl.DataFrame:
    counts = {str(level): number for level, number in rows["level"].value_counts().iter_rows()}
    ties = min(counts.pop(TIE, 0), int(most * tie_share))
    quotas = {**equal_quotas(counts, most - ties), TIE: ties}
    quota = pl.col("level").replace_strict(quotas, return_dtype=pl.Int64)
    return rows.filter(pl.int_range(pl.len()).over("level") < quota)


def equal_quotas(available: dict[str, int], most: int) -> dict[str, int]:
    """Share `most` places out equally; what one cannot fill goes to the others."""
    quotas = dict.fromkeys(available, 0)
    left = min(most, sum(available.values()))
    while left:
        open_names = sorted(name for name in available if quotas[name] < available[name])
        share = max(1, left // len(open_names))
        for name in open_names:
            more = min(share, available[name] - quotas[name], left)
            quotas[name] += more
            left -= more
    return quotas


def statistics(samples: pl.DataFrame) -> list[Row]:
    """Counts of each scenario and kind: samples, with a reason, and of each level."""
    found: list[Row] = []
    for (scenario, kind), rows in samples.sort("scenario", "kind").group_by(
        "scenario", "kind", maintain_order=True
    ):
        levels = dict(rows["level"].value_counts().iter_rows())
        found.append(
            {
                "scenario": scenario,
                "kind": kind,
                "samples": len(rows),
                "with_reason": int(rows["with_reason"].sum()),
                "levels": {level: levels[level] for level in sorted(levels, key=_place)},
            }
        )
    return found


def _place(level: str) -> tuple[int, float, str]:
    start = level.split()[0]
    number = start.replace(".", "", 1)
    return (0, float(start), "") if number.isdecimal() else (1, 0.0, level)
