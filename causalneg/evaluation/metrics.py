"""Retrieval measures by their ir_measures names, computed by the reference implementations behind it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from causalneg.errors import UserError

Qrels = Mapping[str, Mapping[str, int]]
"""Query id to passage id to relevance; above zero is relevant."""
Run = Mapping[str, Mapping[str, float]]
"""Query id to passage id to score."""

# Those whose cutoff is part of the definition, and those that look at the whole ranking without one.
_WITH_CUTOFF = ("P", "R", "Success")
_CUTOFF_OPTIONAL = ("AP", "RR", "nDCG")
_NAME = re.compile(r"([A-Za-z]+)(@([1-9]\d{0,5}))?", re.ASCII)


@dataclass(frozen=True)
class Scores:
    """Values of one run.

    Attributes:
        mean: measure to its mean over all judged queries.
        per_query: measure to query id to value.
    """

    mean: dict[str, float]
    per_query: dict[str, dict[str, float]]


def parse_measures(names: Iterable[str], setting: str = "evaluate.measures") -> dict[str, int | None]:
    """Check measure names and return them with their cutoffs, each once.

    Names are checked here and not by ir_measures alone, because the C code behind it ends the process on a
    cutoff of 0 or below.

    Args:
        names: as ir_measures writes them.
        setting: that they come from, for messages.

    Raises:
        UserError: a name is unknown or malformed, or there is none.
    """
    measures: dict[str, int | None] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        known = match is not None and (
            match[1] in _CUTOFF_OPTIONAL or (match[1] in _WITH_CUTOFF and match[3] is not None)
        )
        if match is None or not known:
            whole, cut = ", ".join(_CUTOFF_OPTIONAL), ", ".join(f"{n}@10" for n in _WITH_CUTOFF)
            raise UserError(
                f"{setting}: {name!r} is not known; there are {whole}, each also with a cutoff as in "
                f"nDCG@10, and {cut} with any cutoff from 1 to 999999."
            )
        measures[name] = int(match[3]) if match[3] else None
    if not measures:
        raise UserError(f"{setting} names no measure; give at least one, such as nDCG@10.")
    return measures


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Return passage ids, best first; equal scores in the order of ids."""
    return sorted(scores, key=lambda passage: (-scores[passage], passage))


def compute(names: Iterable[str], qrels: Qrels, run: Run) -> Scores:
    """Compute measures for every judged query; one that the run does not have scores zero.

    The providers behind ir_measures break ties differently and read ids as C strings, so they are given
    numbers as ids and ranks as scores: the ranking is always by score, then passage id.

    Raises:
        UserError: a measure is unknown.
        ValueError: no query is judged.
    """
    import ir_measures

    measures: dict[Any, str] = {ir_measures.parse_measure(name): name for name in parse_measures(names)}
    if not qrels:
        raise ValueError("no query is judged")
    numbers: dict[str, str] = {}

    def number(passage: str) -> str:
        return numbers.setdefault(passage, str(len(numbers)))

    queries = list(qrels)
    judged = {
        str(n): {number(p): max(0, relevance) for p, relevance in qrels[query].items()}
        for n, query in enumerate(queries)
    }
    by_rank = {
        str(n): {number(p): float(-rank) for rank, p in enumerate(ranked(run[query]))}
        for n, query in enumerate(queries)
        if run.get(query)
    }
    per_query: dict[str, dict[str, float]] = {name: dict.fromkeys(queries, 0.0) for name in measures.values()}
    for metric in ir_measures.iter_calc(list(measures), judged, by_rank):
        per_query[measures[metric.measure]][queries[int(metric.query_id)]] = float(metric.value)
    mean = {name: sum(values.values()) / len(queries) for name, values in per_query.items()}
    return Scores(mean, per_query)
