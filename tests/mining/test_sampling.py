"""Sampling: the top, drawn by seed, or spread over the scores."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.mining.sampling import take

HOW: list[Literal["top", "random", "spread"]] = ["top", "random", "spread"]
scores = st.lists(st.floats(-1, 1), max_size=30)


@given(scores, st.integers(1, 12), st.sampled_from(HOW), st.integers(0, 5))
def test_as_many_as_are_wanted_are_taken(
    given_scores: list[float], wanted: int, how: Literal["top", "random", "spread"], seed: int
) -> None:
    taken = take(given_scores, wanted, how, seed, "q")
    assert len(taken) == min(wanted, len(given_scores))
    assert taken <= set(range(len(given_scores)))
    assert taken == take(given_scores, wanted, how, seed, "q")


def test_top_takes_the_first() -> None:
    assert take([0.1, 0.9, 0.5], 2, "top", 0, "q") == {0, 1}


def test_a_draw_is_the_querys_own_and_the_seeds() -> None:
    draws = {(seed, query): frozenset(take([0.5] * 30, 5, "random", seed, query)) for seed in (0, 1) for query in "ab"}
    assert len(set(draws.values())) == 4


def test_a_draw_is_fair() -> None:
    counts = [0] * 10
    for query in range(2000):
        for at in take([0.5] * 10, 3, "random", 0, str(query)):
            counts[at] += 1
    assert all(count == pytest.approx(600, abs=90) for count in counts)


def test_spread_goes_from_the_highest_to_the_lowest() -> None:
    # Points at 1.0, 0.5 and 0.0; the nearest scores are at 0, 3 and 6.
    assert take([1.0, 0.95, 0.9, 0.52, 0.3, 0.1, 0.0], 3, "spread", 0, "q") == {0, 3, 6}
    assert take([0.2, 0.9, 0.4], 1, "spread", 0, "q") == {1}


@given(st.lists(st.integers(-99, 99).map(float), min_size=3, max_size=30, unique=True), st.integers(2, 10))
def test_spread_holds_both_ends(given_scores: list[float], wanted: int) -> None:
    taken = {given_scores[at] for at in take(given_scores, wanted, "spread", 0, "q")}
    assert {max(given_scores), min(given_scores)} <= taken
