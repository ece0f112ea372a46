"""The gallery's cards: a bounded, even sample of a round's preference pairs with all they need."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from peeralign.errors import PeeralignError
from peeralign.images.load import BrokenImage, open_image
from peeralign.judging.rubric import load_rubric
from peeralign.judging.verdict import Form, explanation_of
from peeralign.report.critics import Opinion, opinions, who_counts
from peeralign.report.rows import views_of_answers
from peeralign.report.tables import is_owned, scan, scan_owned
from peeralign.store.run import Run

PAIRS_PER_ROUND = 24
THUMBNAIL_PX = 256
# Up to this size an image is enlarged by whole pixels, since smoothing would only blur it.
TINY_PX = 80
MAX_PNG_BYTES = 24_000
LONG_TEXT = 80


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's score of an answer, or the reason there is none; with what it said, if asked."""

    judge: str
    score: float | None
    reason: str | None
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One side of a pair. `authors` maps each author to the number of draws with this answer.

    `views` are those it was given in, where the pair lies between views.
    """

    text: str
    reward: float | None
    authors: dict[str, int]
    verdicts: list[Verdict]
    views: list[str]


@dataclass(frozen=True, slots=True)
class Card:
    """One preference pair. Without an image, `image_problem` says why.

    `opinions` are those of critics that compared the two answers.
    """

    round: int
    pair_id: str
    question: str
    category: str
    image_url: str | None
    image_is_tiny: bool
    image_problem: str | None
    chosen: Answer
    rejected: Answer
    opinions: list[Opinion]

    @property
    def is_long(self) -> bool:
        """Whether its answers need a full line each on a narrow screen."""
        return max(len(self.chosen.text), len(self.rejected.text)) > LONG_TEXT

    @property
    def authors(self) -> list[str]:
        return sorted(self.chosen.authors.keys() | self.rejected.authors.keys())

    @property
    def views(self) -> list[str]:
        """What the rejected side was shown; empty for pairs that judges made."""
        return self.rejected.views


def collect_gallery(run: Run, number: int) -> list[Card]:
    """Up to PAIRS_PER_ROUND cards of a round: every n-th pair in the order of their ids.

    Ids are hashes, so their order has nothing to do with how a pair turned out.
    """
    table = scan_owned(run, number, "pairs")
    if table is None:
        return []
    # Members that learn alone may have pairs of one id.
    keys = ["id", "owner"]
    ids = table.select(keys).unique().sort(keys).collect(engine="streaming")
    count = min(PAIRS_PER_ROUND, len(ids))
    picked = ids[[i * len(ids) // count for i in range(count)]].lazy()
    pairs = table.join(picked, on=keys, how="semi", nulls_equal=True).unique(keys).sort(keys)
    pairs = pairs.collect()
    answer_ids = [*pairs["chosen_answer_id"], *pairs["rejected_answer_id"]]
    questions = _questions(run, number, pairs["question_id"].to_list())
    known = (
        _authors(run, number, answer_ids),
        _verdicts(run, number, answer_ids),
        _views(run, number, answer_ids),
        who_counts(run),
    )
    told = opinions(run, number, pairs)
    cards = []
    for pair in pairs.iter_rows(named=True):
        sides = [_answer(pair, side, *known) for side in ("chosen", "rejected")]
        said = told.get((pair["id"], pair["owner"] or ""), [])
        question = questions.get(pair["question_id"], {})
        cards.append(_card(number, pair, question, (sides[0], sides[1]), said))
    return cards


def _answer(
    pair: dict[str, Any],
    side: str,
    authors: dict[str, dict[str, int]],
    verdicts: dict[str, list[Verdict]],
    views: dict[tuple[str, str], list[str]],
    counts: Callable[[str, str], bool],
) -> Answer:
    answer_id, owner = pair[f"{side}_answer_id"], pair["owner"]
    wrote = authors.get(answer_id, {})
    is_rewarded = pair[f"{side}_reward"] is not None
    if owner is not None:
        # A member that learns alone has nothing to do with who else gave the answer; draws count
        # where judges chose among them, not where each came from a view of its own.
        wrote = {owner: wrote.get(owner, 1) if is_rewarded else 1}
    return Answer(
        text=pair[side],
        reward=pair[f"{side}_reward"],
        authors=wrote,
        verdicts=[
            v for v in verdicts.get(answer_id, []) if owner is None or counts(v.judge, owner)
        ],
        views=[] if is_rewarded else views.get((answer_id, owner or ""), []),
    )


def _card(
    number: int,
    pair: dict[str, Any],
    question: dict[str, Any],
    sides: tuple[Answer, Answer],
    said: list[Opinion],
) -> Card:
    url, tiny, problem = thumbnail(question.get("image"))
    return Card(
        round=number,
        pair_id=pair["id"],
        question=question.get("text") or "(the question is not in this folder)",
        category=question.get("category") or "no category",
        image_url=url,
        image_is_tiny=tiny,
        image_problem=problem,
        chosen=sides[0],
        rejected=sides[1],
        opinions=said,
    )


def _views(run: Run, number: int, answer_ids: list[str]) -> dict[tuple[str, str], list[str]]:
    """{(answer, author): the views in which the author gave it}; none where pairs are shared."""
    table = scan(run, number, "candidates")
    if table is None or not is_owned(run, number, "pairs"):
        return {}
    rows = views_of_answers(table.filter(pl.col("answer_id").is_in(answer_ids))).collect()
    return {(answer, author): views for answer, author, views in rows.iter_rows()}


def _questions(run: Run, number: int, ids: list[str]) -> dict[str, dict[str, Any]]:
    table = scan(run, number, "questions")
    if table is None:
        return {}
    rows = table.filter(pl.col("id").is_in(ids)).collect(engine="streaming")
    return {row["id"]: row for row in rows.iter_rows(named=True)}


def _authors(run: Run, number: int, answer_ids: list[str]) -> dict[str, dict[str, int]]:
    table = scan(run, number, "candidates")
    if table is None:
        return {}
    written = table.filter(pl.col("answer_id").is_in(answer_ids) & pl.col("text").is_not_null())
    draws = written.group_by("answer_id", "author").agg(pl.len().alias("draws"))
    authors: dict[str, dict[str, int]] = {}
    for answer_id, author, count in draws.sort("answer_id", "author").collect().iter_rows():
        authors.setdefault(answer_id, {})[author] = count
    return authors


def _verdicts(run: Run, number: int, answer_ids: list[str]) -> dict[str, list[Verdict]]:
    table = scan(run, number, "judgments")
    if table is None:
        return {}
    judges = table.select("judge").unique().sort("judge").collect(engine="streaming")["judge"]
    rows = table.filter(pl.col("answer_id").is_in(answer_ids)).select(
        "answer_id", "judge", "score", "reason", "raw"
    )
    form = _form(run)
    given = {
        (row[0], row[1]): _verdict(form, *row[1:])
        for row in rows.collect(engine="streaming").iter_rows()
    }
    absent = "no judgment"
    return {
        answer_id: [given.get((answer_id, j), Verdict(j, None, absent)) for j in judges]
        for answer_id in set(answer_ids)
    }


def _form(run: Run) -> Form | None:
    """What judges were to write; None where it has no explanation, or cannot be read any more."""
    try:
        rubric = load_rubric(str(run.manifest()["settings"]["judge"]["rubric"]))
    except (KeyError, TypeError, OSError, PeeralignError):
        return None
    return rubric.form() if rubric.kind == "absolute" else None


def _verdict(
    form: Form | None, judge: str, score: float | None, reason: str | None, raw: str | None
) -> Verdict:
    if score is None:
        return Verdict(judge, None, reason)
    return Verdict(judge, score, None, explanation_of(raw or "", form) if form else None)


def thumbnail(image: dict[str, Any] | None) -> tuple[str | None, bool, str | None]:
    """A data: URL of at most THUMBNAIL_PX a side, whether it is tiny, and what went wrong."""
    if not image or not (image.get("bytes") or image.get("path")):
        return None, False, "no image is stored with this question"
    try:
        picture = open_image(image)
    except BrokenImage as error:
        return None, False, str(error)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    kind, data = "png", io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    if len(data.getvalue()) > MAX_PNG_BYTES:
        kind, data = "jpeg", io.BytesIO()
        picture.save(data, "JPEG", quality=85, optimize=True)
    text = base64.b64encode(data.getvalue()).decode()
    return f"data:image/{kind};base64,{text}", max(picture.size) <= TINY_PX, None
