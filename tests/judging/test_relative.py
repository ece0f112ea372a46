"""Relative scoring: groups that share answers, and one scale for what they were given."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import kendalltau

from peeralign.judging.relative import groups_of, merge_groups, worths
from peeralign.judging.rubric import Rubric, load_rubric

SCORES = load_rubric("relative_scores")
RANKING = load_rubric("relative_ranking")
SIZES = [
    (number, size, overlap)
    for number in range(1, 41)
    for size in (2, 3, 5, 8, 26)
    for overlap in range(1, size)
]


def test_groups_cover_all_are_of_one_size_and_overlap_enough() -> None:
    for number, size, overlap in SIZES:
        groups = groups_of(number, size, overlap, seed=number)
        case = (number, size, overlap)
        assert {answer for group in groups for answer in group} == set(range(number)), case
        assert {len(group) for group in groups} == {min(number, size)}, case
        assert all(len(set(group)) == len(group) for group in groups), case
        for one, other in itertools.pairwise(groups):
            assert overlap <= len(set(one) & set(other)) < size, case


def test_there_are_no_more_groups_than_needed() -> None:
    for number, size, overlap in SIZES:
        groups = groups_of(number, size, overlap, seed=0)
        # Every group but the first adds at most size - overlap answers.
        fewer = len(groups) - 1
        assert fewer == 0 or size + (fewer - 1) * (size - overlap) < number


def test_one_group_holds_a_short_list() -> None:
    for number in (1, 2, 7, 8):
        (group,) = groups_of(number, 8, 2, seed=3)
        assert sorted(group) == list(range(number))
    assert len(groups_of(9, 8, 2, seed=3)) == 2


def test_the_order_is_the_seed_s() -> None:
    assert groups_of(20, 8, 2, seed=1) == groups_of(20, 8, 2, seed=1)
    orders = {tuple(groups_of(8, 8, 2, seed)[0]) for seed in range(50)}
    assert len(orders) == 50
    # 600 orders of three answers: each answer stands first 200 times, standard deviation 12.
    first = [groups_of(3, 8, 2, seed)[0][0] for seed in range(600)]
    assert all(150 < first.count(answer) < 250 for answer in range(3))


def shown(groups: Sequence[Sequence[int]], truth: Sequence[float]) -> list[list[float]]:
    return [[truth[answer] for answer in group] for group in groups]


def test_one_group_s_values_are_kept_exactly() -> None:
    rng = np.random.default_rng(0)
    for seed in range(100):
        truth = [float(score) for score in rng.integers(1, 6, size=8)]
        groups = groups_of(8, 8, 2, seed)
        assert merge_groups(groups, shown(groups, truth), 8) == truth


def test_equal_answers_stay_equal() -> None:
    """Noise of 1e-15 would make one of two equals the better, and the pair's chosen answer."""
    for seed in range(50):
        groups = groups_of(20, 8, 2, seed)
        found = merge_groups(groups, [[3.0] * 8 for _ in groups], 20)
        assert found == [3.0] * 20
        assert worths(found, RANKING) == [0.5] * 20
        assert worths(found, SCORES) == [0.6] * 20


@pytest.mark.parametrize(("number", "size", "overlap"), [(20, 8, 2), (9, 8, 1), (26, 5, 4)])
def test_values_that_add_up_are_recovered_exactly(number: int, size: int, overlap: int) -> None:
    """A worth for each answer plus a level for each group, whose levels sum to 0."""
    rng = np.random.default_rng(number)
    for seed in range(20):
        groups = groups_of(number, size, overlap, seed)
        truth = rng.normal(size=number)
        levels = rng.normal(size=len(groups))
        levels -= levels.mean()
        values = [
            [truth[answer] + level for answer in group]
            for group, level in zip(groups, levels, strict=True)
        ]
        assert merge_groups(groups, values, number) == pytest.approx(truth, abs=1e-8)


def test_values_of_one_scale_are_recovered_from_groups() -> None:
    truth = [float(n % 5 + 1) for n in range(20)]
    groups = groups_of(20, 8, 2, seed=4)
    assert merge_groups(groups, shown(groups, truth), 20) == truth


def test_shared_answers_bring_a_hard_and_an_easy_group_to_one_scale() -> None:
    """Answers 2 and 3 are last among the good and first among the bad."""
    found = merge_groups([[0, 1, 2, 3], [2, 3, 4, 5]], [[1, 2, 3, 4], [1, 2, 3, 4]], 6)
    assert found == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert worths(found, RANKING) == [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


def test_a_group_without_a_verdict_leaves_its_answers_to_the_others() -> None:
    groups = [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    values = [[1.0, 2.0, 3.0], None, [5.0, 4.0, 2.0]]
    # 2 and 4 are known by one group each; 3 by none.
    assert merge_groups(groups, values, 7) == [1.0, 2.0, 3.0, None, 5.0, 4.0, 2.0]
    assert merge_groups(groups, [None, None, None], 7) == [None] * 7
    # Linked again: the middle group ties the outer ones.
    linked = merge_groups(groups, [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [5.0, 4.0, 2.0]], 7)
    assert None not in linked


def test_groups_that_nothing_links_keep_their_values() -> None:
    groups = [[0, 1], [2, 3], [3, 4]]
    found = merge_groups(groups, [[5.0, 1.0], [4.0, 2.0], [4.0, 2.0]], 5)
    assert found[:2] == [5.0, 1.0]
    # The two that are linked share out their difference.
    assert found[2:] == [5.0, 3.0, 1.0]


def test_levels_are_fitted_where_groups_hang_together_in_a_ring_or_late() -> None:
    """Groups 0 and 1 share nothing; group 2, which comes last, ties them."""
    groups = [[0, 1], [2, 3], [1, 2]]
    truth = [1.0, 2.0, 3.0, 4.0]
    levels = [0.5, -1.0, 0.5]
    values = [
        [truth[answer] + level for answer in group]
        for group, level in zip(groups, levels, strict=True)
    ]
    assert merge_groups(groups, values, 4) == pytest.approx(truth, abs=1e-8)


def test_a_ranking_of_twenty_is_found_from_groups_of_eight() -> None:
    fitted, averaged = [], []
    for seed in range(100):
        groups = groups_of(20, 8, 2, seed)
        truth = np.random.default_rng(seed).permutation(20)
        places = [[float(np.sum(truth[group] <= truth[a])) for a in group] for group in groups]
        fitted.append(kendalltau(merge_groups(groups, places, 20), truth).statistic)
        given: dict[int, list[float]] = {answer: [] for answer in range(20)}
        for group, row in zip(groups, places, strict=True):
            for answer, place in zip(group, row, strict=True):
                given[answer].append(place)
        means = [np.mean(given[answer]) for answer in range(20)]
        averaged.append(kendalltau(means, truth).statistic)
    # A place says nothing of how far two answers are apart, so the truth is met only nearly; but
    # better than by taking a place of one group for a place of another.
    assert np.mean(fitted) > 0.85
    assert min(fitted) > 0.6
    assert np.mean(fitted) > np.mean(averaged) + 0.02


def test_scores_become_rewards_by_the_scale_s_maximum() -> None:
    assert worths([5.0, 1.0, None, 2.5], SCORES) == [1.0, 0.2, None, 0.5]
    # The fit may leave the scale by a little; a reward does not.
    assert worths([5.5, 0.25], SCORES) == [1.0, 0.2]
    wide = Rubric(version=1, kind="relative", scale=(0, 10), prompt="{question}{answers}")
    assert worths([10.0, 0.0, -1.0, 7.0], wide) == [1.0, 0.0, 0.0, 0.7]


@pytest.mark.parametrize(
    ("places", "shares"),
    [
        ([1.0, 2.0, 3.0], [1.0, 0.5, 0.0]),
        ([3.0, 1.0, 2.0], [0.0, 1.0, 0.5]),
        # A tie counts half.
        ([1.0, 2.0, 2.0], [1.0, 0.25, 0.25]),
        ([1.0, 1.0], [0.5, 0.5]),
        ([2.0, 2.0, 2.0, 2.0], [0.5] * 4),
        # Only the order counts, and unscored answers are not among the others.
        ([-3.5, 40.0, None, 0.25], [1.0, 0.0, None, 0.5]),
        ([None, None], [None, None]),
        ([], []),
        # Nobody to beat, and nobody who is better.
        ([1.0], [1.0]),
        ([None, 4.0], [None, 1.0]),
    ],
)
def test_places_become_the_share_of_the_others_that_are_beaten(
    places: list[float | None], shares: list[float | None]
) -> None:
    assert worths(places, RANKING) == shares
