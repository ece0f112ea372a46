"""DPO guided by critics on the classroom against DPO by a peer's own scores; Markdown tables.

    .venv/bin/python benchmarks/critics.py          # makes the critics
    .venv/bin/python benchmarks/critic_guided.py [--seeds 0 1 2] [--exams 1 2]

Every peer learns from its own answers alone, three rounds of recipes/classroom-llava-critic.toml.
Finished parts in --out, the folder that critics.py filled, are reused.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

PEERS = ("ada", "ben", "cleo")
PAIRWISE = [
    "rewards=pairwise",
    "judge.rubric=classroom_pairwise",
    "curate={min_chosen_reward = -1000.0, min_margin = 1.0}",
]
VARIANTS: dict[str, list[str]] = {
    "its own scores": [],
    "its critic's scores": [],
    "its critic's comparisons": PAIRWISE,
}
ROUNDS = (0, 1, 2, 3)
# {peer: for each exam, its mean in percent before and after every round}
Scores = dict[str, list[list[float]]]


def members_of(root: Path, variant: str, peer: str, seed: int) -> list[dict[str, Any]]:
    """A learner and its judge, which may be itself."""
    learner = {"name": peer, "model": f"classroom:{peer}", "replay": f"classroom:replay-{peer}"}
    if variant == "its own scores":
        return [learner]
    critic = {
        "name": f"critic-{peer}",
        "model": str(root / f"critic-{peer}-{seed}" / "checkpoint"),
        "answers": False,
        "learns": False,
    }
    return [{**learner, "judges": False}, critic]


def job(root: Path, exams: list[int], variant: str, peer: str, seed: int) -> Scores:
    """Three rounds, and the learners' scores on every exam."""
    import torch

    from peeralign.classroom.demo import draw_exam, in_folder, tables_in, write_classroom
    from peeralign.config import build, override, read_toml
    from peeralign.evals.exam import skill_scores
    from peeralign.panel import Panel
    from peeralign.progress import Reporter
    from peeralign.recipes import llava_critic
    from peeralign.recipes.loop import Loop
    from peeralign.records import EXAM_SCHEMA
    from peeralign.store.run import Run, Stage

    torch.set_num_threads(1)
    name = "-".join(variant.replace("'", "").split())
    folder = root / f"dpo-{name}-{peer}-{seed}"
    changes = [f"seed={seed}", *VARIANTS[variant]]
    settings = override(read_toml(Path("recipes/classroom-llava-critic.toml")), changes)
    settings.pop("recipe")
    settings["exam"].pop("path")
    settings["members"] = members_of(root, variant, peer, seed)
    config = build(llava_critic.Config, in_folder(settings, folder / "inputs"), variant)
    write_classroom(folder / "inputs", tables_in(settings), Reporter(None))
    llava_critic.run(config, folder, Reporter(None))
    run = Run.existing(folder)
    loop = Loop("llava_critic", config, run, Reporter(None))
    learners = Panel(tuple(Panel(config.members).learners))
    scores: Scores = {member.name: [[] for _ in exams] for member in learners.members}
    for place, exam in enumerate(exams):
        for number in ROUNDS:
            out = folder / "exams" / str(exam) / str(number)
            learnt = {name: run.checkpoint(number, name) for name in scores} if number else {}
            there = {name: path for name, path in learnt.items() if path.is_dir()}
            loop.sit(
                draw_exam(exam),
                lambda _, name, out=out: Stage(out / name),
                learners.after(there),
            )
            for name in scores:
                mean = skill_scores(Stage(out / name).read(EXAM_SCHEMA))["mean"]
                scores[name][place].append(100 * mean)
    return scores


def print_tables(
    found: dict[Any, Scores], variants: list[str], seeds: list[int], exams: list[int]
) -> None:
    for place, exam in enumerate(exams):
        print(f"\n| exam {exam}: judged by | before | round 1 | round 2 | round 3 | gain | worst |")
        print("|---|---|---|---|---|---|---|")
        for variant in variants:
            runs = [
                [
                    scores[peer][place]
                    for (name, _, own), scores in found.items()
                    if (name, own) == (variant, seed)
                    for peer in scores
                ]
                for seed in seeds
            ]
            cells = []
            for number in ROUNDS:
                means = [statistics.mean(run[number] for run in own) for own in runs]
                wide = f" ± {statistics.stdev(means):.1f}" if len(means) > 1 and number else ""
                cells.append(f"{statistics.mean(means):.1f}{wide}")
            gains = [run[-1] - run[0] for own in runs for run in own]
            print(
                f"| {variant} | {' | '.join(cells)} | {statistics.mean(gains):+.1f} | "
                f"{min(gains):+.1f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--exams", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("runs/critics"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    root, exams, seeds = options.out.resolve(), options.exams, options.seeds
    jobs = [(variant, peer, seed) for variant in options.only for peer in PEERS for seed in seeds]
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {each: pool.submit(job, root, exams, *each) for each in jobs}
        found = {each: future.result() for each, future in waiting.items()}
    print_tables(found, options.only, seeds, exams)


if __name__ == "__main__":
    main()
