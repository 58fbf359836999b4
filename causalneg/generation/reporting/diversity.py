"""How the accepted negatives of one pair of a query and its positive differ from each other."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from causalneg.records import Negative

_BINS = 5  # of the spread over hardness
_LEAST = 2  # accepted negatives that a pair has before they can differ


class Diversity(BaseModel):
    """Counts of the pairs with two or more accepted negatives.

    Attributes:
        requirements: pairs by their number of accepted negatives, then by how many different requirements these break.
        violations: likewise by how many kinds of violation they have.
        spread_edges: edges of the bins of `hardness_spread`.
        hardness_spread: pairs by how far their hardest negative is from their easiest in hardness.
    """

    requirements: dict[int, dict[int, int]]
    violations: dict[int, dict[int, int]]
    spread_edges: list[float]
    hardness_spread: list[int]

    def means(self) -> list[tuple[int, int, float, float]]:
        """Return for each number of accepted negatives: it, its pairs, and their mean requirements and violations."""
        return [
            (number, sum(counts.values()), _mean(counts), _mean(self.violations[number]))
            for number, counts in self.requirements.items()
        ]


def _mean(counts: Mapping[int, int]) -> float:
    return sum(value * count for value, count in counts.items()) / sum(counts.values())


def _ordered(counts: Mapping[int, Counter[int]]) -> dict[int, dict[int, int]]:
    return {number: dict(sorted(inner.items())) for number, inner in sorted(counts.items())}


class DiversityTally:
    """Counts pair by pair, in any order; its memory does not grow with them."""

    def __init__(self) -> None:
        self._requirements: dict[int, Counter[int]] = defaultdict(Counter)
        self._violations: dict[int, Counter[int]] = defaultdict(Counter)
        self._spread = [0] * _BINS

    def add(self, negatives: Sequence[Negative]) -> None:
        """Count the negatives of one pair."""
        accepted = [n for n in negatives if n.verdict == "accepted"]
        if len(accepted) < _LEAST:
            return
        self._requirements[len(accepted)][len({n.requirement_id for n in accepted})] += 1
        self._violations[len(accepted)][len({n.violation for n in accepted})] += 1
        hardness = [n.scores["hardness"] for n in accepted if "hardness" in n.scores]
        if len(hardness) >= _LEAST:
            self._spread[min(int((max(hardness) - min(hardness)) * _BINS), _BINS - 1)] += 1

    def result(self) -> Diversity:
        """Return what was counted."""
        return Diversity(
            requirements=_ordered(self._requirements),
            violations=_ordered(self._violations),
            spread_edges=[at / _BINS for at in range(_BINS + 1)],
            hardness_spread=list(self._spread),
        )
