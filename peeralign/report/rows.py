"""Rows of a run's tables for `peeralign show`, with what their readers ask for first."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from peeralign.errors import PeeralignError, nearest
from peeralign.records import (
    CANDIDATE_SCHEMA,
    COMPARISON_SCHEMA,
    JUDGMENT_SCHEMA,
    PAIR_SCHEMA,
    QUESTION_SCHEMA,
    REWARD_SCHEMA,
)
from peeralign.report.critics import with_author
from peeralign.report.tables import is_owned, scan, scan_owned
from peeralign.store.run import Run

SCHEMAS = {
    "candidates": CANDIDATE_SCHEMA,
    "judgments": JUDGMENT_SCHEMA,
    "comparisons": COMPARISON_SCHEMA,
    "rewards": REWARD_SCHEMA,
    "pairs": PAIR_SCHEMA,
}
# Of a comparison.
SIDES = ("first", "second")
# What a row lacks when it is "unscored".
RESULT = {
    "candidates": "text",
    "judgments": "score",
    "comparisons": "preference",
    "rewards": "reward",
}


def select_rows(
    folder: Path,
    table: str,
    round_number: int | None = None,
    question: str | None = None,
    member: str | None = None,
    category: str | None = None,
    unscored: bool = False,
) -> pl.DataFrame:
    """Rows of one of a run's tables with round, question and category, in the order asked.

    `question` is an id, or text in any case that the question holds. `member` is the author of a
    candidate, the judge of a judgment or comparison, or an author of a reward's or a pair's
    answers. Judgments and comparisons get the answers' texts, rewards and pairs their authors;
    unscored rewards the judges' reasons and replies; pairs between one member's answers the views
    they came from. Raises PeeralignError for a table, round, member or category that is not there.
    """
    run = Run.existing(folder)
    if table not in SCHEMAS:
        raise PeeralignError(
            f"no table named '{table}', there are {', '.join(SCHEMAS)}{nearest(table, SCHEMAS)}"
        )
    if unscored and table not in RESULT:
        raise PeeralignError(
            "--unscored selects nothing of pairs, since both answers of a pair have a reward; "
            f"use it with {', '.join(RESULT)}"
        )
    rounds = _rounds(run, round_number)
    kept = pl.lit(True)
    if unscored:
        kept &= pl.col(RESULT[table]).is_null()
    if member is not None:
        _check_member(run, rounds, member)
        kept &= _by_member(table, member)
    if question is not None:
        holds = pl.col("question").str.to_lowercase().str.contains(question.lower(), literal=True)
        kept &= (pl.col("question_id") == question) | holds
    try:
        if category is not None:
            _check_category(run, rounds, category)
            kept &= pl.col("category") == category
        parts = [_round_rows(run, number, table, kept, unscored) for number in rounds]
        # Only rounds with pairs between views have columns for these.
        return pl.concat([part.collect() for part in parts], how="diagonal")
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise PeeralignError(
            f"{folder} cannot be read as a run of peeralign ({first_line}); "
            "remove the damaged file and run its command again"
        ) from error


def _rounds(run: Run, wanted: int | None) -> list[int]:
    # Round 0 is the exam before training: it has no table to show.
    rounds = [number for number in run.rounds() if number > 0]
    if not rounds:
        raise PeeralignError(f"{run.folder} has no round yet; run its command again to go on")
    if wanted is None:
        return rounds
    if wanted not in rounds:
        raise PeeralignError(
            f"{run.folder} has no round {wanted}; its rounds are {', '.join(map(str, rounds))}"
        )
    return [wanted]


def _check_member(run: Run, rounds: list[int], member: str) -> None:
    known = [entry["name"] for entry in run.manifest().get("settings", {}).get("members", [])]
    for number in rounds:
        for stage in ("candidates", "judgments", "comparisons"):
            folders = sorted((run.round_folder(number) / stage).glob("*/"))
            known += [folder.name for folder in folders]
    if member not in known:
        raise PeeralignError(
            f"no member named '{member}', there are {', '.join(dict.fromkeys(known))}"
            f"{nearest(member, known)}"
        )


def _check_category(run: Run, rounds: list[int], category: str) -> None:
    columns = [_scan(run, number, "questions").select("category") for number in rounds]
    known = pl.concat(columns).unique().collect()["category"].drop_nulls().sort().to_list()
    if known and category not in known:
        raise PeeralignError(
            f"no category named '{category}', there are {', '.join(known)}"
            f"{nearest(category, known)}"
        )


def _by_member(table: str, member: str) -> pl.Expr:
    if table == "candidates":
        return pl.col("author") == member
    if table in ("judgments", "comparisons"):
        return pl.col("judge") == member
    if table == "rewards":
        return pl.col("authors").list.contains(member)
    sides = [pl.col(f"{side}_authors").list.contains(member) for side in ("chosen", "rejected")]
    return sides[0] | sides[1]


def _scan(run: Run, number: int, table: str) -> pl.LazyFrame:
    schema = QUESTION_SCHEMA if table == "questions" else SCHEMAS[table]
    found = scan(run, number, table)
    return pl.LazyFrame(schema=schema) if found is None else found


def _with_question(run: Run, number: int, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows with their question's text and category, and its place in the order asked."""
    found = scan_owned(run, number, "questions")
    if found is None:
        found = pl.LazyFrame(schema=pl.Schema({**QUESTION_SCHEMA, "owner": pl.String}))
    # Images stay on the disk: only these columns of the questions are read.
    questions = found.select(
        "owner", "category", pl.col("id").alias("question_id"), pl.col("text").alias("question")
    ).with_row_index("place")
    if is_owned(run, number, "questions") and "author" in rows.collect_schema():
        # Members with data of their own may use one id for different questions.
        questions = questions.rename({"owner": "author"})
        return rows.join(questions, on=["question_id", "author"], how="left")
    return rows.join(questions.drop("owner"), on="question_id", how="left")


def _round_rows(run: Run, number: int, table: str, kept: pl.Expr, unscored: bool) -> pl.LazyFrame:
    rows = _with_answers(run, number, table)
    if unscored and table == "rewards":
        rows = _with_reasons(run, number, rows)
    columns = rows.collect_schema().names()
    order = {
        "candidates": ("author", "draw", "view"),
        "judgments": ("answer_id", "judge"),
        "comparisons": ("first_id", "second_id", "judge", "order"),
        "rewards": ("answer_id", pl.col("authors").list.first()),
        "pairs": ("id", pl.col("chosen_authors").list.first()),
    }[table]
    return (
        _with_question(run, number, rows)
        .filter(kept)
        .sort("place", *order, nulls_last=True)
        .select(pl.lit(number, pl.Int32).alias("round"), "category", "question", *columns)
    )


def _with_answers(run: Run, number: int, table: str) -> pl.LazyFrame:
    """The table, with the text of a judged answer and the authors of a rewarded or paired one."""
    rows = _scan(run, number, table)
    if table == "candidates":
        return rows
    if table == "pairs" and is_owned(run, number, "pairs"):
        return _with_views(run, number)
    answers = (
        _scan(run, number, "candidates")
        .filter(pl.col("text").is_not_null())
        .group_by("answer_id")
        .agg(
            pl.col("text").sort_by("id").first().alias("answer"),
            pl.col("author").unique().sort().alias("authors"),
        )
    )
    if table == "judgments":
        return rows.join(answers.select("answer_id", "answer"), on="answer_id", how="left")
    if table == "comparisons":
        for side in SIDES:
            texts = answers.select(
                pl.col("answer_id").alias(f"{side}_id"), pl.col("answer").alias(side)
            )
            rows = rows.join(texts, on=f"{side}_id", how="left")
        return rows
    authors = answers.select("answer_id", "authors")
    if table == "rewards":
        owned = scan_owned(run, number, "rewards")
        if owned is not None and is_owned(run, number, "rewards"):
            # A learner that is chosen from alone has rewards of its own.
            return owned.with_columns(authors=pl.concat_list("owner")).drop("owner")
        return rows.join(authors, on="answer_id", how="left")
    for side in ("chosen", "rejected"):
        named = authors.rename({"answer_id": f"{side}_answer_id", "authors": f"{side}_authors"})
        rows = rows.join(named, on=f"{side}_answer_id", how="left")
    return rows


def _with_views(run: Run, number: int) -> pl.LazyFrame:
    """Pairs between one member's answers: with their author, and the views each side came from."""
    rows = scan_owned(run, number, "pairs")
    assert rows is not None
    views = views_of_answers(_scan(run, number, "candidates"))
    for side in ("chosen", "rejected"):
        named = views.rename({"answer_id": f"{side}_answer_id", "views": f"{side}_views"})
        rows = rows.join(
            named,
            left_on=[f"{side}_answer_id", "owner"],
            right_on=[f"{side}_answer_id", "author"],
            how="left",
        ).with_columns(pl.concat_list("owner").alias(f"{side}_authors"))
    return rows.drop("owner")


def views_of_answers(candidates: pl.LazyFrame) -> pl.LazyFrame:
    """(answer_id, author, views): the views in which the author gave the answer, sorted."""
    answered = candidates.filter(pl.col("text").is_not_null())
    return answered.group_by("answer_id", "author").agg(
        pl.col("view").unique().sort().alias("views")
    )


def _with_reasons(run: Run, number: int, rewards: pl.LazyFrame) -> pl.LazyFrame:
    """Rewards with their judges' reasons and replies: one "judge: reason" a judge.

    A critic that compared an answer with several others has its distinct ones.
    """
    judged = _scan(run, number, "judgments").filter(pl.col("score").is_null())
    compared = _scan(run, number, "comparisons").filter(pl.col("preference").is_null())
    key, told = ["answer_id"], ["judge", "reason", "raw"]
    if is_owned(run, number, "rewards"):
        # What was said of others' answers is no reason for a learner's own reward.
        key.append("author")
        wrote = _scan(run, number, "candidates").drop_nulls("text").select(*reversed(key)).unique()
        judged, compared = judged.join(wrote, on="answer_id"), with_author(compared, wrote)
        rewards = rewards.with_columns(author=pl.col("authors").list.first())
    sides = [compared.rename({f"{side}_id": "answer_id"}).select(*key, *told) for side in SIDES]
    lacking = pl.concat([judged.select(*key, *told), *sides]).sort(told)
    reasons = lacking.group_by(key, maintain_order=True).agg(
        pl.format("{}: {}", "judge", pl.col(name).fill_null(""))
        .unique(maintain_order=True)
        .str.join("; ")
        .alias(name)
        for name in ("reason", "raw")
    )
    why = pl.col("reason").fill_null("no judge was asked")
    return rewards.join(reasons, on=key, how="left").with_columns(why).drop(key[1:])
