"""Mutual information between a negative's source and its similarity to the query.

It is zero where similarity says nothing of the source, and ln 2 where it tells two equally frequent sources apart in
every case. The entropy term of arXiv 2606.01304 claims to lower it; this measures whether it does.

Two things decide how the interval is made:

- Negatives of one query are not independent, so whole queries are drawn.
- An estimate by nearest neighbours breaks when an observation is drawn twice, since it then is its own neighbour at
  distance zero. So a quarter of the queries is drawn at a time, without replacement (Politis & Romano 1994). The
  estimates' deviations from the whole are scaled by √(drawn / not drawn), and not by √(drawn / all): the whole holds
  the part, and the variance of their difference goes by 1 / drawn - 1 / all. The interval is the symmetric one, by the
  size of the deviations, since their common shift is bias and counts as well.

In simulations with 10 to 200 queries of 3 generated and 6 or 15 mined negatives the interval held the truth in 93 to
100 % of cases, and in 84 to 95 % where the sources were three standard deviations apart: there few queries bias the
estimate upwards.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import digamma

_NEIGHBOURS = 3
_LEAST = 10  # negatives of each source, and groups
_SHARE = 4  # one in so many groups is drawn at a time
_DRAWN_GROUPS = 5  # at least
_DRAWS = 200
_NOISE = 1e-10  # standard deviations: breaks ties and no order


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def _to_kth_neighbour(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends `[n]` of the open interval around each of the sorted values that its k-th neighbour bounds."""
    padded = np.concatenate([np.full(k, -np.inf), values, np.full(k, np.inf)])
    # The k nearest are those of k + 1 values in a row that hold the value itself; the k-th is at an end of the row.
    rows = np.lib.stride_tricks.sliding_window_view(padded, len(values))
    below, above = rows[: k + 1], rows[k:]
    reach = np.maximum(values - below, above - values)
    best = reach.argmin(axis=0)
    at = np.arange(len(values))
    left, right = below[best, at], above[best, at]
    # The end where the neighbour lies is its exact value, so that no rounding counts it in.
    is_left = values - left > right - values
    return np.where(is_left, left, values - (right - values)), np.where(is_left, values + (values - left), right)


def ross(source: np.ndarray, similarity: np.ndarray) -> float | None:
    """Estimate mutual information in nats by nearest neighbours; it may come out below 0.

    Args:
        source: bool `[n]`.
        similarity: float `[n]`, without ties.

    Returns:
        None where a source has fewer than 2 observations.

    Source: Ross 2014, PLoS ONE 9(2) e87357, equation 2; scikit-learn's `mutual_info_classif` is the same cut off at 0,
    which would bend the distribution that the interval is made of.
    """
    everything = np.sort(similarity)
    n_all = len(everything)
    total = 0.0
    for values in (np.sort(similarity[source]), np.sort(similarity[~source])):
        n = len(values)
        if n < 2:
            return None
        k = min(_NEIGHBOURS, n - 1)
        low, high = _to_kth_neighbour(values, k)
        inside = np.searchsorted(everything, high, "left") - np.searchsorted(everything, low, "right")
        total += n * (digamma(k) - digamma(n)) - digamma(inside).sum()
    return float(digamma(n_all) + total / n_all)


def mutual_information(source: np.ndarray, similarity: np.ndarray, group: np.ndarray, seed: int) -> Interval | None:
    """Estimate the mutual information between source and similarity, in nats, with its 95 % interval.

    Everything is cut off at 0 and at the source's entropy, outside of which no mutual information lies. A similarity
    that is the same everywhere tells nothing: all three are 0 then. Equal similarities are told apart by a noise far
    below their spread, as scikit-learn does.

    Args:
        source: bool `[n]`, True for generated.
        similarity: finite `[n]`.
        group: int `[n]`, query of each negative.
        seed: of the noise and of the draws.

    Returns:
        None where there are fewer than 10 negatives of a source or 10 groups, or where a source stands in so few
        groups that most draws miss it.

    Source: Ross 2014, PLoS ONE 9(2) e87357; Politis & Romano 1994, Annals of Statistics 22(4).
    """
    source, similarity = np.asarray(source, bool), np.asarray(similarity, float)
    groups, group = np.unique(group, return_inverse=True)
    generated = int(source.sum())
    if min(generated, len(source) - generated, len(groups)) < _LEAST:
        return None
    if similarity.min() == similarity.max():
        return Interval(0.0, 0.0, 0.0)
    random = np.random.default_rng(seed)
    # Scaled first: beside a large mean, noise that is small beside the spread would be rounded away.
    similarity = (similarity - similarity.mean()) / similarity.std()
    similarity += _NOISE * random.standard_normal(len(similarity))
    value = ross(source, similarity)
    assert value is not None  # there are enough of both
    drawn = max(len(groups) // _SHARE, _DRAWN_GROUPS)
    deviations = []
    for _ in range(_DRAWS):
        chosen = np.zeros(len(groups), bool)
        chosen[random.choice(len(groups), drawn, replace=False)] = True
        within = chosen[group]
        part = ross(source[within], similarity[within])
        if part is not None:
            deviations.append(abs(part - value))
    if len(deviations) < _DRAWS / 2:
        return None
    half = float(np.quantile(deviations, 0.95)) * np.sqrt(drawn / (len(groups) - drawn))
    shares = np.array([generated, len(source) - generated]) / len(source)
    most = float(-(shares * np.log(shares)).sum())
    return Interval(*(float(np.clip(v, 0.0, most)) for v in (value, value - half, value + half)))
