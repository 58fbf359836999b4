"""How kind and search are chosen: by what is measured, and all of it is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_samples import asked, build, clustered, nearest, opened, recall

from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.indexing import tune
from causalneg.indexing.kinds import KINDS

VECTORS = clustered(2500)
QUERIES = asked(VECTORS, 60)


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` measure small corpora as it does large ones."""
    monkeypatch.setattr(tune, "EXACT_BELOW", 1000)
    monkeypatch.setattr(tune, "_TIMED_QUERIES", 10)


def _said(report: Reporter) -> str:
    return report.console.file.getvalue()  # type: ignore[attr-defined]


def test_a_small_corpus_is_searched_exactly(tmp_path: Path) -> None:
    manifest = build(tmp_path / "v", VECTORS)
    assert (manifest.kind, manifest.recall, manifest.curve) == ("flat", 1.0, [])


@pytest.mark.usefixtures("_measured")
def test_the_fastest_kind_that_finds_enough_is_taken(tmp_path: Path, report: Reporter) -> None:
    manifest = build(tmp_path / "v", VECTORS, queries=QUERIES, report=report, recall=0.9)
    reached = [point for point in manifest.curve if point.recall >= 0.9]
    chosen = min(reached, key=lambda point: point.milliseconds)
    assert (manifest.kind, manifest.parameters, manifest.recall) == (chosen.kind, chosen.parameters, chosen.recall)
    assert {point.kind for point in manifest.curve} == set(KINDS) - {"ivf_pq"}  # which is for want of memory
    assert all(point.rows == 2500 and point.megabytes > 0 and point.milliseconds > 0 for point in manifest.curve)
    assert f"index: {manifest.kind}" in _said(report)
    assert "What recall costs" in _said(report)
    # What is stored is what the opened version does.
    found = opened(tmp_path / "v").search(QUERIES, 10)[1]
    assert recall(found, nearest(VECTORS, QUERIES, 10)) == pytest.approx(manifest.recall, abs=0.005)


@pytest.mark.usefixtures("_measured")
def test_kinds_are_compared_on_a_sample_and_those_near_the_best_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "_COMPARED_ROWS", 1500)
    manifest = build(tmp_path / "v", VECTORS, queries=QUERIES, recall=0.9, shards=2)
    assert {point.rows for point in manifest.curve} == {1500, 2500}
    reached = {rows: [p for p in manifest.curve if p.rows == rows and p.recall >= 0.9] for rows in (1500, 2500)}
    fastest = min(p.milliseconds for p in reached[1500])
    assert {p.kind for p in reached[2500]} == {p.kind for p in reached[1500] if p.milliseconds <= 2 * fastest}
    best = min(reached[2500], key=lambda point: point.milliseconds)
    assert (best.kind, best.parameters, best.recall) == (manifest.kind, manifest.parameters, manifest.recall)


@pytest.mark.usefixtures("_measured")
def test_a_kind_that_is_the_fastest_on_all_rows_is_taken_if_it_was_near_on_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times are made up: of the sample a graph is the fastest, of all rows inverted lists."""
    times = {("hnsw", 1500): 1.0, ("ivf_sq8", 1500): 1.9, ("hnsw", 2500): 4.0, ("ivf_sq8", 2500): 3.0}
    climb, climbed = tune._Tuner.climb, []

    def timed(tuner: Any, filler: Any, kind: Any, held: Any) -> Any:  # noqa: ANN401 - as the method has them
        point, indexes = climb(tuner, filler, kind, held)
        climbed.append((kind, point.rows))
        return point.model_copy(update={"milliseconds": times.get((kind, point.rows), 9.0)}), indexes

    monkeypatch.setattr(tune, "_COMPARED_ROWS", 1500)
    monkeypatch.setattr(tune._Tuner, "climb", timed)
    assert build(tmp_path / "v", VECTORS, queries=QUERIES, recall=0.9).kind == "ivf_sq8"
    assert [kind for kind, rows in climbed if rows == 2500] == ["hnsw", "ivf_sq8"]


@pytest.mark.usefixtures("_measured")
def test_what_does_not_fit_into_the_memory_is_not_taken(tmp_path: Path) -> None:
    some = 100_000 / 1024**3  # sq8 takes 80,000 bytes, all but ivf_pq more than 100,000
    manifest = build(tmp_path / "v", VECTORS, queries=QUERIES, recall=0.9, memory_gib=some)
    assert manifest.kind == "sq8"
    with pytest.raises(UserError, match=r"index.recall: nothing that fits .* \(best: ivf_pq 0\.\d+ with"):
        build(tmp_path / "w", VECTORS, queries=QUERIES, recall=0.999, memory_gib=some / 2)
    with pytest.raises(UserError, match=r"index.memory_gib: .* ivf_pq, the smallest, takes"):
        build(tmp_path / "w", VECTORS, queries=QUERIES, memory_gib=1e-6)


@pytest.mark.usefixtures("_measured")
def test_an_exact_search_is_taken_where_nothing_else_finds_all(tmp_path: Path) -> None:
    assert build(tmp_path / "v", VECTORS, queries=QUERIES, recall=1.0).recall == 1.0


def test_a_kind_that_is_asked_for_gets_the_cheapest_search_that_finds_enough(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).normal(size=(2560, 32)).astype(np.float32)  # no clusters: hard to find
    vectors, queries = drawn[:2500], drawn[2500:]
    low = build(tmp_path / "low", vectors, kind="ivf_sq8", queries=queries, recall=0.3)
    high = build(tmp_path / "high", vectors, kind="ivf_sq8", queries=queries, recall=0.9)
    assert low.parameters["nprobe"] < high.parameters["nprobe"]
    assert [point.recall >= 0.9 for point in high.curve] == [False] * (len(high.curve) - 1) + [True]
    assert high.recall == high.curve[-1].recall


def test_a_kind_that_finds_too_little_says_so(tmp_path: Path, report: Reporter) -> None:
    manifest = build(tmp_path / "v", VECTORS, kind="ivf_pq", queries=QUERIES, recall=0.999, report=report)
    assert manifest.recall is not None
    assert manifest.recall < 0.999
    assert manifest.recall == max(point.recall for point in manifest.curve)
    assert "that is less than index.recall, 0.999" in _said(report)


def test_without_queries_some_are_made_up(tmp_path: Path) -> None:
    manifest = build(tmp_path / "v", VECTORS, kind="sq8", tune_queries=40)
    assert manifest.recall is not None
    assert 0.8 < manifest.recall <= 1.0


def test_the_same_build_finds_the_same(tmp_path: Path) -> None:
    first, second = (build(tmp_path / name, VECTORS, kind="ivf_sq8", queries=QUERIES) for name in ("a", "b"))
    assert first.files == second.files
    assert (first.parameters, first.recall, first.canaries) == (second.parameters, second.recall, second.canaries)


def test_recall_counts_what_numpy_counts(tmp_path: Path) -> None:
    manifest = build(tmp_path / "v", VECTORS, kind="sq8", queries=QUERIES)
    found = opened(tmp_path / "v").search(QUERIES, 10)[1]
    exact = np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :10]
    assert manifest.recall == pytest.approx(recall(found, exact), abs=0.005)
