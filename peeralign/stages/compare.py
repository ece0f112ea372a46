"""Compare: every judge says which of two answers is better, shown in one order or in both.

LLaVA-Critic, section 3.2 (pairwise ranking) and section 4.3, step 2: a judge may prefer what stands
first, so both orders are asked for and their verdicts merged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from peeralign.engines.base import Engine, JudgeRequest
from peeralign.escape import without_surrogates
from peeralign.images.load import MAX_PIXELS, open_image
from peeralign.judging.rubric import Rubric
from peeralign.judging.verdict import Form, Verdict, explanation_of, parse_verdict
from peeralign.panel import Panel
from peeralign.progress import Reporter
from peeralign.records import COMPARISON_SCHEMA, make_id, seed_of
from peeralign.stages.blocks import EngineFactory, fill_stage
from peeralign.stages.judge import JudgeConfig, ask_judge, read_rubric
from peeralign.store.run import Stage

_VERDICTS = {1.0: "first", 0.0: "second", 0.5: "tie"}
Row = dict[str, Any]


def compare(
    stage_of: Callable[[str], Stage],
    questions: pl.DataFrame,
    pairs: pl.DataFrame,
    panel: Panel,
    config: JudgeConfig,
    open_engine: EngineFactory,
    seed: int,
    reporter: Reporter,
) -> None:
    """Fill `stage_of(judge)` with that judge's verdicts on `pairs` (COMPARISON_SCHEMA).

    `pairs` has question_id, first_id, first, second_id, second: two answers' ids and texts, nobody
    named. `questions` is a table of QUESTION_SCHEMA, which may have a column `reference`. The
    rubric of `config` must be pairwise; with `orders` "both" each pair gives two rows a judge.
    """
    rubric = read_rubric(config, ("pairwise",), "reference" in questions.columns)
    for member in panel.judges:

        def work(engine: Engine, block: pl.DataFrame, name: str = member.name) -> pl.DataFrame:
            asked = block.join(pairs, left_on="id", right_on="question_id", maintain_order="left")
            return compare_block(engine, asked, name, rubric, config, seed)

        fill_stage(
            stage_of(member.name),
            questions,
            config.block_size,
            member,
            open_engine,
            work,
            reporter,
            f"{member.name} compares",
        )


def compare_block(
    engine: Engine,
    asked: pl.DataFrame,
    judge_name: str,
    rubric: Rubric,
    config: JudgeConfig,
    seed: int,
) -> pl.DataFrame:
    """One judge's verdicts on rows of id, text, image, first_id, first, second_id, second.

    A pair's wording belongs to its answers and the seed, so both orders are asked alike. All pairs
    of a question with one wording are one request: engines compute image and question once.
    """
    variants = rubric.variants()
    orders = (0, 1) if config.orders == "both" else (0,)
    groups: dict[tuple[str, int], list[tuple[Row, int]]] = {}
    for row in asked.iter_rows(named=True):
        names = sorted((row["first_id"], row["second_id"]))
        wording = seed_of("wording", seed, row["id"], *names) % len(variants)
        groups.setdefault((row["id"], wording), []).extend((row, order) for order in orders)
    if config.readout == "random":
        replies = [
            [_random(variants[wording].form(), seed, shown, judge_name) for shown in group]
            for (_, wording), group in groups.items()
        ]
    else:
        requests = (_request(variants[wording], group) for (_, wording), group in groups.items())
        replies = ask_judge(engine, requests, config.readout)
    comparisons = [
        _comparison(row, order, judge_name, wording, variants[wording].form(), verdict)
        for ((_, wording), group), verdicts in zip(groups.items(), replies, strict=True)
        for (row, order), verdict in zip(group, verdicts, strict=True)
    ]
    return pl.DataFrame(comparisons, schema=COMPARISON_SCHEMA)


def _request(rubric: Rubric, group: list[tuple[Row, int]]) -> JudgeRequest:
    row = group[0][0]
    pairs = [
        (shown["second"], shown["first"]) if order else (shown["first"], shown["second"])
        for shown, order in group
    ]
    texts = rubric.fill_pairs(row["text"], pairs, row.get("reference"))
    return JudgeRequest(open_image(row["image"], MAX_PIXELS), tuple(texts), rubric.form())


def _comparison(
    row: Row, order: int, judge_name: str, wording: int, form: Form, verdict: Verdict
) -> Row:
    pair_id = make_id("compared", row["id"], row["first_id"], row["second_id"])
    shares = verdict.shares
    # The likeliest label: an expectation says nothing of whether a tie was meant.
    label = parse_verdict(verdict.raw, form).axes
    value = None if verdict.axes is None else verdict.axes[0]
    if order and value is not None:
        value = 1 - value
    if order and shares is not None:
        shares = [shares[1], shares[0], shares[2]]
    said = None
    if value is not None:
        written = label[0] if label else round(2 * value) / 2
        said = _VERDICTS[1 - written if order and label else written]
    explanation = explanation_of(verdict.raw, form)
    return {
        "id": make_id("comparison", pair_id, order, judge_name),
        "question_id": row["id"],
        "pair_id": pair_id,
        "first_id": row["first_id"],
        "second_id": row["second_id"],
        "order": order,
        "judge": judge_name,
        "verdict": said,
        "preference": value,
        "shares": shares,
        "label_mass": verdict.label_mass,
        "wording": wording,
        "explanation": None if explanation is None else without_surrogates(explanation),
        "reason": verdict.reason,
        "raw": without_surrogates(verdict.raw),
    }


def _random(form: Form, seed: int, shown: tuple[Row, int], judge_name: str) -> Verdict:
    row, order = shown
    parts = (row["id"], row["first_id"], row["second_id"], order, judge_name)
    choice = np.random.default_rng(seed_of("random comparison", seed, *parts)).integers(3)
    return Verdict([form.values[choice]], None, form.write([form.labels[choice]]))


def merge_orders(comparisons: pl.DataFrame) -> pl.DataFrame:
    """One row for each pair and judge: what it prefers once the order has cancelled.

    `preference` is the mean over the orders shown, and null with a `reason` if one of them has no
    verdict, since its order would then count. `verdict` is "first" above a half, "second" below,
    else "tie"; so two orders that contradict each other are a tie. `order_changed` says whether
    they gave different verdicts (null if one order was asked or one is unscored).
    """
    key = ["question_id", "pair_id", "first_id", "second_id", "judge"]
    is_whole = pl.col("preference").null_count() == 0
    merged = (
        comparisons.sort("order")
        .group_by(key, maintain_order=True)
        .agg(
            pl.when(is_whole).then(pl.col("preference").mean()).alias("preference"),
            pl.when(is_whole & (pl.len() > 1))
            .then(pl.col("verdict").n_unique() > 1)
            .alias("order_changed"),
            pl.col("explanation").drop_nulls().first(),
            pl.col("reason").drop_nulls().first(),
        )
    )
    return _with_verdict(merged)


def merge_judges(merged: pl.DataFrame) -> pl.DataFrame:
    """One row for each pair: the mean preference over the judges that scored it.

    `merged` is what `merge_orders` gives. `num_judges` is 0 and the verdict null if nobody did.
    """
    key = ["question_id", "pair_id", "first_id", "second_id"]
    scored = pl.col("preference").drop_nulls()
    return _with_verdict(
        merged.sort("judge")
        .group_by(key, maintain_order=True)
        .agg(scored.mean(), scored.len().cast(pl.Int32).alias("num_judges"))
    )


def _with_verdict(table: pl.DataFrame) -> pl.DataFrame:
    # Rounding must not make a winner of a tie.
    lead = (pl.col("preference") - 0.5).round(9)
    verdict = (
        pl.when(lead > 0)
        .then(pl.lit("first"))
        .when(lead < 0)
        .then(pl.lit("second"))
        .when(lead == 0)
        .then(pl.lit("tie"))
    )
    return table.with_columns(verdict.alias("verdict"))


def order_gap(comparisons: pl.DataFrame) -> pl.DataFrame:
    """How much the order matters to each judge: judge, num_pairs, changed, shown_first.

    Over the pairs with a verdict in both orders: `changed` is the share whose verdict changes with
    the order; `shown_first` the share of verdicts, ties left out, for what was shown first (0.5
    without a bias). Both are null where there is nothing to divide by.
    """
    both = comparisons.filter((pl.col("verdict").is_not_null().sum() == 2).over("pair_id", "judge"))
    shown_first = pl.col("verdict") == pl.when(pl.col("order") == 0).then(
        pl.lit("first")
    ).otherwise(pl.lit("second"))
    pairs = both.group_by("judge", "pair_id").agg(
        (pl.col("verdict").n_unique() > 1).alias("changed")
    )
    shares = (
        both.filter(pl.col("verdict") != "tie")
        .group_by("judge")
        .agg(shown_first.mean().alias("shown_first"))
    )
    counted = pairs.group_by("judge").agg(
        pl.len().cast(pl.Int32).alias("num_pairs"), pl.col("changed").mean()
    )
    judges = comparisons.select("judge").unique()
    return (
        judges.join(counted, on="judge", how="left")
        .join(shares, on="judge", how="left")
        .with_columns(pl.col("num_pairs").fill_null(0))
        .sort("judge")
    )
