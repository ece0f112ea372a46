"""Peak memory of the local engine beside the weights, by number of draws, pool and setting.

    .venv/bin/python benchmarks/engine_memory.py [--device cpu] [--size small]

Every cell is a process of its own: the model is loaded, the peak is reset, then all questions are
answered (N draws of 60 tokens) and N answers each are graded. On the CPU the peak is the resident
set (Linux), on CUDA what torch allocated. A bounded engine stays below the setting, whatever N.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from engine_model import answers_for, build, questions

from peeralign.engines.base import AnswerRequest, JudgeRequest, Sampling
from peeralign.engines.local import LocalEngine
from peeralign.judging.rubric import load_rubric

DRAWS = (5, 15, 60)
SETTINGS_GIB = (0.25, 1.0)
POOLS = (1, 4)


def resident_mib(field: str) -> float:
    """A line of /proc/self/status in MiB: VmRSS is now, VmHWM the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def measure(folder: str, device: str, memory_gib: float, draws: int, pool: int) -> float:
    """Peak MiB above the loaded model."""
    engine = LocalEngine(folder, device, memory_gib=memory_gib, min_label_mass=0.0)
    rubric = load_rubric("five_axis")
    asked, graded = [], []
    for number, (image, text) in enumerate(questions(pool)):
        asked.append(AnswerRequest(image, text, tuple(range(draws))))
        texts = tuple(rubric.fill(text, answers_for(number, draws)))
        graded.append(JudgeRequest(image, texts, rubric.form()))
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")
        before = resident_mib("VmRSS")
    engine.answer(asked, Sampling(draws, 1.0, 1.0, 60))
    verdicts = engine.judge(graded, "expected")
    assert all(verdict.axes for row in verdicts for verdict in row)
    if engine.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20 - before
    return resident_mib("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="small", choices=["small", "llava-7b"])
    parser.add_argument("--cell", nargs=4, metavar=("FOLDER", "GIB", "N", "POOL"))
    args = parser.parse_args()
    if args.cell:
        folder, gib, draws, pool = args.cell
        print(measure(folder, args.device, float(gib), int(draws), int(pool)))
        return
    torch.manual_seed(0)
    print("| memory_gib | questions | " + " | ".join(f"N = {n}" for n in DRAWS) + " |")
    print("|---|---|" + "---|" * len(DRAWS), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), args.size)
        for gib in SETTINGS_GIB:
            for pool in POOLS:
                cells = []
                for draws in DRAWS:
                    cell = [folder, str(gib), str(draws), str(pool)]
                    command = [sys.executable, __file__, "--device", args.device, "--cell", *cell]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    cells.append(f"{float(done.stdout.split()[-1]):.0f} MiB")
                print(f"| {gib} | {pool} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
