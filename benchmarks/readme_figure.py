"""The README's picture: what the classroom asks, and how the panel's scores rise.

    .venv/bin/python benchmarks/readme_figure.py runs/pop-controls/pop-0 runs/pop-controls/pop-1 ...

Every figure is read from the summaries of the given runs.
"""

from __future__ import annotations

import io
import json
import sys
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from peeralign.classroom.skills import draw_item
from peeralign.classroom.world import render

OUT = Path("docs/images/classroom.png")
SHOWN = ("colour", "arithmetic", "chart", "relation")
COLOURS = {"ada": "#0072b2", "ben": "#d55e00", "cleo": "#009e73"}


def main(folders: list[str]) -> None:
    runs = [json.loads((Path(f) / "summary.json").read_text())["rounds"] for f in folders]
    figure = plt.figure(figsize=(10, 3.9), dpi=150)
    grid = figure.add_gridspec(2, 5, width_ratios=[1, 1, 0.28, 1.75, 1.75], hspace=0.5, wspace=0.3)
    for place, skill in enumerate(SHOWN):
        rng = np.random.default_rng(place + 3)
        scene, item = draw_item(rng, skill)
        axis = figure.add_subplot(grid[place // 2, place % 2])
        axis.imshow(Image.open(io.BytesIO(render(scene, rng))), interpolation="nearest")
        axis.set_title(textwrap.fill(item.question, 22), fontsize=7.5)
        axis.axis("off")
    axis = figure.add_subplot(grid[:, 3:])
    rounds = range(len(runs[0]))
    for name, colour in COLOURS.items():
        scores = np.array([[100 * r["members"][name]["mean"] for r in run] for run in runs])
        axis.plot(rounds, scores.mean(axis=0), color=colour, marker="o", markersize=4, label=name)
        axis.fill_between(rounds, scores.min(axis=0), scores.max(axis=0), color=colour, alpha=0.15)
    panel = np.array([[100 * r["panel_mean"] for r in run] for run in runs])
    axis.plot(rounds, panel.mean(axis=0), color="black", linewidth=2.6, label="panel mean")
    for number, score in enumerate(panel.mean(axis=0)):
        axis.annotate(f"{score:.1f}", (number, score), (0, 7), textcoords="offset points",
                      ha="center", fontsize=8, weight="bold")  # fmt: skip
    axis.set_xticks(list(rounds))
    axis.set_xlabel("round of Panel of Peers (0: before)", fontsize=8)
    axis.set_ylabel("exam score, %", fontsize=8)
    axis.set_title(f"no labels in the loop; bands: {len(runs)} seeds", fontsize=8.5)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", alpha=0.25)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, bbox_inches="tight")


if __name__ == "__main__":
    main(sys.argv[1:])
