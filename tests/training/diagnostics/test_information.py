"""The mutual information against known answers, scikit-learn, and its own interval's promise."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.feature_selection import mutual_info_classif

from causalneg.training.diagnostics.information import mutual_information, ross


def _draw(
    queries: int, mined: int, generated: int, distance: float, seed: int, shared: float = 0.3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw normal similarities, those of generated negatives moved; a share of the variance is the query's."""
    random = np.random.default_rng(seed)
    source = np.tile(np.arange(mined + generated) >= mined, queries)
    group = np.repeat(np.arange(queries), mined + generated)
    of_query = math.sqrt(shared) * random.standard_normal(queries)[group]
    return source, of_query + math.sqrt(1 - shared) * random.standard_normal(len(group)) + distance * source, group


def _true(distance: float, share: float) -> float:
    """Integrate the mutual information of two normal distributions at a distance, the second with a share."""

    def density(x: float) -> float:
        of_mined, of_generated = norm.pdf(x), norm.pdf(x, distance)
        both = (1 - share) * of_mined + share * of_generated
        return float(
            (1 - share) * of_mined * math.log(of_mined / both) + share * of_generated * math.log(of_generated / both)
        )

    return max(0.0, quad(density, -9, 9 + distance, limit=200)[0])


@pytest.mark.parametrize("n", [30, 500])
@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_same_as_scikit_learn(n: int, distance: float) -> None:
    source, similarity, _ = _draw(n, 4, 2, distance, seed=1)
    expected = mutual_info_classif(similarity[:, None], source, random_state=0)[0]
    assert ross(source, similarity) == pytest.approx(expected, rel=1e-6)


def test_a_source_with_fewer_observations_than_neighbours() -> None:
    source, similarity, _ = _draw(5, 8, 1, 1.0, seed=1)
    source[:-9] = False
    source[[3, 7]] = True
    expected = mutual_info_classif(similarity[:, None], source, random_state=0)[0]
    assert max(0.0, ross(source, similarity) or 0.0) == pytest.approx(expected, abs=1e-9)
    assert ross(np.arange(9) == 0, similarity[:9]) is None


def test_independent_is_about_0() -> None:
    found = mutual_information(*_draw(100, 15, 3, 0.0, seed=2), seed=0)
    assert found
    assert found.low == 0.0
    assert found.value < 0.02
    assert 0.0 <= found.high < 0.04


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("mined", "generated"), [(15, 3), (4, 4)])
def test_two_normal_distributions(distance: float, mined: int, generated: int) -> None:
    truth = _true(distance, generated / (mined + generated))
    found = mutual_information(*_draw(400, mined, generated, distance, seed=3), seed=0)
    assert found
    assert found.value == pytest.approx(truth, abs=0.03)
    assert found.low - 0.005 <= truth <= found.high + 0.005
    assert found.high - found.low < 0.1


def test_separable_is_the_source_s_entropy() -> None:
    found = mutual_information(*_draw(60, 3, 3, 100.0, seed=4), seed=0)
    assert found
    assert found.value == pytest.approx(math.log(2), abs=0.005)
    assert found.low == pytest.approx(math.log(2), abs=0.05)
    assert found.high <= math.log(2) + 1e-12


@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_interval_covers_the_truth(distance: float) -> None:
    repetitions, truth = 60, _true(distance, 3 / 9)
    covered = 0
    for seed in range(repetitions):
        found = mutual_information(*_draw(40, 6, 3, distance, seed), seed)
        assert found
        covered += found.low <= truth <= found.high
    # At 95 %, fewer than 52 of 60 have a chance below 1 %.
    assert covered >= 52


def test_queries_that_say_little_widen_the_interval() -> None:
    """Where negatives of a query are alike, many of them are few observations."""
    source, similarity, _ = _draw(20, 15, 0, 0.0, seed=5, shared=0.99)
    source = np.repeat(np.arange(20) % 2 == 0, 15)
    by_query = mutual_information(source, similarity, np.repeat(np.arange(20), 15), seed=0)
    by_row = mutual_information(source, similarity, np.arange(300), seed=0)
    assert by_query
    assert by_row
    assert by_query.value == by_row.value
    assert by_query.high - by_query.low > 1.5 * (by_row.high - by_row.low)


def test_seeded() -> None:
    drawn = _draw(30, 6, 3, 1.0, seed=6)
    assert mutual_information(*drawn, seed=1) == mutual_information(*drawn, seed=1)
    assert mutual_information(*drawn, seed=1) != mutual_information(*drawn, seed=2)


@pytest.mark.parametrize(
    ("queries", "mined", "generated"),
    [(30, 5, 0), (30, 0, 5), (9, 10, 10), (1, 50, 50), (0, 1, 1)],
    ids=["mined only", "generated only", "few groups", "one group", "nothing"],
)
def test_nothing_to_tell(queries: int, mined: int, generated: int) -> None:
    assert mutual_information(*_draw(queries, mined, generated, 1.0, seed=7), seed=0) is None


def test_few_negatives_of_a_source() -> None:
    _, similarity, group = _draw(30, 5, 1, 0.0, seed=7)
    assert mutual_information(np.arange(180) < 9, similarity, group, seed=0) is None


def test_source_in_too_few_groups() -> None:
    source = np.arange(900) < 12  # in two queries of 150, which most draws miss
    _, similarity, group = _draw(150, 5, 1, 0.0, seed=8)
    assert mutual_information(source, similarity, group, seed=0) is None


def test_constant_similarity() -> None:
    source, similarity, group = _draw(30, 5, 3, 0.0, seed=9)
    assert mutual_information(source, np.full_like(similarity, 0.3), group, seed=0) == (0.0, 0.0, 0.0)


def test_collapsed_encoder() -> None:
    """Similarities that differ in the last digits alone, with ties, beside a mean of 1."""
    source, similarity, group = _draw(60, 5, 3, 0.0, seed=11)
    collapsed = 1.0 - 1e-15 * np.round(np.abs(similarity))
    found = mutual_information(source, collapsed, group, seed=0)
    assert found
    assert all(map(math.isfinite, found))
    assert found.value < 0.05


@pytest.mark.parametrize("levels", [2, 20])
def test_ties_are_no_information(levels: int) -> None:
    source, similarity, group = _draw(60, 5, 3, 0.0, seed=10)
    ties = np.round(similarity * levels / 4) / levels
    found = mutual_information(source, ties, group, seed=0)
    assert found
    assert found.value < 0.05
    assert all(map(math.isfinite, found))
