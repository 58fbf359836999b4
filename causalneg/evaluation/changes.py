"""The queries whose value changed most, with the first hits before and after."""

from collections.abc import Mapping
from dataclasses import dataclass

from causalneg.evaluation.judged import Judged
from causalneg.evaluation.metrics import Run, ranked
from causalneg.workspace import Workspace

_SHOWN = 5  # queries that improved, and as many that got worse


@dataclass(frozen=True)
class TopHit:
    """The first passage that an encoder finds for a query."""

    text: str
    relevant: bool


@dataclass(frozen=True)
class Change:
    """A query with its value under both encoders."""

    query: str
    base: float
    trained: float
    base_hit: TopHit
    trained_hit: TopHit


def find_changes(
    workspace: Workspace,
    judged: Judged,
    runs: Mapping[str, Run],
    values: Mapping[str, Mapping[str, float]],
) -> tuple[list[Change], list[Change]]:
    """Return the queries that improved most, and those that got worse most.

    Args:
        workspace: has the passages' texts.
        judged: the queries.
        runs: hits of `base` and `trained`.
        values: of `base` and `trained`, by query.
    """
    base, trained = values["base"], values["trained"]
    by_gain = sorted(judged.texts, key=lambda query: (base[query] - trained[query], query))
    improved = [q for q in by_gain if trained[q] > base[q]][:_SHOWN]
    worse = [q for q in reversed(by_gain) if trained[q] < base[q]][:_SHOWN]
    first = {name: {q: ranked(runs[name][q])[0] for q in (*improved, *worse)} for name in values}
    passages = workspace.passages({p for hits in first.values() for p in hits.values()})

    def top(name: str, query: str) -> TopHit:
        passage = first[name][query]
        return TopHit(passages[passage].full_text, judged.qrels[query].get(passage, 0) > 0)

    def change(query: str) -> Change:
        return Change(judged.texts[query], base[query], trained[query], top("base", query), top("trained", query))

    return [change(q) for q in improved], [change(q) for q in worse]
