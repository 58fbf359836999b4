"""Retrieval measures by their ir_measures names, computed by the reference implementations behind it."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from causalneg.errors import UserError

if TYPE_CHECKING:
    from ir_measures import Measure

Qrels = Mapping[str, Mapping[str, int]]
"""Query id to passage id to relevance; above zero is relevant."""
Run = Mapping[str, Mapping[str, float]]
"""Query id to passage id to score."""

_EXAMPLES = "nDCG@10, RR@10, R@100, AP, P(rel=2)@5"
_LARGEST = 999_999  # cutoff
# What measures are tried on before anything is paid for: a query with a relevant passage found and one missed.
_TRIAL: tuple[Qrels, Run] = ({"0": {"0": 1, "1": 0, "2": 2}}, {"0": {"0": -0.0, "1": -1.0}})


@dataclass(frozen=True)
class Scores:
    """Values of one run.

    Attributes:
        mean: measure to its mean over all judged queries.
        per_query: measure to query id to value.
    """

    mean: dict[str, float]
    per_query: dict[str, dict[str, float]]


def parse_measures(names: Iterable[str], setting: str = "evaluate.measures") -> dict[str, "Measure"]:
    """Return measures by the names they were given; one that was named before is left out.

    Args:
        names: as ir_measures writes them.
        setting: that they come from, for messages.

    Raises:
        UserError: a name is unknown or malformed, nothing here computes it, or there is none.
    """
    measures: dict[str, Measure] = {}
    for name in names:
        try:
            measure = _parse(name.strip())
        except ValueError as error:
            raise UserError(f"{setting}: {name!r} {error}.") from error
        if measure not in measures.values():
            measures[name.strip()] = measure
    if not measures:
        raise UserError(f"{setting} names no measure; give at least one, such as nDCG@10.")
    return measures


def _parse(name: str) -> "Measure":
    """Return the measure of a name.

    Raises:
        ValueError: there is none, or nothing here computes it; with the reason.
    """
    import ir_measures

    known = ir_measures.measures.registry
    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, TypeError) as error:
        base, rest = re.fullmatch(r"([^@(]*)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
        near = difflib.get_close_matches(base, known, 1, 0.5)
        hint = f"did you mean {near[0]}{rest}?" if near and near[0] != base else "they look like"
        raise ValueError(f"is no measure of ir_measures; {hint} {_EXAMPLES}") from error
    for parameter, info in measure.SUPPORTED_PARAMS.items():
        if info.required and parameter not in measure.params:
            example = "@10" if parameter == measure.AT_PARAM == "cutoff" else f"({parameter}=…)"
            raise ValueError(f"needs its {parameter}, as {measure.NAME}{example}")
    # The C code behind it ends the process on some cutoffs.
    if not 1 <= measure.params.get("cutoff", 1) <= _LARGEST:
        raise ValueError(f"has a cutoff that is not from 1 to {_LARGEST}")
    try:
        measure.validate_params()
        list(_values([measure], *_TRIAL))
    except Exception as error:  # each provider refuses in its own way
        raise ValueError(f"cannot be computed here: {str(error).strip() or type(error).__name__}") from error
    return measure


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
    measures = parse_measures(names)
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
    per_query: dict[str, dict[str, float]] = {name: dict.fromkeys(queries, 0.0) for name in measures}
    names_of = {measure: name for name, measure in measures.items()}
    for measure, query, value in _values(names_of, judged, by_rank):
        per_query[names_of[measure]][queries[int(query)]] = value
    mean = {name: sum(values.values()) / len(queries) for name, values in per_query.items()}
    return Scores(mean, per_query)


def _values(measures: Iterable["Measure"], qrels: Qrels, run: Run) -> Iterator[tuple["Measure", str, float]]:
    """Compute measures; yield each value with its measure and query."""
    import ir_measures

    for metric in ir_measures.iter_calc(list(measures), qrels, run):
        yield metric.measure, metric.query_id, float(metric.value)
