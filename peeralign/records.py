"""What flows through a run: seven records, their table schemas, and the rule that names them.

Every table of a run is a Parquet file with one of the ``*_SCHEMA`` layouts below, so Polars,
DuckDB and ``datasets.load_dataset("parquet", ...)`` read it as it is. Rows are joined by id,
never by position. The dataclasses are the same rows as Python objects, for the places where
rows are few (a gallery, a test, a user's own stage).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import polars as pl

# The `datasets.Image` storage layout: either the encoded file's bytes, or a path to it.
IMAGE_DTYPE = pl.Struct({"bytes": pl.Binary, "path": pl.String})


def make_id(*parts: object) -> str:
    """Name a row by what it is made of: 16 hex characters of a SHA-256 over `parts`.

    The same parts give the same id in every process and on every machine, so a resumed or
    re-sharded run produces the same rows.
    """
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seed_of(*parts: object) -> int:
    """Derive a 63-bit seed from `parts`; seeds belong to items, never to a process."""
    text = "\x1e".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def normalise_answer(text: str) -> str:
    """Fold case and white space: answers equal after this are one answer (judged once)."""
    return re.sub(r"\s+", " ", text).strip().casefold()


@dataclass(frozen=True, slots=True)
class Question:
    """An image and a text to answer. It has no answer field: the loop is label-free by type."""

    id: str
    text: str
    category: str
    image: dict[str, bytes | str | None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One member's answer to one question; `draw` numbers the samples from 0.

    `answer_id` is shared by all candidates of a question whose texts are equal after
    `normalise_answer`. A draw that gave no usable text has `text` None and a `reason`.
    """

    id: str
    question_id: str
    answer_id: str
    author: str
    draw: int
    view: str
    text: str | None
    num_tokens: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Judgment:
    """One judge's verdict on one distinct answer: a score, or the reason there is none.

    `score` is the reward R_i(y) in [0.2, 1] (Panel of Peers, section 3.1); `axes` holds the five
    axis values in the rubric's order; `label_mass` is the probability the judge put on readable
    scores (None when the verdict was free text); `raw` keeps the reply.
    """

    id: str
    question_id: str
    answer_id: str
    judge: str
    score: float | None
    axes: list[float] | None
    label_mass: float | None
    reason: str | None
    raw: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One judge's verdict on two answers to a question, as they were shown in one order.

    `order` is 0 if the first was shown as A, 1 if as B; all else is about the first and the second
    themselves. `verdict` is "first", "second", "tie" or None; `preference` is 1, 0 or 0.5 for
    these, or the expectation over their probabilities, `shares`. Without a verdict there is a
    `reason`. `wording` numbers the rubric's wordings from 0; `explanation` is the judge's reason.
    """

    id: str
    question_id: str
    pair_id: str
    first_id: str
    second_id: str
    order: int
    judge: str
    verdict: str | None
    preference: float | None
    shares: list[float] | None
    label_mass: float | None
    wording: int
    explanation: str | None
    reason: str | None
    raw: str


@dataclass(frozen=True, slots=True)
class Reward:
    """The judges' scores of one distinct answer, merged. `reward` is None if nobody scored it.

    `num_draws` says how many candidates gave this answer.
    """

    question_id: str
    answer_id: str
    text: str
    num_draws: int
    reward: float | None
    variance: float | None
    num_judges: int


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """The best and the worst answer of one question; every learner trains on it."""

    id: str
    question_id: str
    chosen: str
    rejected: str
    chosen_answer_id: str
    rejected_answer_id: str
    chosen_reward: float
    rejected_reward: float


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An image and exchanges about it, each a prompt and the response to imitate.

    The exchanges are independent of each other: none sees the others.
    """

    id: str
    image: dict[str, bytes | str | None]
    exchanges: list[dict[str, str]]


QUESTION_SCHEMA = pl.Schema(
    {"id": pl.String, "text": pl.String, "category": pl.String, "image": IMAGE_DTYPE}
)
CANDIDATE_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "question_id": pl.String,
        "answer_id": pl.String,
        "author": pl.String,
        "draw": pl.Int32,
        "view": pl.String,
        "text": pl.String,
        "num_tokens": pl.Int32,
        "reason": pl.String,
    }
)
JUDGMENT_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "question_id": pl.String,
        "answer_id": pl.String,
        "judge": pl.String,
        "score": pl.Float64,
        "axes": pl.List(pl.Float64),
        "label_mass": pl.Float64,
        "reason": pl.String,
        "raw": pl.String,
    }
)
COMPARISON_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "question_id": pl.String,
        "pair_id": pl.String,
        "first_id": pl.String,
        "second_id": pl.String,
        "order": pl.Int8,
        "judge": pl.String,
        "verdict": pl.String,
        "preference": pl.Float64,
        "shares": pl.List(pl.Float64),
        "label_mass": pl.Float64,
        "wording": pl.Int32,
        "explanation": pl.String,
        "reason": pl.String,
        "raw": pl.String,
    }
)
REWARD_SCHEMA = pl.Schema(
    {
        "question_id": pl.String,
        "answer_id": pl.String,
        "text": pl.String,
        "num_draws": pl.Int32,
        "reward": pl.Float64,
        "variance": pl.Float64,
        "num_judges": pl.Int32,
    }
)
PAIR_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "question_id": pl.String,
        "chosen": pl.String,
        "rejected": pl.String,
        "chosen_answer_id": pl.String,
        "rejected_answer_id": pl.String,
        "chosen_reward": pl.Float64,
        "rejected_reward": pl.Float64,
    }
)
# `rejected_image` is another view of the image, which all rejected answers were given to.
PREFERENCE_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "image": IMAGE_DTYPE,
        "question": pl.String,
        "chosen": pl.String,
        "rejected": pl.List(pl.String),
        "rejected_image": IMAGE_DTYPE,
    }
)
DEMONSTRATION_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "image": IMAGE_DTYPE,
        "exchanges": pl.List(pl.Struct({"prompt": pl.String, "response": pl.String})),
    }
)
# An item whose image cannot be opened has no score, and a `reason`.
EXAM_SCHEMA = pl.Schema(
    {
        "item_id": pl.String,
        "skill": pl.String,
        "category": pl.String,
        "question": pl.String,
        "prediction": pl.String,
        "score": pl.Float64,
        "reason": pl.String,
    }
)
# Images as points: `kind` is "training" or "exam", which alone has categories.
OVERLAP_SCHEMA = pl.Schema(
    {"kind": pl.String, "category": pl.String, "x": pl.Float64, "y": pl.Float64}
)
