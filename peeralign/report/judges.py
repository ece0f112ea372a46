"""The tables of `peeralign judge-eval`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from peeralign.evals.black_image import NOT_ASKED
from peeralign.report.terminal import NOTHING, plain

# (title, figures) in the order of reading; what a figure means is in docs/judge_eval.md.
_GROUPS: list[tuple[str, dict[str, str]]] = [
    (
        "Scores",
        {
            "pearson": "Pearson's r, mean over sets",
            "pearson_pooled": "Pearson's r, all rows as one set",
            "kendall_tau": "Kendall's tau of models' means, mean over sets",
            "kendall_tau_pooled": "Kendall's tau, all rows as one set",
            "coverage_scores": "share scored",
            "length_correlation": "judge's scores with answers' lengths",
            "length_correlation_reference": "reference with answers' lengths",
            "self_preference_gap": "own answers, deviations above the line",
            "family_preference_gap": "its family's answers, likewise",
            "score_entropy": "entropy of judge's scores, bits",
            "score_entropy_reference": "entropy of reference, bits",
            "pearson_without_image": "Pearson's r, images black",
            "black_image_pearson": "scores with the image and without",
            "black_image_change": "change by black images, deviations",
            "coverage_scores_without_image": "share scored, images black",
        },
    ),
    (
        "Pairs",
        {
            "accuracy_with_ties": "accuracy with ties",
            "accuracy_without_ties": "accuracy without ties",
            "accuracy_with_ties_unscored_wrong": "with ties, unscored is wrong",
            "accuracy_without_ties_unscored_wrong": "without ties, unscored is wrong",
            "accuracy_with_ties_set_mean": "with ties, mean over sets",
            "accuracy_without_ties_set_mean": "without ties, mean over sets",
            "accuracy_both_decided": "where neither says tie",
            "coverage_pairs": "share scored",
            "first_position_share": "first answer wins, judge",
            "first_position_share_reference": "first answer wins, reference",
            "order_consistency": "same winner in both orders",
            "longer_wins": "longer answer wins, judge",
            "longer_wins_reference": "longer answer wins, reference",
            "self_preference_gap_pairs": "own answers win, above reference",
            "family_preference_gap_pairs": "its family's win, above reference",
            "accuracy_without_ties_without_image": "accuracy without ties, images black",
            "black_image_verdict_change": "verdicts changed by black images",
            "coverage_pairs_without_image": "share scored, images black",
            "elo_tau": "Kendall's tau of Elo ratings",
        },
    ),
    (
        "Rankings",
        {
            "ranking_distance": "distance to reference, 0 is equal",
            "ranking_distance_set_mean": "distance, mean over sets",
            "coverage_rankings": "share scored",
            "ranking_distance_without_image": "distance, images black",
            "coverage_rankings_without_image": "share scored, images black",
        },
    ),
]


def print_judge_eval(figures: dict[str, Any], console: Console) -> None:
    """Print what `evals.judge_eval.judge_eval` gives, with why a figure is missing."""
    for title, names in _GROUPS:
        count = figures.get(f"num_{title.lower()}")
        if count is None:
            continue
        table = Table()
        table.add_column("figure", no_wrap=True)
        table.add_column("what")
        table.add_column("value", justify="right")
        table.add_column("95 % interval")
        for name, what in names.items():
            if figures["reasons"].get(name) == NOT_ASKED:
                continue
            interval = _interval(figures["intervals"].get(name))
            table.add_row(name, what, _number(figures[name]), interval)
        _print(f"{title}, {count:,} rows", table, console)
    if figures["elo"]:
        _print("Elo ratings, with intervals of 95 %", _elo_table(figures), console)
    if len(figures["sets"]) > 1:
        _print("By set", _set_table(figures["sets"]), console)
    _print_reasons(figures, console)


def _print(title: str, table: Table, console: Console) -> None:
    console.print(f"\n[bold]{title}[/bold]", highlight=False)
    console.print(table, soft_wrap=False)


def _elo_table(figures: dict[str, Any]) -> Table:
    table = Table("model")
    for name in ("judge", "reference"):
        table.add_column(name, justify="right")
    # Those without a rating stand last.
    rated = sorted(figures["elo"].items(), key=lambda entry: -(entry[1]["rating"] or 0))
    for model, rating in rated:
        reference = (figures["elo_reference"] or {}).get(model)
        table.add_row(plain(model), _rating(rating), _rating(reference))
    return table


def _rating(rating: dict[str, Any] | None) -> str:
    if rating is None or rating["rating"] is None:
        return NOTHING
    if rating["low"] is None:
        return f"{rating['rating']:.0f}"
    return f"{rating['rating']:.0f} ({rating['low']:.0f} to {rating['high']:.0f})"


def _set_table(sets: dict[str, dict[str, Any]]) -> Table:
    counts = dict.fromkeys(
        name for entry in sets.values() for name in entry if name.startswith("num_")
    )
    shown = dict.fromkeys(
        name
        for entry in sets.values()
        for name in entry
        if name != "reasons" and name not in counts
    )
    table = Table("set")
    for name in (*counts, *shown):
        table.add_column(name.removeprefix("num_").replace("_", " "), justify="right")
    for label, entry in sets.items():
        sizes = [f"{entry[name]:,}" if name in entry else NOTHING for name in counts]
        table.add_row(plain(label), *sizes, *(_number(entry.get(name)) for name in shown))
    return table


def _print_reasons(figures: dict[str, Any], console: Console) -> None:
    absent = {NOT_ASKED, *(f"no {kind} were given" for kind in ("scores", "pairs", "rankings"))}
    reasons = {name: why for name, why in figures["reasons"].items() if why not in absent}
    if len(figures["sets"]) > 1:
        for label, entry in figures["sets"].items():
            reasons.update({f"{name} of {label}": why for name, why in entry["reasons"].items()})
    if reasons:
        console.print("\n[bold]Without a value[/bold]", highlight=False)
    for name, why in reasons.items():
        console.print(plain(f"{name}: {why}"), soft_wrap=True)


def _interval(interval: dict[str, float] | None) -> str:
    return "" if interval is None else f"{interval['low']:.3f} to {interval['high']:.3f}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
