"""Whether two runs differ by more than chance: paired tests, bootstrap intervals, correction for many tests."""

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import BaseModel

from causalneg.records import content_id

Values = Sequence[float] | np.ndarray

_HELD = 1 << 20  # values of the resamples that are held at a time
_SAME = 1e-12  # sums nearer to each other than this, relative to their terms, are equal: they differ by rounding


class Paired(BaseModel, frozen=True):
    """Ours against theirs over the same queries.

    Attributes:
        difference: mean of ours minus theirs.
        low: lower end of the 95 % interval of that mean, by bootstrap over queries.
        high: its upper end.
        p_randomisation: two-sided p of the paired randomisation test.
        p_t: two-sided p of the paired t-test.
        wins: queries where ours is larger.
        ties: queries where both are equal.
        losses: queries where theirs is larger.
    """

    difference: float
    low: float
    high: float
    p_randomisation: float
    p_t: float
    wins: int
    ties: int
    losses: int


def _generator(what: str, seed: int) -> np.random.Generator:
    return np.random.default_rng(int(content_id(what, seed), 16))


def _resampled(n: int, resamples: int, statistics: Callable[[int], np.ndarray]) -> np.ndarray:
    """Compute so many statistics of n values, a bounded number of values at a time; `statistics` gives that many."""
    rows = max(1, _HELD // n)
    return np.concatenate([statistics(min(rows, resamples - at)) for at in range(0, resamples, rows)])


def interval(values: Values, seed: int, resamples: int = 10_000, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean (Efron 1979), drawn by seed.

    Raises:
        ValueError: there is no value, or the confidence is not between 0 and 1.
    """
    data = np.asarray(values, np.float64)
    if not len(data) or not 0 < confidence < 1:
        raise ValueError("an interval needs values, and a confidence between 0 and 1")
    generator = _generator("interval", seed)

    def means(rows: int) -> np.ndarray:
        return data[generator.integers(0, len(data), (rows, len(data)), dtype=np.int32)].mean(axis=1)

    outside = (1 - confidence) / 2
    low, high = np.quantile(_resampled(len(data), resamples, means), [outside, 1 - outside])
    return float(low), float(high)


def _p_randomisation(differences: np.ndarray, seed: int, resamples: int) -> float:
    """Return the p of the sign-flip test: how often differences of random sign have as large a sum.

    The observed signs count as one of the draws, so that p is never 0 (Phipson and Smyth 2010). scipy's
    permutation_test draws the same, and takes a hundred times as long.
    """
    values = differences[differences != 0]  # a zero has no sign
    if not len(values):
        return 1.0
    generator = _generator("signs", seed)
    total, bytes_each = values.sum(), -(-len(values) // 8)

    def sums(rows: int) -> np.ndarray:
        drawn = np.frombuffer(generator.bytes(rows * bytes_each), np.uint8).reshape(rows, bytes_each)
        flipped = np.unpackbits(drawn, axis=1, count=len(values))
        return np.abs(total - 2 * (flipped.astype(np.float64) @ values))

    enough = np.abs(total) - _SAME * np.abs(values).sum()
    reached = np.count_nonzero(_resampled(len(values), resamples, sums) >= enough)
    return float((reached + 1) / (resamples + 1))


def _p_t(differences: np.ndarray) -> float:
    from scipy.stats import ttest_1samp

    if np.ptp(differences) <= _SAME * np.abs(differences).max():  # they have no spread to compare the mean with
        return 0.0 if differences[0] else 1.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def paired(ours: Values, theirs: Values, seed: int, resamples: int = 10_000) -> Paired:
    """Compare the values of the same queries under two runs, the queries in the same order.

    The randomisation test asks nothing of the values' distribution; it and the t-test agree on most retrieval
    measures (Smucker, Allan and Carterette 2007).

    Args:
        ours: a measure's value for each query.
        theirs: likewise, of the run to compare with.
        seed: of all that is drawn.
        resamples: random signs, and samples of the bootstrap.

    Raises:
        ValueError: the lengths differ, or there are fewer than two queries.
    """
    one, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"both sides must have a value for each query, but they have {one.shape} and {other.shape}")
    if len(one) < 2:
        raise ValueError("fewer than two queries cannot be tested")
    differences = one - other
    low, high = interval(differences, seed, resamples)
    return Paired(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_randomisation=_p_randomisation(differences, seed, resamples),
        p_t=_p_t(differences),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given (Holm 1979).

    Whoever calls those below a level significant is wrong in any of them with at most that probability.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    corrected = np.empty(len(p))
    corrected[order] = stepped
    return [float(value) for value in corrected]
