"""Which of the candidates that passed the filters are taken."""

import random
from collections.abc import Sequence
from typing import Literal

from causalneg.records import content_id


def take(
    scores: Sequence[float], wanted: int, how: Literal["top", "random", "spread"], seed: int, query_id: str
) -> set[int]:
    """Return the positions of those that are taken.

    Args:
        scores: of the candidates, in the order of their ranks.
        wanted: how many are taken, if there are as many.
        how: `top` takes the first, `random` draws them, `spread` takes those nearest to points at equal distances
            between the highest and the lowest score, both included.
        seed: of the draw.
        query_id: makes the draw of a query its own, whatever other queries there are.
    """
    if len(scores) <= wanted:
        return set(range(len(scores)))
    if how == "top":
        return set(range(wanted))
    if how == "random":
        return set(random.Random(content_id(seed, query_id)).sample(range(len(scores)), wanted))  # noqa: S311
    high, low = max(scores), min(scores)
    left = dict(enumerate(scores))
    for step in range(wanted):
        # From the highest to the lowest; a single one is the highest.
        point = high - (high - low) * step / max(1, wanted - 1)
        left.pop(min(left, key=lambda at: (abs(left[at] - point), at)))
    return set(range(len(scores))) - left.keys()
