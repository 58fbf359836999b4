"""What the worker thread does: encodes texts of many requests together, and searches for those that want the same."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from causalneg.filters import Filter
from causalneg.indexing.view import Hit
from causalneg.serving import encoders
from causalneg.serving.holder import Served


@dataclass(frozen=True)
class Wanted:
    """What is to be found; requests that want the same are searched for together."""

    depth: int
    hybrid: bool
    filter: Filter | None

    @property
    def key(self) -> tuple[int, bool, str]:
        """What tells it from others."""
        return self.depth, self.hybrid, self.filter.model_dump_json() if self.filter else ""


@dataclass(frozen=True)
class Task:
    """One text on its way through the encoder and, where something is wanted, through the index."""

    served: Served
    ids: list[int]
    normalise: bool = True
    text: str = ""
    wanted: Wanted | None = None


@dataclass
class Done:
    """What came of a task; the seconds are those of the batch it was in."""

    vector: np.ndarray
    encode: float
    hits: list[Hit] | None = None
    search: float = 0.0


def padded_tokens(tasks: Sequence[Task]) -> int:
    """Return what a batch costs the encoder."""
    return encoders.padded_tokens([len(task.ids) for task in tasks])


def work(tasks: list[Task]) -> list[Done]:
    """Encode a batch and search with it; whatever belongs together is done in one call."""
    done: list[Done | None] = [None] * len(tasks)
    for members in _grouped(tasks, lambda t: (id(t.served.encoder), t.normalise)):
        began = time.perf_counter()
        first = tasks[members[0]]
        vectors = first.served.encoder.encode([tasks[m].ids for m in members], first.normalise)
        seconds = time.perf_counter() - began
        for member, vector in zip(members, vectors, strict=True):
            done[member] = Done(vector, seconds)
    finished = [d for d in done if d is not None]
    searching = [number for number, task in enumerate(tasks) if task.wanted]
    for group in _grouped([tasks[n] for n in searching], lambda t: (id(t.served.view), t.wanted and t.wanted.key)):
        members = [searching[g] for g in group]
        began = time.perf_counter()
        found = _search([tasks[m] for m in members], np.stack([finished[m].vector for m in members]))
        seconds = time.perf_counter() - began
        for member, hits in zip(members, found, strict=True):
            finished[member].hits, finished[member].search = hits, seconds
    return finished


def _search(tasks: list[Task], vectors: np.ndarray) -> list[list[Hit]]:
    wanted = tasks[0].wanted
    assert wanted is not None
    texts = [t.text for t in tasks] if wanted.hybrid else None
    return tasks[0].served.view.search(vectors, wanted.depth, texts=texts, filter=wanted.filter)


def _grouped(tasks: list[Task], key: Callable[[Task], Hashable]) -> list[list[int]]:
    """Return the places of the tasks with the same key, in the order of their first."""
    groups: dict[Hashable, list[int]] = {}
    for number, task in enumerate(tasks):
        groups.setdefault(key(task), []).append(number)
    return list(groups.values())
