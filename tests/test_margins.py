"""The measure by which mining and generation compare a negative with its positive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.margins import relative_score

cosines = st.floats(-1, 1)


@pytest.mark.parametrize(
    ("score", "positive", "relative"),
    [
        (0.38, 0.4, 0.95),  # the quotient, for a positive score
        (0.6, 0.4, 1.5),
        (-0.2, 0.4, -0.5),
        (-0.5, -0.4, 0.75),  # below a negative score; the quotient would be 1.25
        (-0.3, -0.4, 1.25),
    ],
)
def test_known_values(score: float, positive: float, relative: float) -> None:
    assert relative_score(score, positive) == pytest.approx(relative)


@given(st.floats(0.01, 1), cosines)
def test_it_is_the_quotient_for_positive_scores(positive: float, score: float) -> None:
    assert relative_score(score, positive) == pytest.approx(score / positive)


@given(cosines)
def test_equal_scores_give_one(score: float) -> None:
    assert relative_score(score, score) == 1


@given(cosines, cosines, cosines)
def test_it_never_falls_when_the_score_rises(one: float, other: float, positive: float) -> None:
    low, high = sorted((one, other))
    assert relative_score(low, positive) <= relative_score(high, positive)
