"""The panel as an answerer on the classroom (Panel of Peers, Figure 3); prints Markdown tables.

    .venv/bin/python benchmarks/panel_answers.py [--seeds 0 1 2] [--exams 1 2]
    .venv/bin/python benchmarks/pop_controls.py --only pop           # trains panels, for:
    .venv/bin/python benchmarks/panel_answers.py --trained runs/pop-controls

Every peer answers the exam greedily and with 15 draws, every peer judges every distinct answer, and
all rows of a table choose among these answers by these verdicts. Finished parts in --out are
reused. One thread.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from peeralign.classroom.demo import draw_exam
from peeralign.engines.base import Engine
from peeralign.engines.opening import open_engine
from peeralign.evals.exam import exact_match
from peeralign.panel import Member, Panel
from peeralign.progress import Reporter
from peeralign.recipes.answer import (
    AnswerConfig,
    best_answers,
    panel_answers,
    panel_from,
    weighed_answers,
)
from peeralign.records import CANDIDATE_SCHEMA
from peeralign.store.run import Stage

PEERS = ("ada", "ben", "cleo")
JUDGE = {"rubric": "classroom", "readout": "expected"}
# Chosen on exams 5 and 6 (docs/log.md).
GREEDY = {"sampler": "greedy", "max_new_tokens": 8}
DRAWS = {"num_draws": 15, "temperature": 0.7, "max_new_tokens": 8}
RESAMPLES = 10_000
# {row of the table: whether each exam item is right (1, 0, or the mean of three members)}
Rows = dict[str, np.ndarray]


class Answers:
    """A panel's answers to one exam and the verdicts on them, and ways to choose among these."""

    def __init__(
        self, folder: Path, exam: int, panel: Panel, generate: dict[str, Any], seed: int
    ) -> None:
        self.folder, self.panel, self.seed = folder, panel, seed
        self.exam = draw_exam(exam)
        self.config = AnswerConfig.model_validate({"generate": generate, "judge": JUDGE})

        def engine(member: Member) -> Engine:
            return open_engine(member, self.config.judge.min_label_mass)

        shared = (self.exam, panel, self.config, engine, seed, Reporter())
        self.best = panel_answers(self.stage, *shared)

    def stage(self, name: str, who: str) -> Stage:
        return Stage(self.folder / name / who)

    def candidates(self, authors: tuple[str, ...]) -> pl.DataFrame:
        return pl.concat(
            [self.stage("candidates", name).read(CANDIDATE_SCHEMA) for name in authors]
        )

    def chosen(
        self,
        authors: tuple[str, ...],
        judges: tuple[str, ...],
        first_draws: int = 15,
        who: str = "all",
        **choice: Any,
    ) -> np.ndarray:
        """Whether the best of the authors' first draws is right, by these judges; by none: a vote.

        Verdicts on an answer do not depend on the others, so those of the whole panel serve.
        `choice` is of AnswerConfig.
        """
        candidates = self.candidates(authors).filter(pl.col("draw") < first_draws)
        panel = Panel(
            tuple(
                m.model_copy(update={"answers": m.name in authors, "judges": m.name in judges})
                for m in self.panel.members
            )
        )
        judge = self.config.judge.model_copy(update={"judges": who})
        config = self.config.model_copy(update={"judge": judge, **choice})
        weighed = weighed_answers(self.stage, self.exam, panel, config)
        drawn = candidates.group_by("answer_id").agg(pl.len().cast(pl.Int32).alias("num_draws"))
        weighed = weighed.drop("num_draws").join(drawn, on="answer_id", maintain_order="left")
        return self.right(best_answers(self.exam, candidates, weighed, config, self.seed))

    def right(self, answers: pl.DataFrame) -> np.ndarray:
        """1 or 0 for each item of the exam."""
        text_of = dict(answers.select("question_id", "text").iter_rows())
        rows = self.exam.select("id", "answer").iter_rows()
        return np.array([exact_match(text_of[name], answer) for name, answer in rows])

    def first_draws(self) -> np.ndarray:
        """The mean over members of their first draw, item by item."""
        tables = [self.candidates((name,)).filter(pl.col("draw") == 0) for name in PEERS]
        return np.mean([self.right(table) for table in tables], axis=0)

    def any_right(self) -> np.ndarray:
        """Whether any draw of any member is right."""
        answer_of = dict(self.exam.select("id", "answer").iter_rows())
        found = {
            name
            for name, text in self.candidates(PEERS).select("question_id", "text").iter_rows()
            if exact_match(text, answer_of[name])
        }
        return np.array([float(name in found) for name in answer_of])


def rows_of(greedy: Answers, drawn: Answers) -> Rows:
    """What the table compares."""
    alone = [greedy.right(greedy.candidates((name,))) for name in PEERS]

    def mean(judges_of: Any, **choice: Any) -> np.ndarray:
        own = [drawn.chosen((name,), judges_of(name), **choice) for name in PEERS]
        return np.mean(own, axis=0)

    return {
        "average single member, greedy": np.mean(alone, axis=0),
        "average single member, one draw": drawn.first_draws(),
        "best single member, greedy": max(alone, key=np.mean),
        "**panel, N = 1, greedy**": greedy.right(greedy.best),
        "**panel, N = 1, one draw**": drawn.chosen(PEERS, PEERS, first_draws=1),
        "**panel, N = 15**": drawn.right(drawn.best),
        "panel, N = 15, nobody judges its own": drawn.chosen(PEERS, PEERS, who="others"),
        "panel, N = 15, ties within 0.05": drawn.chosen(PEERS, PEERS, tie_tolerance=0.05),
        "panel, N = 1, greedy, weighted": greedy.chosen(PEERS, PEERS, choose="weighted"),
        "panel, N = 15, weighted": drawn.chosen(PEERS, PEERS, choose="weighted"),
        "best of 15 of one, judged by itself": mean(lambda name: (name,)),
        "best of 15 of one, judged by the panel": mean(lambda name: PEERS),
        "the same, weighted": mean(lambda name: PEERS, choose="weighted"),
        "vote of one's 15": mean(lambda name: ()),
        "vote of the panel, N = 1, greedy": greedy.chosen(PEERS, ()),
        "vote of the panel, N = 15": drawn.chosen(PEERS, ()),
        "any answer right, N = 1, greedy": greedy.any_right(),
        "any answer right, N = 15": drawn.any_right(),
    }


def interval(difference: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean over items, from resampling the items."""
    rng = np.random.default_rng(0)
    places = rng.integers(len(difference), size=(RESAMPLES, len(difference)))
    low, high = np.percentile(difference[places].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def print_table(exam: int, rows: list[Rows]) -> None:
    """Per row: the seeds' scores, their mean and spread, and the gain on the average member."""
    names = list(rows[0])
    seeds = " | ".join(f"seed {number}" for number in range(len(rows)))
    print(f"\n| exam {exam} | {seeds} | mean | over average single |")
    print(f"|---|{'---|' * (len(rows) + 2)}")
    base = names[0]
    for name in names:
        scores = [100 * float(np.mean(own[name])) for own in rows]
        wide = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        gain = ""
        if name != base:
            # One item's mean over the seeds, so that resampled items keep their seeds together.
            over = 100 * np.mean([own[name] - own[base] for own in rows], axis=0)
            low, high = interval(over)
            gain = f"{float(np.mean(over)):+.1f} ({low:+.1f} to {high:+.1f})"
        cells = " | ".join(f"{score:.1f}" for score in scores)
        print(f"| {name} | {cells} | {statistics.mean(scores):.1f}{wide} | {gain} |")


def print_skills(exam: int, rows: list[Rows]) -> None:
    """Means over seeds by skill."""
    skills = draw_exam(exam)["skill"]
    names = list(dict.fromkeys(skills))
    print(f"\n| exam {exam} | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for row in rows[0]:
        right = np.mean([own[row] for own in rows], axis=0)
        cells = [
            f"{100 * float(np.mean(right[(skills == name).to_numpy()])):.0f}" for name in names
        ]
        print(f"| {row} | {' | '.join(cells)} |")


def panel_of(trained: Path | None, seed: int) -> Panel:
    """The shipped peers; or the members after the last round of a run of that seed."""
    if trained:
        return panel_from(trained / f"pop-{seed}")[0]
    return Panel(tuple(Member(name=name, model=f"classroom:{name}") for name in PEERS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--exams", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trained", type=Path, help="Folder of the runs pop-SEED.")
    parser.add_argument("--out", type=Path, default=Path("runs/panel-answers"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    for exam in options.exams:
        rows = []
        for seed in options.seeds:
            panel = panel_of(options.trained, seed)
            place = options.out / ("trained" if options.trained else "base")
            # The shipped peers' greedy answers are the same under all seeds.
            greedy = f"greedy-{exam}-{seed}" if options.trained else f"greedy-{exam}"
            answers = functools.partial(Answers, exam=exam, panel=panel, seed=seed)
            drawn = answers(place / f"drawn-{exam}-{seed}", generate=DRAWS)
            rows.append(rows_of(answers(place / greedy, generate=GREEDY), drawn))
        print_table(exam, rows)
        print_skills(exam, rows)


if __name__ == "__main__":
    main()
