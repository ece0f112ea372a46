"""The report's charts: matplotlib drawings as inline SVG strings that follow the page's theme.

Marks are drawn in stand-in colours, which `_svg` replaces with CSS variables, so that one drawing
serves light and dark mode. Text stays text and takes the page's font.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import polars as pl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from peeralign.report.collect import Histogram, JudgeMatrix, Overlap, Yield
from peeralign.report.scores import Exam, Score, Skill

NOTHING = "\N{EN DASH}"
# The page's CSS gives each variable a light and a dark value (series: Okabe and Ito's palette).
NUM_SERIES = 6
NUM_HEAT = 9
INK, MUTED, GRID, SURFACE = "#010001", "#010002", "#010003", "#010004"
SERIES = [f"#0200{i:02x}" for i in range(NUM_SERIES)]
HEAT = [f"#0300{i:02x}" for i in range(NUM_HEAT)]
HEAT_INK = [f"#0400{i:02x}" for i in range(NUM_HEAT)]
CSS_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", SURFACE: "surface"}
CSS_VARIABLES |= {colour: f"series-{i}" for i, colour in enumerate(SERIES)}
CSS_VARIABLES |= {colour: f"heat-{i}" for i, colour in enumerate(HEAT)}
CSS_VARIABLES |= {colour: f"heat-ink-{i}" for i, colour in enumerate(HEAT_INK)}
DESCRIBED_DASHES = (0, (1, 1.2))
MARKERS = ("o", "s", "^", "D", "v", "P")
# The same shapes as text, for legends written in HTML.
MARKER_GLYPHS = ("●", "■", "▲", "◆", "▼", "✚")

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a member may be called "a$b$c"
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "axes.labelpad": 7,
    "lines.linewidth": 1.8,
    "lines.markersize": 6.5,
}


def score_chart(exam: Exam, described: Exam | None, name: str, width: int, height: int) -> Markup:
    """Each member's mean per round with its 95% band, and the mean of several in bold.

    Lines of `described`, the exam taken with describing first, are dotted and have no band.
    """
    with _style(name):
        figure, axes = _axes(width, height)
        texts = []
        for i, member in enumerate(exam.members):
            rounds = [r for r in exam.rounds if (r, member) in exam.scores]
            points = [exam.scores[r, member] for r in rounds]
            _series(axes, i, rounds, [100 * point.mean for point in points])
            _band(axes, i, exam, rounds, points)
            texts.append(f"{member}: {_path(exam, member)}")
            if described is not None:
                rounds = [r for r in described.rounds if (r, member) in described.scores]
                means = [100 * described.scores[r, member].mean for r in rounds]
                _series(axes, i, rounds, means, DESCRIBED_DASHES)
                texts.append(f"{member}, describing first: {_path(described, member)}")
        panel = sorted(exam.panel)
        if len(exam.members) > 1:
            means = [100 * exam.panel[r] for r in panel]
            axes.plot(panel, means, color=INK, linewidth=3.6, zorder=4)
        _round_axis(axes, exam.rounds)
        axes.set_ylabel("exam score, %")
        return _svg(figure, name, f"Exam score in percent by round. {'; '.join(texts)}.")


def _band(axes: Axes, index: int, exam: Exam, rounds: list[int], points: list[Score]) -> None:
    lows, highs = [100 * p.low for p in points], [100 * p.high for p in points]
    if len(exam.rounds) == 1:
        axes.vlines(rounds, lows, highs, color=_colour(index), alpha=0.5, linewidth=3)
        return
    alpha = 0.14 if len(exam.members) <= 4 else 0.07
    axes.fill_between(rounds, lows, highs, color=_colour(index), alpha=alpha, linewidth=0)


def skill_panel(skill: Skill, exam: Exam, name: str, limits: tuple[float, float]) -> Markup:
    """One skill's mean per member and round; `limits` (percent) are shared by all skills."""
    with _style(name):
        figure, axes = _axes(210, 145)
        texts = []
        for i, member in enumerate(exam.members):
            rounds = [r for r in exam.rounds if (r, member) in skill.means]
            means = [100 * skill.means[r, member] for r in rounds]
            _series(axes, i, rounds, means)
            texts.append(f"{member} {', '.join(f'{mean:.1f}' for mean in means)}")
        axes.set_ylim(*limits)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        _round_axis(axes, exam.rounds, label=False)
        return _svg(figure, name, f"{skill.name}, percent by round: {'; '.join(texts)}.")


def reward_histogram(
    histogram: Histogram, title: str, name: str, bins: tuple[int, int], top: int
) -> Markup:
    """Rewards of distinct answers as bars; of chosen and rejected answers as overlaid bars."""
    with _style(name):
        figure, axes = _axes(290, 200)
        layers = (
            (histogram.answers, MUTED, 0.35),
            (histogram.rejected, SERIES[1], 0.75),
            (histogram.chosen, SERIES[0], 0.75),
        )
        for counts, colour, alpha in layers:
            axes.bar(
                [histogram.left(b) for b in counts],
                list(counts.values()),
                width=0.94 / histogram.per_unit,
                align="edge",
                color=colour,
                alpha=alpha,
            )
        axes.set_xlim(histogram.left(bins[0]), histogram.left(bins[1] + 1))
        axes.set_ylim(0, top * 1.05)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_title(title)
        axes.set_xlabel("reward")
        totals = [sum(counts.values()) for counts, _, _ in layers]
        text = f"{totals[0]} distinct answers, {totals[2]} chosen, {totals[1]} rejected"
        return _svg(figure, name, f"Histogram of rewards, {title}: {text}.")


def judge_matrix(matrix: JudgeMatrix, name: str, scale: tuple[float, float]) -> Markup:
    """Mean score by judge (rows) and author (columns); own answers have a thick outline."""
    cells = [
        [
            (NOTHING if mean is None else f"{mean:.2f}", mean, judge == author)
            for author, mean in zip(matrix.authors, row, strict=True)
        ]
        for judge, row in zip(matrix.judges, matrix.means, strict=True)
    ]
    text = "; ".join(
        f"{judge} gives "
        + ", ".join(f"{author} {cell[0]}" for author, cell in zip(matrix.authors, row, strict=True))
        for judge, row in zip(matrix.judges, cells, strict=True)
    )
    with _style(name):
        figure = _heatmap(cells, matrix.judges, matrix.authors, scale, ("judge", "author"), 74)
        return _svg(figure, name, f"Mean score by judge and author. {text}.")


def yield_map(yields: Yield, name: str) -> Markup:
    """Questions that give a pair by both thresholds; the run's own pair has a thick outline."""
    cells = []
    for margin, row in zip(yields.margins, yields.counts, strict=True):
        own = [yields.own == (chosen, margin) for chosen in yields.chosen]
        cells.append([(f"{n:,}", n / yields.questions, o) for n, o in zip(row, own, strict=True)])
    with _style(name):
        rows = [f"{margin:g}" for margin in yields.margins]
        columns = [f"{chosen:g}" for chosen in yields.chosen]
        labels = ("least margin", "least reward of the chosen answer")
        figure = _heatmap(cells, rows, columns, (0.0, 1.0), labels, 50)
        text = f"Pairs out of {yields.questions} questions by both thresholds"
        if yields.own:
            text += f"; {yields.own_count} at the run's own {yields.own[0]:g} and {yields.own[1]:g}"
        return _svg(figure, name, f"{text}.")


def overlap_map(overlap: Overlap, name: str) -> Markup:
    """A member's map of images: the training images in grey, the exam's by category."""
    with _style(name):
        figure, axes = _axes(560, 420)
        groups = [(None, overlap.points.filter(pl.col("kind") == "training"))]
        groups += [
            (
                i,
                overlap.points.filter(
                    (pl.col("kind") == "exam") & (pl.col("category") == category)
                ),
            )
            for i, category in enumerate(overlap.nearest)
        ]
        for place, points in groups:
            axes.scatter(
                points["x"],
                points["y"],
                s=18,
                marker="o" if place is None else MARKERS[_marker(place)],
                color=MUTED if place is None else _colour(place),
                alpha=0.35 if place is None else 0.75,
                linewidths=0,
            )
        # Only distances between neighbours mean something.
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        text = ", ".join(f"{category} {value:.2f}" for category, value in overlap.nearest.items())
        return _svg(figure, name, f"Map of images as {overlap.member} sees them; nearness: {text}.")


def difference_chart(
    rows: Sequence[tuple[str, float, Sequence[float] | None]], unit: str, name: str
) -> Markup:
    """Differences (label, B - A, ends of its interval), one below the other, and where 0 is."""
    with _style(name):
        figure, axes = _axes(560, 70 + 24 * len(rows))
        axes.axvline(0, color=MUTED, linewidth=1.2)
        texts = []
        for place, (label, difference, ends) in enumerate(rows):
            colour = MUTED if ends is None or ends[0] <= 0 <= ends[1] else _colour(0)
            if ends is not None:
                axes.hlines(place, ends[0], ends[1], color=colour, linewidth=2.4)
            axes.plot(difference, place, marker="o", color=colour, markeredgecolor=SURFACE)
            sure = "" if ends is None else f" ({ends[0]:+.3g} to {ends[1]:+.3g})"
            texts.append(f"{label}: {difference:+.3g}{sure}")
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(False)
        axes.set_xlabel(f"B minus A ({unit})")
        return _svg(figure, name, f"Differences with 95% intervals. {'; '.join(texts)}.")


def _marker(index: int) -> int:
    # Members beyond the palette get its colours again, told apart by shape and dashes.
    return (index + index // NUM_SERIES) % len(MARKERS)


def marker_glyph(index: int) -> str:
    """The sign that stands for a member's marker in a legend."""
    return MARKER_GLYPHS[_marker(index)]


def _style(name: str) -> Any:
    # The salt makes ids depend on the figure alone: two reports of one run are equal bytes.
    settings: Any = {**STYLE, "svg.hashsalt": name}
    return mpl.rc_context(settings)


def _axes(width: int, height: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def _colour(index: int) -> str:
    return SERIES[index % NUM_SERIES]


def _series(
    axes: Axes, index: int, rounds: list[int], values: list[float], dashes: Any = None
) -> None:
    turn = index // NUM_SERIES
    marker = MARKERS[_marker(index)]
    axes.plot(
        rounds,
        values,
        linestyle=dashes or ("-", "--", "-.")[turn % 3],
        marker=marker,
        color=_colour(index),
        markeredgecolor=SURFACE,
        markeredgewidth=0.8,
    )


def _round_axis(axes: Axes, rounds: list[int], label: bool = True) -> None:
    axes.set_xticks(rounds)
    axes.set_xlim(min(rounds) - 0.2, max(rounds) + 0.2)
    if label:
        axes.set_xlabel("round")


def _path(exam: Exam, member: str) -> str:
    scores = [exam.scores[r, member].mean for r in exam.rounds if (r, member) in exam.scores]
    return ", ".join(f"{100 * score:.1f}" for score in scores)


def _heatmap(
    cells: list[list[tuple[str, float | None, bool]]],
    rows: Sequence[str],
    columns: Sequence[str],
    scale: tuple[float, float],
    labels: tuple[str, str],
    cell_width: int,
) -> Figure:
    """Labelled cells (text, value, outlined), coloured in NUM_HEAT steps from low to high."""
    slanted = max(len(column) for column in columns) * 7 > cell_width
    width = cell_width * len(columns) + 40 + 7 * max(len(row) for row in rows)
    height = 34 * len(rows) + (84 if slanted else 44)
    figure, axes = _axes(width, height)
    low, high = scale
    for y, row in enumerate(cells):
        for x, (text, value, outlined) in enumerate(row):
            share = 0.0 if value is None else (value - low) / (high - low)
            _cell(axes, x, y, text, min(NUM_HEAT - 1, max(0, int(share * NUM_HEAT))), outlined)
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0), ylabel=labels[0], xlabel=labels[1])
    axes.set_xticks(
        [x + 0.5 for x in range(len(columns))],
        columns,
        rotation=30 if slanted else 0,
        ha="left" if slanted else "center",
    )
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return figure


def _cell(axes: Axes, x: int, y: int, text: str, step: int, outlined: bool) -> None:
    axes.add_patch(Rectangle((x + 0.02, y + 0.03), 0.96, 0.94, color=HEAT[step], linewidth=0))
    if outlined:
        frame = Rectangle((x + 0.04, y + 0.06), 0.92, 0.88, fill=False, zorder=3)
        frame.set(edgecolor=SERIES[1], linewidth=2.6)
        axes.add_patch(frame)
    weight = "bold" if outlined else "normal"
    axes.text(x + 0.5, y + 0.5, text, color=HEAT_INK[step], ha="center", va="center", weight=weight)


def _css_colour(match: re.Match[str]) -> str:
    name = CSS_VARIABLES.get(match[0])
    return f"var(--{name})" if name else match[0]


def _svg(figure: Figure, name: str, description: str) -> Markup:
    """The drawing as an inline SVG element whose ids all start with `name`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # A style element of an inline SVG would apply to the whole page; page.css has its rules.
    text = re.sub(r"<style .*?</style>\s*", "", text, flags=re.DOTALL)
    # Ids live in one space on the page, and a hidden figure cannot lend its clip paths.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"#0[1-4]00[0-9a-f]{2}", _css_colour, text)
    width, height = (round(72 * side) for side in figure.get_size_inches())
    opening = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(description)}"'
        f' style="--width: {width}px" xmlns="http://www.w3.org/2000/svg"'
        ' xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(opening + text[text.index(">") + 1 :].strip())
