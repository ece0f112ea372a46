"""Judge a published set, of which people said what they think, and measure the judge by it.

    OUT/manifest.json                                 settings and what was judged
    OUT/round-1/judgments/JUDGE/part-*.parquet        verdicts; comparisons/ for pairs
    OUT/round-1/judgments-black/JUDGE/part-*.parquet  the same of black images, if asked for
    OUT/scores.jsonl, pairs.jsonl or rankings.jsonl   verdicts beside what people said
    OUT/figures.json                                  how far they agree (docs/judge_eval.md)
    OUT/set-aside.jsonl  OUT/summary.json             rows that could not be judged; counts

The same call again resumes; with black images, after one without, it goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from peeralign.distributed import meet, on_main
from peeralign.errors import PeeralignError
from peeralign.evals.elo import RESAMPLES
from peeralign.evals.judge_eval import judge_eval
from peeralign.judging.rubric import Rubric
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes.judges import GradeConfig, ask, begin, judging_panel, stage_of
from peeralign.records import COMPARISON_SCHEMA, JUDGMENT_SCHEMA, make_id, seed_of
from peeralign.stages.generate import answer_id
from peeralign.stages.judge import ONE_BY_ONE, read_rubric
from peeralign.store.judgement_sets import (
    REFERENCES,
    in_both_orders,
    read_judgement_set,
    verdict_rows,
)
from peeralign.store.preferences import reason_counts
from peeralign.store.run import Run, write_json, write_whole
from peeralign.store.verdicts import read_pairs, read_rankings, read_scores

Said = dict[str, Any]
_POINTS = {"first": 1.0, "tie": 0.5, "second": 0.0}


class _Kind(NamedTuple):
    """What people said in a file, the rubrics that ask a judge the same, and the file written."""

    holds: str
    rubrics: tuple[str, ...]
    plural: str
    read: Callable[[Path], pl.DataFrame]


_KINDS = {
    "score": _Kind("scores of single answers", ("absolute",), "scores", read_scores),
    "verdict": _Kind("verdicts on pairs of answers", ("pairwise",), "pairs", read_pairs),
    "ranking": _Kind("rankings of answers", ("ranking", "relative"), "rankings", read_rankings),
}


class _Set(NamedTuple):
    """A published set's usable rows with the id of the question each is asked as, and the rest."""

    rows: pl.DataFrame
    kind: str
    set_aside: pl.DataFrame
    digest: str


def judge_set(
    data: str,
    judges: Sequence[Member],
    out: Path,
    config: GradeConfig,
    reporter: Reporter,
    black_image: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let `judges` judge the rows of `data`; what `judge_eval` says of it, and a summary.

    With `black_image` everything is judged a second time, each image replaced by a black one of
    its size. `seed` and `resamples` are those of the intervals. The summary has rows, verdicts,
    unscored, unread (reasons of verdicts that could not be read, with counts), set_aside, reasons,
    tied (rankings in which answers were worth the same) and file (of the verdicts).

    Raises PeeralignError for settings, files, judges or folders that cannot be used.
    """
    panel = judging_panel(judges, config)
    rubric = read_rubric(config.judge, (*ONE_BY_ONE, "pairwise"))
    Run.check_usable(out)
    with meet(out):
        reporter.say(f"checking the rows and images of {data}")
        given = _read(data, config)
        kind = _KINDS[given.kind]
        if rubric.kind not in kind.rubrics:
            raise PeeralignError(
                f"{data} holds {kind.holds}, and rubric '{config.judge.rubric}' is {rubric.kind}; "
                f"give --rubric one that is {' or '.join(kind.rubrics)}"
            )
        begun = (panel, config, rubric, given.set_aside)
        on_main("beginning", lambda: begin(out, "judge-eval", data, given.digest, *begun))
        state = Run(out)
        _ask(given, state, panel, config, rubric, reporter)
        if black_image:
            reporter.say("the same with black images")
            _ask(given, state, panel, config, rubric, reporter, is_blind=True)

        def finish() -> list[dict[str, Any]]:
            summary = _write_verdicts(given, state, panel, config, rubric, black_image)
            table = kind.read(out / f"{kind.plural}.jsonl")
            figures = judge_eval(**{kind.plural: table}, seed=seed, resamples=resamples)
            write_json(out / "figures.json", figures)
            write_json(out / "summary.json", summary)
            return [figures, summary]

        figures, summary = on_main("figures", finish)
        return figures, summary


def _read(data: str, config: GradeConfig) -> _Set:
    root = config.image_root
    table, set_aside = read_judgement_set(data, root, True, config.max_image_pixels)
    kind = next(name for name in REFERENCES if table[name].null_count() < len(table))
    # Neither order of such a pair can be told from the other, nor can a verdict be right.
    models, answers = pl.col("models"), pl.col("answers")
    is_twin = (models.list.n_unique() == 1) & (answers.list.n_unique() == 1)
    twins = table.filter(is_twin if kind == "verdict" else pl.lit(False))
    why = pl.lit("two equal answers of one model").alias("reason")
    set_aside = pl.concat([set_aside, twins.select("id", why)])
    table = table.filter(~pl.col("id").is_in(twins["id"].to_list()))
    if table.is_empty():
        raise PeeralignError(f"{data} holds no usable row: all are of two equal answers")
    folder = os.path.realpath(Path(root).expanduser() if root else Path(data).expanduser().parent)
    keys = [_key(image, folder) for image in table["image"].to_list()]
    if kind == "ranking":
        # One call shows a row's answers, and those of no other row of the same question.
        asked = [make_id("ranked", own_id) for own_id in table["id"]]
    else:
        asked = [make_id("asked", *row) for row in zip(table["question"], keys, strict=True)]
    content = table.drop("image").with_columns(pl.Series("key", keys)).rows()
    return _Set(
        table.with_columns(pl.Series("question_id", asked)), kind, set_aside, make_id(repr(content))
    )


def _key(image: dict[str, Any], folder: str) -> str:
    """What names an image: its path inside the folder, or its hash."""
    if image["bytes"]:
        return hashlib.sha256(image["bytes"]).hexdigest()
    return os.path.relpath(image["path"], folder)


def _ask(
    given: _Set,
    state: Run,
    panel: Panel,
    config: GradeConfig,
    rubric: Rubric,
    reporter: Reporter,
    is_blind: bool = False,
) -> None:
    questions = given.rows.select(
        "image", id="question_id", text="question", category="set"
    ).unique("id", keep="first", maintain_order=True)
    about = _pairs(given.rows) if given.kind == "verdict" else _answers(given.rows)
    ask(state, questions, about, panel, config, rubric, reporter, is_blind)


def _ids(row: dict[str, Any]) -> list[str]:
    return [answer_id(row["question_id"], text) for text in row["answers"]]


def _answers(rows: pl.DataFrame) -> pl.DataFrame:
    """The distinct answers, as `judge` takes them."""
    found = [
        (row["question_id"], own_id, text, [])
        for row in rows.iter_rows(named=True)
        for own_id, text in zip(_ids(row), row["answers"], strict=True)
    ]
    names = ("question_id", "answer_id", "text")
    schema = dict.fromkeys(names, pl.String) | {"authors": pl.List(pl.String)}
    table = pl.DataFrame(found, schema=schema, orient="row")
    return table.unique("answer_id", keep="first", maintain_order=True)


def _pairs(rows: pl.DataFrame) -> pl.DataFrame:
    """The distinct pairs, as `compare` takes them."""
    found = [
        (row["question_id"], *_ids(row), *row["answers"]) for row in rows.iter_rows(named=True)
    ]
    names = ("question_id", "first_id", "second_id", "first", "second")
    table = pl.DataFrame(found, schema=dict.fromkeys(names, pl.String), orient="row")
    return table.unique(["first_id", "second_id"], keep="first", maintain_order=True)


def _write_verdicts(
    given: _Set, state: Run, panel: Panel, config: GradeConfig, rubric: Rubric, black_image: bool
) -> dict[str, Any]:
    """Write the file of verdicts; the summary."""
    schema = COMPARISON_SCHEMA if given.kind == "verdict" else JUDGMENT_SCHEMA
    verdicts = [
        state.table(1, stage_of(rubric, is_blind), schema).sort("judge")
        for is_blind in ((False, True) if black_image else (False,))
    ]
    worth = [_worth(given, table) for table in verdicts]
    rows = given.rows
    if given.kind == "verdict" and config.judge.orders == "both":
        rows = in_both_orders(rows)
    said = [_said(given, found, config.seed) for found in worth]
    lines = verdict_rows(rows.drop("question_id"), *said)
    if given.kind == "ranking":
        for line, own_id in zip(lines, rows["id"], strict=True):
            line["worth"] = worth[0].get(own_id)
    if len(panel.members) == 1:
        lines = [{**line, "judge": panel.members[0].name} for line in lines]
    file = state.folder / f"{_KINDS[given.kind].plural}.jsonl"
    write_whole(file, "".join(json.dumps(line) + "\n" for line in lines).encode())
    lists = worth[0].values() if given.kind == "ranking" else ()
    return {
        "rows": len(given.rows),
        "verdicts": len(lines),
        "unscored": sum(line[given.kind] is None for line in lines),
        "unread": reason_counts(verdicts[0].drop_nulls("reason")),
        "set_aside": len(given.set_aside),
        "reasons": reason_counts(given.set_aside),
        "tied": sum(len(set(worths)) < len(worths) for worths in lists),
        "file": str(file),
    }


def _worth(given: _Set, verdicts: pl.DataFrame) -> Said:
    """What the panel gave each row: a score, points for what was shown first, or a list of worths.

    Each is the mean over the judges that said something, and absent if none did.
    """
    return {"score": _scores, "verdict": _verdicts, "ranking": _worths}[given.kind](
        given.rows, verdicts
    )


def _scores(rows: pl.DataFrame, judgments: pl.DataFrame) -> Said:
    """On the rubric's scale, the mean of its axes."""
    by_answer = judgments.group_by("answer_id").agg(pl.col("axes").list.mean().mean())
    points = dict(by_answer.iter_rows())
    return {row["id"]: points[_ids(row)[0]] for row in rows.iter_rows(named=True)}


def _verdicts(rows: pl.DataFrame, comparisons: pl.DataFrame) -> Said:
    """Each order by itself: whether the answer that stood first wins, 1, 0.5 or 0."""
    points = pl.col("verdict").replace_strict(_POINTS, return_dtype=pl.Float64)
    mine = pl.when(pl.col("order") == 0).then(points).otherwise(1 - points)
    by_order = comparisons.group_by("first_id", "second_id", "order").agg(mine.mean())
    found = {(first, second, order): value for first, second, order, value in by_order.iter_rows()}
    said = {}
    for row in rows.iter_rows(named=True):
        first, second = _ids(row)
        for order, suffix in enumerate(("", "/swapped")):
            said[row["id"] + suffix] = found.get((first, second, order))
    return said


def _worths(rows: pl.DataFrame, judgments: pl.DataFrame) -> Said:
    """A list for each row, over the judges that gave all of its answers a worth."""
    given = judgments.select("judge", "answer_id", "score").iter_rows()
    found: dict[str, dict[str, float | None]] = {}
    for judge, own_id, score in given:
        found.setdefault(judge, {})[own_id] = score
    said = {}
    for row in rows.iter_rows(named=True):
        lists = [[scores.get(own_id) for own_id in _ids(row)] for scores in found.values()]
        whole = [worths for worths in lists if None not in worths]
        if whole:
            # Rounded, since equal worths must stay equal.
            said[row["id"]] = np.mean(np.array(whole, float), axis=0).round(9).tolist()
    return said


def _said(given: _Set, worth: Said, seed: int) -> Said:
    """The verdicts as the files of `peeralign judge-eval` have them."""
    if given.kind == "score":
        return worth
    if given.kind == "verdict":
        return {own_id: _letter(points) for own_id, points in worth.items()}
    return {
        row["id"]: _best_first(row["models"], worth[row["id"]], seed_of("tied", seed, row["id"]))
        for row in given.rows.select("id", "models").iter_rows(named=True)
        if row["id"] in worth
    }


def _letter(points: float | None) -> str | None:
    if points is None:
        return None
    # Rounding must not make a winner of a tie.
    lead = round(points - 0.5, 9)
    return "A" if lead > 0 else "B" if lead < 0 else "tie"


def _best_first(models: list[str], worths: list[float], seed: int) -> list[str]:
    """Equal ones in an order that is drawn: the file's may be no accident."""
    drawn = np.random.default_rng(seed).permutation(len(models)).tolist()
    order = sorted(range(len(models)), key=lambda place: (-worths[place], drawn[place]))
    return [models[place] for place in order]
