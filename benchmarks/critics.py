"""Critics on the classroom against the peers they were made of, over seeds; prints Markdown tables.

    .venv/bin/python benchmarks/critics.py [--seeds 0 1 2] [--jobs 2] [--exams 1 2]

Every seed trains a critic of each peer on the peers' answers and the exact answers, without the
questions of one category, which the seed decides. Peer and critic are measured on exams that
neither saw, by twelve answerers: the peers at four temperatures. Finished parts in --out are
reused; critic_guided.py goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

PEERS = ("ada", "ben", "cleo")
# The categories of two skills each, by seed.
HELD_OUT = ("General", "Chart & OCR", "Vision-centric", "Knowledge")
# Every peer answers at each of these; 0 is greedy.
TEMPERATURES = (0.0, 0.7, 1.0, 1.3)
# Figures of `peeralign judge-eval`, and what they are called in the tables.
COLUMNS = {
    "pearson": "r",
    "kendall_tau": "τ",
    "by scores": "by scores",
    "accuracy_without_ties": "without ties",
    "accuracy_both_decided": "both decided",
    "accuracy_with_ties": "with ties",
    "order_consistency": "order consistency",
    "coverage_pairs": "coverage",
}


def critic_of(root: Path, peer: str, seed: int) -> Path:
    """The checkpoint of a peer's critic, trained if it is not there."""
    from peeralign.classroom.demo import draw_pool, in_folder, tables_in, write_classroom
    from peeralign.config import build, override, read_toml
    from peeralign.progress import Reporter
    from peeralign.recipes.critic_data import CriticDataConfig, make_critic_data
    from peeralign.recipes.sft import CRITIC, SftConfig, train_on_demonstrations

    quiet = Reporter(None)
    data = root / f"data-{seed}"
    settings = override(read_toml(Path("recipes/sources/classroom.toml")), [f"seed={seed}"])
    counts = draw_pool(0, 900)["category"].value_counts()
    shares = {name: number / 900 for name, number in counts.iter_rows() if name != HELD_OUT[seed]}
    (source,) = settings["sources"]
    source["pool"] = {"path": f"classroom:pool-{100 + seed}", "shares": shares}
    source["answers"] = f"classroom:key-{100 + seed}"
    if not (data / "summary.json").is_file():
        config = build(CriticDataConfig, in_folder(settings, data / "inputs"), "sources")
        write_classroom(data / "inputs", tables_in(settings), quiet)
        make_critic_data(config, data, quiet)
    out = root / f"critic-{peer}-{seed}"
    train = {**CRITIC, **TRAIN, "seed": seed, "replay": f"classroom:replay-{peer}"}
    config = build(SftConfig, in_folder(train, out / "inputs"), "critic")
    write_classroom(out / "inputs", tables_in(train), quiet)
    return train_on_demonstrations(
        f"classroom:{peer}", str(data / "critic.parquet"), out, config, quiet
    )


# As in docs/recipes/critic.md.
TRAIN: dict[str, Any] = {
    "replay_share": 0.5,
    "learning_rate": 5e-4,
    "epochs": 2,
    "adam_beta2": 0.98,
    "warmup_share": 0.05,
    "trackers": [],
}


def answers_of(root: Path, exam: int) -> pl.DataFrame:
    """Every answerer's answer to each exam question: id, model, text."""
    from peeralign.classroom.demo import draw_exam
    from peeralign.engines.opening import open_engine
    from peeralign.panel import Member, Panel
    from peeralign.progress import Reporter
    from peeralign.records import CANDIDATE_SCHEMA
    from peeralign.stages.generate import GenerateConfig, generate
    from peeralign.store.run import Stage

    asked = draw_exam(exam).select("id", "text", "category", "image")
    tables = []
    for peer, temperature in itertools.product(PEERS, TEMPERATURES):
        name = f"{peer}-{temperature:g}"
        stage = Stage(root / "answers" / str(exam) / name)
        config = GenerateConfig(num_draws=1, temperature=temperature, max_new_tokens=8)
        panel = Panel((Member(name=name, model=f"classroom:{peer}"),))
        generate(
            lambda _, stage=stage: stage, asked, panel, config, open_engine, exam, Reporter(None)
        )
        tables.append(stage.read(CANDIDATE_SCHEMA).select("text", id="question_id", model="author"))
    return pl.concat(tables).select("id", "model", "text")


def judged(root: Path, exam: int, judge: str, checkpoint: str) -> dict[str, list[dict[str, Any]]]:
    """A judge's scores and comparisons of all answers, as rows of `peeralign judge-eval`."""
    from peeralign.classroom.demo import draw_exam
    from peeralign.engines.opening import open_engine
    from peeralign.panel import Member, Panel
    from peeralign.progress import Reporter
    from peeralign.records import COMPARISON_SCHEMA, JUDGMENT_SCHEMA, normalise_answer
    from peeralign.stages.compare import compare
    from peeralign.stages.generate import answer_id
    from peeralign.stages.judge import JudgeConfig
    from peeralign.stages.judge import judge as grade
    from peeralign.stages.preference_rewards import all_pairs
    from peeralign.store.run import Stage

    questions = draw_exam(exam)
    given = answers_of(root, exam).drop_nulls("text")
    ids = [answer_id(*row) for row in given.select("id", "text").iter_rows()]
    given = given.with_columns(pl.Series("answer_id", ids))
    distinct = given.sort("id", "answer_id", "model").unique("answer_id", maintain_order=True)
    answers = distinct.select(
        "answer_id", "text", question_id="id", authors=pl.concat_list("model")
    )
    panel = Panel((Member(name=judge, model=checkpoint),))
    shared = (open_engine, 0, Reporter(None))
    place = root / "judged" / str(exam) / judge
    asked = questions.select("id", "text", "category", "image")
    scores = JudgeConfig(rubric="classroom", readout="expected")
    grade(lambda _: Stage(place / "scores"), asked, answers, panel, scores, *shared)
    compared = JudgeConfig(rubric="classroom_pairwise", readout="greedy")
    pairs = all_pairs(answers)
    compare(lambda _: Stage(place / "pairs"), asked, pairs, panel, compared, *shared)
    right = {
        (row["id"], normalise_answer(row["answer"])): row["skill"]
        for row in questions.iter_rows(named=True)
    }
    skill = dict(questions.select("id", "skill").iter_rows())
    is_right = {
        name: float((question, normalise_answer(text)) in right)
        for question, name, text in given.select("id", "answer_id", "text").iter_rows()
    }
    score_of = dict(
        Stage(place / "scores").read(JUDGMENT_SCHEMA).select("answer_id", "score").iter_rows()
    )
    author = dict(distinct.select("answer_id", "model").iter_rows())
    rows = [
        {"item": question, "set": skill[question], "model": model,
         "score": score_of[name], "reference": is_right[name]}
        for question, model, name in given.select("id", "model", "answer_id").iter_rows()
    ]  # fmt: skip
    verdicts = [
        _pair_row(row, skill, author, is_right)
        for row in Stage(place / "pairs").read(COMPARISON_SCHEMA).iter_rows(named=True)
    ]
    by_scores = [_by_score(row, score_of) for row in verdicts]
    return {"scores": rows, "pairs": verdicts, "pairs by scores": by_scores}


def _pair_row(
    row: dict[str, Any], skill: dict[str, str], author: dict[str, str], right: dict[str, float]
) -> dict[str, Any]:
    """A comparison with the answers in the order in which they were shown."""
    shown = (row["first_id"], row["second_id"])
    letters = {"first": "A", "second": "B", "tie": "tie", None: None}
    if row["order"]:
        shown, letters = shown[::-1], {**letters, "first": "B", "second": "A"}
    lead = right[shown[0]] - right[shown[1]]
    question = row["question_id"]
    return {
        "item": question,
        "set": skill[question],
        "model_a": author[shown[0]],
        "model_b": author[shown[1]],
        "answer_a": shown[0],
        "answer_b": shown[1],
        "verdict": letters[row["verdict"]],
        "reference": "A" if lead > 0 else "B" if lead < 0 else "tie",
    }


def _by_score(row: dict[str, Any], score_of: dict[str, float | None]) -> dict[str, Any]:
    """The verdict that two scores give."""
    one, other = score_of[row["answer_a"]], score_of[row["answer_b"]]
    if one is None or other is None:
        return {**row, "verdict": None}
    return {**row, "verdict": "A" if one > other else "B" if other > one else "tie"}


def measure(root: Path, exam: int, judge: str, checkpoint: str) -> dict[str, Any]:
    """{"taught" or "held out" or a skill: figures}, of one judge; held-out skills are per seed."""
    from peeralign.classroom.skills import SKILLS
    from peeralign.evals.judge_eval import judge_eval
    from peeralign.store.verdicts import read_pairs, read_scores

    path = root / "judged" / str(exam) / f"{judge}.json"
    if path.is_file():
        return json.loads(path.read_text())
    rows = judged(root, exam, judge, checkpoint)
    figures = {}
    for category in dict.fromkeys(skill.category for skill in SKILLS.values()):
        skills = {name for name, skill in SKILLS.items() if skill.category == category}
        tables = {}
        for kind, entries in rows.items():
            file = root / "judged" / str(exam) / f"{judge}-{kind}.jsonl"
            kept = [entry for entry in entries if entry["set"] in skills]
            file.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
            tables[kind] = (read_scores if kind == "scores" else read_pairs)(file)
        own = judge_eval(tables["scores"], tables["pairs"], resamples=2)
        by_scores = judge_eval(None, tables["pairs by scores"], resamples=2)
        found = {name: own[name] for name in COLUMNS if name in own}
        found["by scores"] = by_scores["accuracy_without_ties"]
        figures[category] = found
    path.write_text(json.dumps(figures))
    return figures


def critic_job(root: Path, exams: list[int], peer: str, seed: int | None) -> list[dict[str, Any]]:
    """A critic (seed None: the peer itself), measured on every exam."""
    import torch

    torch.set_num_threads(1)
    name = peer if seed is None else f"{peer}-critic-{seed}"
    checkpoint = f"classroom:{peer}" if seed is None else str(critic_of(root, peer, seed))
    return [measure(root, exam, name, checkpoint) for exam in exams]


def print_judges(found: dict[Any, Any], seeds: list[int], exams: list[int]) -> None:
    """A table for each exam: judges before and after, on taught and on held-out skills."""
    for place, exam in enumerate(exams):
        print(f"\n| exam {exam} | {' | '.join(COLUMNS.values())} |\n|---|{'---|' * len(COLUMNS)}")
        for is_held_out in (False, True):
            where = "held out" if is_held_out else "taught"
            cells: dict[str, list[str]] = {"peers": [], "critics": [], "better": []}
            for name in COLUMNS:
                # Of each seed, of each peer: before and after.
                values = [
                    [
                        [
                            _mean(found["critic", peer, judge][place], name, seed, is_held_out)
                            for judge in (None, seed)
                        ]
                        for peer in PEERS
                    ]
                    for seed in seeds
                ]
                for number, who in enumerate(("peers", "critics")):
                    cells[who].append(_spread([[pair[number] for pair in own] for own in values]))
                both = [
                    (before, after)
                    for own in values
                    for before, after in own
                    if before is not None and after is not None
                ]
                wins = sum(after > before for before, after in both)
                cells["better"].append(f"{wins} of {len(both)}" if both else "")
            for who, row in cells.items():
                print(f"| {who}, {where} | {' | '.join(row)} |")


def _mean(figures: dict[str, Any], name: str, seed: int, is_held_out: bool) -> float | None:
    """Over the categories that are, or are not, the seed's held-out one."""
    values = [
        entry[name]
        for category, entry in figures.items()
        if (category == HELD_OUT[seed]) is is_held_out and entry[name] is not None
    ]
    return statistics.mean(values) if values else None


def _spread(values: list[list[float | None]]) -> str:
    """The mean over peers, then over seeds, ± the seeds' standard deviation."""
    known = [[value for value in own if value is not None] for own in values]
    means = [statistics.mean(own) for own in known if own]
    if not means:
        return "none"
    wide = f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else ""
    return f"{statistics.mean(means):.3f}{wide}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--exams", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/critics"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    root, exams, seeds = options.out.resolve(), options.exams, options.seeds
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        # All judges judge the same answers.
        for exam in exams:
            pool.submit(answers_of, root, exam).result()
        # The first critic of a seed makes the seed's data.
        first = [("critic", PEERS[0], seed) for seed in seeds]
        rest = [("critic", peer, seed) for peer in PEERS[1:] for seed in seeds]
        base = [("critic", peer, None) for peer in PEERS]
        found: dict[Any, Any] = {}
        for jobs in (first, [*rest, *base]):
            waiting = {job: pool.submit(critic_job, root, exams, job[1], job[2]) for job in jobs}
            found.update({job: future.result() for job, future in waiting.items()})
    print_judges(found, seeds, exams)


if __name__ == "__main__":
    main()
