"""The order of rows and how they are shared out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.training.data.order import groups, row_order, shares, steps_per_epoch
from causalneg.training.optimizer import learning_rate

SIZES = st.lists(st.integers(1, 500), max_size=60)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = row_order(50, 1, 0).tolist()
    assert first == row_order(50, 1, 0).tolist()
    assert sorted(first) == list(range(50))
    assert first != row_order(50, 1, 1).tolist()
    assert first != row_order(50, 2, 0).tolist()
    assert sorted(row_order(5, -3, 0).tolist()) == list(range(5))


def test_the_last_short_batch_counts() -> None:
    assert [steps_per_epoch(n, 16) for n in (1, 16, 17)] == [1, 1, 2]


@given(SIZES, st.integers(1, 8))
def test_shares_cover_everything_once_and_are_nearly_equal(sizes: list[int], workers: int) -> None:
    found = shares(sizes, workers)
    assert sorted(i for share in found for i in share) == list(range(len(sizes)))
    totals = [sum(sizes[i] for i in share) for share in found]
    assert max(totals) - min(totals) <= max(sizes, default=0)
    assert all(list(share) == sorted(share) for share in found)


@given(SIZES, st.integers(1, 2000))
def test_groups_are_runs_within_their_bound(sizes: list[int], most: int) -> None:
    found = groups(np.array(sizes), most)
    assert [i for g in found for i in range(g.start, g.stop)] == list(range(len(sizes)))
    assert all(g.stop - g.start == 1 or sum(sizes[g]) <= most for g in found)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5, *[1.0] * 9]),
        ("cosine", [0.5, 1.0, 1.0, 0.9619398, 0.8535534, 0.6913417, 0.5, 0.3086583, 0.1464466, 0.0380602]),
    ],
)
def test_learning_rate_rises_then_falls(schedule: str, expected: list[float]) -> None:
    rates = [learning_rate(step, 10, 0.2, 1.0, schedule) for step in range(10)]  # type: ignore[arg-type]
    assert rates == pytest.approx(expected)
    assert learning_rate(0, 2, 0.0, 1.0, schedule) == 1.0  # type: ignore[arg-type]
