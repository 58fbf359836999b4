"""What the tests of changes share: an exact index in a few lines, drawn changes, and what they come to."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from causalneg.filters import Filter
from causalneg.indexing.changes import Change
from causalneg.indexing.manifest import IndexModel
from causalneg.indexing.store import Passages
from causalneg.indexing.view import View
from causalneg.records import Passage, metadata_text, to_table

OWN, OTHER = "own-model", "other-model"
DIMENSION = 3


def passage(name: str, number: int) -> Passage:
    """A passage whose vector and metadata follow from its number."""
    return Passage(id=name, title="" if number % 2 else "T", text=f"text {number}", metadata=metadata_of(number))


def metadata_of(number: int) -> str:
    return metadata_text({"n": number, "odd": bool(number % 2)} if number % 3 else {})


def vector_of(text: str) -> np.ndarray:
    """Small whole numbers, so that inner products are exact in any order of adding, and ties are frequent."""
    number = int(text.split()[-1])
    digits = np.array([number % 3 - 1, number // 3 % 3 - 1, number // 9 % 3 - 1], np.float32)
    return digits if digits.any() else np.ones(DIMENSION, np.float32)


def encode(texts: list[str]) -> np.ndarray:
    return np.stack([vector_of(text) for text in texts])


class ExactIndex:
    """Searches by sorting: what an index does by its interface."""

    def __init__(
        self, passages: Sequence[Passage], version: str = "v1", change: int = 0, lexical: Path | None = None
    ) -> None:
        model = IndexModel(name="m", fingerprint=OWN)
        self.manifest = SimpleNamespace(version=version, dimension=DIMENSION, model=model, change=change)
        self.passages = Passages(to_table(Passage, passages).to_batches(max_chunksize=3))
        self.lexical_folder = lexical
        self._vectors = encode([p.full_text for p in passages])

    def search(self, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        if k < 1 or vectors.shape[1] != DIMENSION or not np.isfinite(vectors).all():
            raise ValueError("cannot be searched")
        scores = np.asarray(vectors, np.float32) @ self._vectors.T
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, order, 1)
        return best, np.where(np.isfinite(best), order, -1)


def view_of(passages: Sequence[Passage], **about: Any) -> View:
    return View.open(ExactIndex(passages, **about))  # type: ignore[arg-type]


IDS = st.sampled_from("abcdefgh")
NUMBERS = st.integers(0, 26)


def _change(entry: tuple[str, int | None, bool]) -> Change:
    name, number, own = entry
    if number is None:
        return Change.delete(name)
    put_in = passage(name, number)
    # What another encoder made is nonsense here, and must be encoded anew.
    vector = vector_of(put_in.full_text) if own else np.full(DIMENSION + 1, 7.0)
    return Change.upsert(put_in, OWN if own else OTHER, vector)


CHANGES = st.tuples(IDS, st.one_of(st.none(), NUMBERS), st.booleans()).map(_change)
BATCHES = st.lists(st.lists(CHANGES, min_size=1, max_size=4), max_size=6)
CORPORA = st.lists(st.tuples(IDS, NUMBERS), min_size=1, max_size=8, unique_by=lambda entry: entry[0]).map(
    lambda entries: [passage(*entry) for entry in entries]
)


def numbered(batches: Iterable[Iterable[Change]], first: int = 1) -> list[list[Change]]:
    """Give changes the numbers that the log would."""
    out: list[list[Change]] = []
    for batch in batches:
        out.append([change.model_copy(update={"number": first + n}) for n, change in enumerate(batch)])
        first += len(out[-1])
    return out


def after(passages: Sequence[Passage], changes: Iterable[Change]) -> list[Passage]:
    """Return the passages that there are after changes made one by one, in the order of a merge."""
    there = {p.id: p for p in passages}
    for change in changes:
        there.pop(change.id, None)
        if change.kind == "upsert":
            there[change.id] = change.passage
    return list(there.values())


QUERIES = np.array([[1, 0, 0], [0, 1, -1], [1, 1, 1], [-2, 1, 0]], np.float32)
FILTERS = [
    None,
    Filter.model_validate({"must": [{"key": "odd", "match": {"value": True}}]}),
    Filter.model_validate({"must_not": [{"key": "n", "range": {"gt": 9}}, {"has_id": ["a", "b"]}]}),
]


def answers(view: View) -> list[Any]:
    """Everything that a view answers to some queries, payloads included."""
    out: list[Any] = []
    for filter_ in FILTERS:
        for k in (1, 2, 5, 50):
            for hits in view.search(QUERIES, k, filter=filter_):
                out.append([(hit.id, hit.score, view.payload(hit)) for hit in hits])
    return out
