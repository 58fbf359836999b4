"""Versions with changes: what is put in is found, what is taken away is not, and a merge would change no answer."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from change_samples import (
    BATCHES,
    CORPORA,
    DIMENSION,
    FILTERS,
    OTHER,
    OWN,
    QUERIES,
    after,
    answers,
    encode,
    numbered,
    passage,
    vector_of,
    view_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from causalneg.config import IndexSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.filters import Filter
from causalneg.indexing.build import build_version
from causalneg.indexing.changes import Change
from causalneg.indexing.lexical import build_lexical
from causalneg.indexing.manifest import IndexModel
from causalneg.indexing.store import open_index
from causalneg.indexing.view import View
from causalneg.records import Passage, to_table

CORPUS = [passage(name, number) for name, number in zip("abcde", (1, 5, 9, 13, 22), strict=True)]


def put(name: str, number: int, at: int, model: str = OWN) -> Change:
    made = passage(name, number)
    return Change.upsert(made, model, vector_of(made.full_text)).model_copy(update={"number": at})


def taken(name: str, at: int) -> Change:
    return Change.delete(name).model_copy(update={"number": at})


def ids(view: View, k: int = 50, filter_: Filter | None = None) -> list[str]:
    return sorted(hit.id for hit in view.search(QUERIES[:1], k, filter=filter_)[0])


@settings(max_examples=30)
@given(CORPORA, BATCHES, st.integers(0, 6))
def test_a_version_with_changes_answers_as_one_built_of_the_outcome(
    corpus: list[Passage], batches: list[list[Change]], merged_at: int
) -> None:
    batches = numbered(batches)
    changes = [change for batch in batches for change in batch]
    step = view_of(corpus)
    for batch in batches:
        step = step.with_changes(batch, encode)
    left = after(corpus, changes)
    assert step.rows == len(left)
    assert step.change == len(changes)
    at_once = view_of(corpus).with_changes(changes, encode)
    assert answers(at_once) == answers(step)
    for name in "abcdefgh":
        assert step.passage(name) == next((p for p in left if p.id == name), None)
    if left:
        assert answers(view_of(left)) == answers(step)
    # Merged after some of the changes, and the rest made on that: no different again.
    some = [change for batch in batches[:merged_at] for change in batch]
    middle = after(corpus, some)
    if middle:
        later = view_of(middle, change=len(some)).with_changes(changes, encode)
        assert answers(later) == answers(step)


@settings(max_examples=20)
@given(CORPORA, BATCHES)
def test_a_view_is_never_changed_by_those_made_from_it(corpus: list[Passage], batches: list[list[Change]]) -> None:
    views = [view_of(corpus)]
    said = [answers(views[0])]
    for batch in numbered(batches):
        views.append(views[-1].with_changes(batch, encode))
        said.append(answers(views[-1]))
    assert [answers(view) for view in views] == said


@given(CORPORA, BATCHES)
def test_hits_are_those_of_brute_force(corpus: list[Passage], batches: list[list[Change]]) -> None:
    changes = [change for batch in numbered(batches) for change in batch]
    view, left = view_of(corpus).with_changes(changes, encode), after(corpus, changes)
    for query in QUERIES:
        (hits,) = view.search(query[None], 3)
        scores = {p.id: float(query @ vector_of(p.full_text)) for p in left}
        assert sorted((h.score for h in hits), reverse=True) == sorted(scores.values(), reverse=True)[:3]
        assert all(scores[h.id] == h.score for h in hits)
        order = [p.id for p in left]
        expected = sorted(scores, key=lambda name: (-scores[name], order.index(name)))
        assert [h.id for h in hits] == expected[:3], "equal scores are in the order of passages"


def test_changes_that_are_known_are_passed_over() -> None:
    view = view_of(CORPUS, change=5)
    assert view.with_changes([taken("a", 4), put("b", 2, 5)], encode) is view
    later = view.with_changes([taken("a", 4), taken("b", 6)], encode)
    assert (later.rows, later.change) == (4, 6)
    assert later.passage("a") is not None


def test_everything_may_be_taken_away_and_put_in_again() -> None:
    view = view_of(CORPUS).with_changes([taken(name, n) for n, name in enumerate("abcde", 1)], encode)
    assert view.rows == 0
    assert view.search(QUERIES, 3) == [[], [], [], []]
    again = view.with_changes([put("b", 7, 6)], encode)
    assert ids(again) == ["b"]
    found = again.passage("b")
    assert found is not None
    assert found.text == "text 7"
    assert view.rows == 0


def test_vectors_of_another_encoder_are_made_anew_and_only_those() -> None:
    asked: list[list[str]] = []

    def counted(texts: list[str]) -> np.ndarray:
        asked.append(texts)
        return encode(texts)

    view = view_of(CORPUS).with_changes([put("x", 1, 1), put("y", 2, 2, OTHER), put("z", 3, 3, OTHER)], counted)
    assert asked == [["T. text 2", "text 3"]]
    assert ids(view) == ["a", "b", "c", "d", "e", "x", "y", "z"]


@pytest.mark.parametrize("vector", [[0, 0, 0], [1, np.nan, 0], [np.inf, 0, 0], [1, 2], [1, 2, 3, 4]])
def test_vectors_that_cannot_be_found_do_not_enter(vector: list[float]) -> None:
    view = view_of(CORPUS)
    wrong = np.array(vector, np.float32)
    with pytest.raises(ValueError, match="the vector of 'x'"):
        view.with_changes([put("x", 1, 1, OTHER)], lambda texts: wrong[None])
    if len(vector) != DIMENSION:
        change = Change.upsert(passage("x", 1), OWN, wrong).model_copy(update={"number": 1})
        with pytest.raises(ValueError, match="the vector of 'x' has shape"):
            view.with_changes([change], encode)
    assert ids(view) == list("abcde")


def test_filters_apply_to_what_was_put_in() -> None:
    view = view_of(CORPUS).with_changes([put("x", 7, 1), put("y", 8, 2), put("a", 2, 3)], encode)
    odd = FILTERS[1]
    assert ids(view, filter_=odd) == ["b", "d", "x"]
    assert ids(view_of(CORPUS), filter_=odd) == ["a", "b", "d"]


@pytest.mark.parametrize("changed", [False, True])
def test_queries_that_cannot_be_answered_are_refused(changed: bool) -> None:
    view = view_of(CORPUS)
    view = view.with_changes([put("x", 7, 1)], encode) if changed else view
    for vectors, k in ((np.full((1, 3), np.nan), 1), (np.ones((1, 4)), 1), (np.ones((1, 3)), 0)):
        with pytest.raises(ValueError, match="cannot be searched"):
            view.search(vectors, k)


class TestHybrid:
    """Fusion of the dense list and that of BM25."""

    TEXTS = ["moon landing 1", "moon 5", "sun 9", "comet tail 13", "moon 22"]

    def view(self, folder: Path) -> View:
        corpus = [Passage(id=p.id, text=t, metadata=p.metadata) for p, t in zip(CORPUS, self.TEXTS, strict=True)]
        build_lexical(folder, [p.full_text for p in corpus], "none")
        return view_of(corpus, lexical=folder)

    def fused(self, lists: Sequence[Sequence[str]], k: int) -> list[tuple[str, float]]:
        """Reciprocal rank fusion, from its formula."""
        names = {name for names in lists for name in names}
        scores = {n: sum(1 / (60 + list(names).index(n) + 1) for names in lists if n in names) for n in names}
        return sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))[:k]

    def test_pages_go_on_where_those_before_end(self, tmp_path: Path) -> None:
        drawn = np.random.default_rng(0)
        corpus = [
            Passage(id=f"{drawn.random()}", text=f"{'moon ' * drawn.integers(4)}{'sun ' * drawn.integers(3)}{number}")
            for number in range(450)
        ]
        build_lexical(tmp_path, [p.full_text for p in corpus], "none")
        view = view_of(corpus, lexical=tmp_path).with_changes([put("x", 7, 1), taken(corpus[3].id, 2)], encode)
        for texts in (["moon"], ["moon sun"], ["nowhere"]):
            (whole,) = view.search(QUERIES[:1], 1000, texts=texts)
            assert len({hit.id for hit in whole}) == len(whole) == 450
            assert [hit.score for hit in whole] == sorted((hit.score for hit in whole), reverse=True)
            for k in (1, 10, 99, 100, 101, 150, 200, 201, 300, 449):
                assert view.search(QUERIES[:1], k, texts=texts)[0] == whole[:k]
        together = view.search(QUERIES[:2], 120, texts=["moon", "sun"])
        assert together[0] == view.search(QUERIES[:1], 120, texts=["moon"])[0]

    def test_it_is_the_fusion_of_both_lists(self, tmp_path: Path) -> None:
        view = self.view(tmp_path)
        query = QUERIES[2:3] + np.array([[0.25, 0.5, 0.125]], np.float32)  # no two passages score the same
        dense = [hit.id for hit in view.search(query, 50)[0]]
        (hits,) = view.search(query, 4, texts=["moon landing"])
        expected = self.fused([dense, ["a", "b", "e"]], 4)
        assert [hit.id for hit in hits] == [name for name, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected])

    def test_changes_and_filters_apply(self, tmp_path: Path) -> None:
        view = self.view(tmp_path).with_changes([taken("a", 1), put("x", 7, 2)], encode)
        (hits,) = view.search(QUERIES[:1], 50, texts=["moon landing"])
        assert sorted(hit.id for hit in hits) == ["b", "c", "d", "e", "x"]
        (hits,) = view.search(QUERIES[:1], 50, texts=["moon landing"], filter=FILTERS[1])
        assert sorted(hit.id for hit in hits) == ["b", "d", "x"]

    def test_without_the_index_it_is_refused(self) -> None:
        assert not view_of(CORPUS).has_lexical
        with pytest.raises(UserError, match="no BM25 index"):
            view_of(CORPUS).search(QUERIES[:1], 1, texts=["moon"])


def test_over_a_real_version(tmp_path: Path) -> None:
    folder = tmp_path / "index" / "v1"
    vectors = encode([p.full_text for p in CORPUS])
    build_version(
        folder,
        IndexModel(name="m", fingerprint=OWN),
        lambda: [vectors],
        to_table(Passage, CORPUS).to_batches(max_chunksize=2),
        IndexSettings(kind="flat", lexical=True, shards=2),
        rows=len(CORPUS),
        report=Reporter(io.StringIO()),
    )
    view = View.open(open_index(folder, OWN))
    assert (view.version, view.dimension, view.rows, view.change, view.has_lexical) == ("v1", DIMENSION, 5, 0, True)
    changes = [put("x", 7, 1), taken("b", 2), put("c", 2, 3), put("y", 26, 4, OTHER)]
    assert answers(view) == answers(view_of(CORPUS))
    changed = view.with_changes(changes, encode)
    assert answers(changed) == answers(view_of(CORPUS).with_changes(changes, encode))
    (hits,) = changed.search(QUERIES[:1], 3, texts=["text 13"])
    assert hits[0].id in "ad"
    assert changed.passage("b") is None
