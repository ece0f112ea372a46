"""Panel of Peers on the classroom against its controls, over seeds; prints a Markdown table.

    .venv/bin/python benchmarks/pop_controls.py [--seeds 0 1 2] [--jobs 2] [--only pop sft ...]

Every run is a `peeralign demo` of its own, on one thread; finished runs in --out are reused, and
interrupted ones go on. `pop` is also examined on a second exam, drawn with another seed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PEERS = ("ada", "ben", "cleo")
# The stabilisers of the demo's recipe, and what switches each off.
STABILISERS = {
    "without NLL": ["train.nll_weight=0"],
    "without replay": ["train.replay_share=0"],
    "without ties by frequency": ["curate.tie_tolerance=0"],
    "without earlier rounds' pairs": ["train.keep_pairs=false"],
}
VARIANTS: dict[str, list[str]] = {
    "pop": [],
    # Means of three random scores hardly ever reach the thresholds, so these are replaced by the
    # number of pairs that the panel gives.
    "random rewards": [
        "judge.readout=random",
        "curate.min_chosen_reward=0",
        "curate.min_margin=0",
        "curate.max_pairs=540",
    ],
    "each judges itself": [],
    "SFT on the chosen": ["train.objective=sft"],
    "pure SimPO": [setting for settings in STABILISERS.values() for setting in settings],
    **STABILISERS,
}
SECOND_EXAM_SEED = 2


def demo(out: Path, seed: int, settings: list[str]) -> dict:
    summary = out / "summary.json"
    if not summary.is_file() or len(json.loads(summary.read_text())["rounds"]) < 4:
        command = [sys.executable, "-m", "peeralign.cli", "demo", "--seed", str(seed)]
        command += ["--out", str(out)]
        for setting in settings:
            command += ["--set", setting]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return json.loads(summary.read_text())


def member_means(root: Path, variant: str, seed: int) -> list[dict[str, float]]:
    """Per round, each member's mean exam score."""
    name = variant.replace(" ", "-").replace("'", "")
    if variant != "each judges itself":
        summaries = [demo(root / f"{name}-{seed}", seed, VARIANTS[variant])]
    else:
        summaries = []
        for peer in PEERS:
            others = [other for other in PEERS if other != peer]
            settings: list[str] = []
            for index, member in enumerate(PEERS):
                if member in others:
                    settings += [
                        f"members.{index}.{role}=false" for role in ("answers", "judges", "learns")
                    ]
            summaries.append(demo(root / f"{name}-{peer}-{seed}", seed, settings))
    rounds = []
    for number in range(len(summaries[0]["rounds"])):
        means = {}
        for index, summary in enumerate(summaries):
            members = summary["rounds"][number]["members"]
            wanted = PEERS if len(summaries) == 1 else [PEERS[index]]
            means |= {member: members[member]["mean"] for member in wanted}
        rounds.append(means)
    return rounds


def row(variant: str, runs: list[list[dict[str, float]]]) -> str:
    panel = [[100 * statistics.mean(means.values()) for means in run] for run in runs]
    cells = []
    for scores in zip(*panel, strict=True):
        spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
        cells.append(f"{statistics.mean(scores):.1f}{spread}")
    gains = [run[-1] - run[0] for run in panel]
    worst = min(100 * (run[-1][m] - run[0][m]) for run in runs for m in PEERS)
    return f"| {variant} | {' | '.join(cells)} | {statistics.mean(gains):+.1f} | {worst:+.1f} |"


def second_exam(root: Path, seeds: list[int]) -> list[list[dict[str, float]]]:
    exam = root / f"exam-{SECOND_EXAM_SEED}.parquet"
    base = [sys.executable, "-m", "peeralign.cli"]
    seed = str(SECOND_EXAM_SEED)
    subprocess.run([*base, "classroom", "exam", "--out", str(exam), "--seed", seed], check=True)
    runs = []
    for seed_of_run in seeds:
        command = [*base, "exam", str(root / f"pop-{seed_of_run}"), str(exam), "--json"]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rounds = json.loads(printed.strip().splitlines()[-1])["rounds"]
        runs.append([{m: e["mean"] for m, e in r["members"].items()} for r in rounds])
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("runs/pop-controls"))
    options = parser.parse_args()
    jobs = [(variant, seed) for variant in options.only for seed in options.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = dict(
            zip(jobs, pool.map(lambda job: member_means(options.out, *job), jobs), strict=True)
        )
    print("| | round 0 | round 1 | round 2 | round 3 | gain | worst member |")
    print("|---|---|---|---|---|---|---|")
    for variant in options.only:
        print(row(variant, [found[variant, seed] for seed in options.seeds]))
    if "pop" in options.only:
        print(row("pop, second exam", second_exam(options.out, options.seeds)))


if __name__ == "__main__":
    main()
