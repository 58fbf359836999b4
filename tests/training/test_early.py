"""The best evaluation and when to stop."""

import json
import math

import pytest

from causalneg.training.early import Best


def test_first_is_best_and_ties_keep_the_earlier() -> None:
    best = Best(patience=None)
    assert [best.update(step, value) for step, value in enumerate([0.3, 0.3, 0.2, 0.31, 0.31])] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert (best.step, best.value) == (3, 0.31)


def test_a_first_value_of_0_counts() -> None:
    best = Best(patience=1)
    assert best.update(5, 0.0)
    assert not best.should_stop


def test_stops_after_patience() -> None:
    best = Best(patience=2)
    stops = []
    for step, value in enumerate([0.3, 0.2, 0.4, 0.4, 0.1]):
        best.update(step, value)
        stops.append(best.should_stop)
    assert stops == [False, False, False, False, True]


def test_never_stops_without_patience() -> None:
    best = Best(patience=None)
    for step in range(100):
        best.update(step, -step)
    assert not best.should_stop
    assert best.step == 0


def test_nan_is_never_best() -> None:
    best = Best(patience=3)
    assert not best.update(0, math.nan)
    assert best.update(1, 0.1)
    assert not best.update(2, math.nan)
    assert best.waited == 1


@pytest.mark.parametrize("after", range(5))
def test_goes_on_where_it_was(after: int) -> None:
    values = [0.3, 0.2, 0.4, 0.4, 0.1]
    whole, part = Best(patience=2), Best(patience=2)
    for step, value in enumerate(values[:after]):
        whole.update(step, value)
        part.update(step, value)
    part = Best.from_state(json.loads(json.dumps(part.state())))
    for step, value in enumerate(values[after:], after):
        assert whole.update(step, value) == part.update(step, value)
    assert whole.state() == part.state()
    assert part.should_stop
