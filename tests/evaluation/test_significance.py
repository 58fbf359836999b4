"""Tests and intervals against values found another way."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from causalneg.evaluation.significance import holm, interval, paired

OURS = [0.9, 0.5, 1.0, 0.63, 0.25, 0.0, 0.7, 0.4]
THEIRS = [0.6, 0.5, 0.5, 0.2, 0.5, 0.1, 0.3, 0.3]


def test_randomisation_agrees_with_every_assignment_of_signs() -> None:
    differences = np.array(OURS) - np.array(THEIRS)
    signs = np.array(list(itertools.product([1, -1], repeat=len(differences))))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    found = paired(OURS, THEIRS, seed=1, resamples=100_000)
    assert found.p_randomisation == pytest.approx(exact, abs=0.005)
    assert found.p_t == pytest.approx(stats.ttest_rel(OURS, THEIRS).pvalue)
    assert found.difference == pytest.approx(differences.mean())
    assert (found.wins, found.ties, found.losses) == (5, 1, 2)


def test_equally_large_sums_are_counted_whatever_their_rounding() -> None:
    # Of 8 assignments of three equal differences two reach the observed sum.
    found = paired([0.1] * 3, [0.0] * 3, seed=2, resamples=100_000)
    assert found.p_randomisation == pytest.approx(2 / 8, abs=0.005)
    assert paired([0.3, 0.1], [0.2, 0.2], seed=2).p_randomisation == 1.0  # the sum is zero but for rounding


def test_no_difference_at_all_is_no_evidence() -> None:
    found = paired(OURS, OURS, seed=0)
    assert (found.difference, found.low, found.high, found.p_randomisation, found.p_t) == (0, 0, 0, 1, 1)
    assert (found.wins, found.ties, found.losses) == (0, 8, 0)


def test_the_same_difference_everywhere_is_evidence() -> None:
    found = paired([0.75] * 30, [0.5] * 30, seed=0)
    assert (found.low, found.high, found.p_t) == (0.25, 0.25, 0.0)
    assert found.p_randomisation == 1 / 10_001


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [0.0]), ([], []), ([1.0, 0.0], [1.0]), ([[1.0, 0.0]] * 2,) * 2])
def test_what_cannot_be_tested_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="quer"):
        paired(ours, theirs, seed=0)


values = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12)


@given(values, st.integers(-5, 5))
def test_swapping_sides_swaps_signs_and_nothing_else(pairs: list[tuple[float, float]], seed: int) -> None:
    ours, theirs = zip(*pairs, strict=True)
    one, other = paired(ours, theirs, seed, 200), paired(theirs, ours, seed, 200)
    assert one == paired(ours, theirs, seed, 200)
    assert (one.p_randomisation, one.wins, one.ties) == (other.p_randomisation, other.losses, other.ties)
    assert one.p_t == pytest.approx(other.p_t)
    assert one.difference == -other.difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert 1 / 201 <= one.p_randomisation <= 1
    assert one.low <= one.high


def test_an_interval_is_that_of_scipy() -> None:
    data = np.random.default_rng(3).beta(0.5, 0.5, 150)
    theirs = stats.bootstrap((data,), np.mean, n_resamples=20_000, method="percentile", confidence_level=0.9)
    found = interval(data, seed=4, resamples=20_000, confidence=0.9)
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=0.003)
    assert found == interval(data, seed=4, resamples=20_000, confidence=0.9)
    assert found != interval(data, seed=5, resamples=20_000, confidence=0.9)
    assert interval([0.5], seed=0) == (0.5, 0.5)


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    held = 0
    for draw in range(300):
        low, high = interval(generator.exponential(1.0, 80), draw, 400)
        held += low <= 1.0 <= high
    assert 0.88 <= held / 300 <= 0.98


def test_without_a_difference_small_p_values_are_rare() -> None:
    generator = np.random.default_rng(6)
    p = [paired(*generator.random((2, 25)), seed=n, resamples=200).p_randomisation for n in range(400)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=0.07)


@pytest.mark.parametrize("arguments", [([], 0), ([1.0], 0, 10, 0.0), ([1.0], 0, 10, 1.0)])
def test_an_interval_of_nothing_is_refused(arguments: tuple[list[float], int]) -> None:
    with pytest.raises(ValueError, match="an interval needs"):
        interval(*arguments)


def test_holm_as_worked_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and none below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
