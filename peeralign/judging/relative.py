"""Relative scoring: which answers one call shows, and one scale for the answers of several calls.

Panel of Peers, section 3.1 (relative scoring). A list that is too long for one call is split into
groups that share answers, so that no answer is left out and the groups can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peeralign.judging.rubric import Rubric


def groups_of(num_answers: int, size: int, overlap: int, seed: int) -> list[list[int]]:
    """Split answers 0..num_answers-1, shuffled by `seed`, into groups of at most `size`.

    Neighbouring groups share at least `overlap` answers, and all groups are of one length. A judge
    prefers what stands first, so the order is drawn anew for every (question, judge).
    """
    order = np.random.default_rng(seed).permutation(num_answers).tolist()
    if num_answers <= size:
        return [order]
    step = size - overlap
    num_groups = 1 + -(-(num_answers - size) // step)
    starts = [round(group * (num_answers - size) / (num_groups - 1)) for group in range(num_groups)]
    return [order[start : start + size] for start in starts]


def merge_groups(
    groups: Sequence[Sequence[int]], values: Sequence[Sequence[float] | None], num_answers: int
) -> list[float | None]:
    """One value for each answer from the values its groups gave it; None where no group did.

    Fits value[g, a] = worth[a] + level[g] by least squares: a group of strong answers gives each a
    worse place, and shared answers tell by how much (the least-squares ranking of Jiang et al.,
    2011, "Statistical ranking and combinatorial Hodge theory"). The levels of groups that a chain
    of shared answers links sum to 0, so a group that is alone keeps its values.
    """
    given = [(g, v) for g, v in zip(groups, values, strict=True) if v is not None]
    rows, targets = [], []
    for number, (group, row) in enumerate(given):
        for answer, value in zip(group, row, strict=True):
            equation = np.zeros(num_answers + len(given))
            equation[[answer, num_answers + number]] = 1.0
            rows.append(equation)
            targets.append(value)
    for linked in _linked([set(group) for group, _ in given]):
        equation = np.zeros(num_answers + len(given))
        equation[[num_answers + number for number in linked]] = 1.0
        rows.append(equation)
        targets.append(0.0)
    seen = {answer for group, _ in given for answer in group}
    if not seen:
        return [None] * num_answers
    worth = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    # Least squares leave an error of 1e-15 or so, and equal answers must stay equal.
    return [
        round(float(worth[answer]), 9) if answer in seen else None for answer in range(num_answers)
    ]


def worths(values: Sequence[float | None], rubric: Rubric) -> list[float | None]:
    """Rewards of one question's answers from their merged values; None stays None.

    Scores are divided by the scale's maximum. Places become the share of the other answers that an
    answer beats, ties counting half: 1 for the best, 0 for the last.
    """
    from scipy.stats import rankdata

    given = [value for value in values if value is not None]
    if rubric.kind == "relative":
        low, high = rubric.scale
        return [None if v is None else min(max(v, low), high) / high for v in values]
    if len(given) == 1:
        return [None if v is None else 1.0 for v in values]
    beaten = len(given) - rankdata(given)
    shares = iter((beaten / (len(given) - 1)).tolist())
    return [None if value is None else next(shares) for value in values]


def _linked(groups: list[set[int]]) -> list[list[int]]:
    """Which groups hang together by shared answers."""
    parts: list[tuple[list[int], set[int]]] = []
    for number, group in enumerate(groups):
        touching = [part for part in parts if part[1] & group]
        numbers = [n for part in touching for n in part[0]]
        parts = [part for part in parts if not part[1] & group]
        parts.append(([*numbers, number], group.union(*(part[1] for part in touching))))
    return [numbers for numbers, _ in parts]
