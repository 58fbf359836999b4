"""The kinds of index: their size, their settings, and what they need to be built."""

from pathlib import Path
from typing import get_args

import pytest
from index_samples import asked, build, clustered

from causalneg.config import IndexSettings
from causalneg.errors import UserError
from causalneg.indexing.kinds import KINDS, Kind, estimated_bytes, lists


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (39, 1), (100, 2), (10_000, 256), (100_000, 1024)])
def test_there_are_as_many_lists_as_can_be_trained(rows: int, expected: int) -> None:
    assert lists(rows) == expected


def test_a_million_rows_have_4096_lists() -> None:
    assert lists(1_000_000) == 4096


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_size_is_known_before_it_is_built(tmp_path: Path, kind: Kind) -> None:
    vectors = clustered(4000, 64)
    manifest = build(tmp_path / "v", vectors, kind=kind, queries=asked(vectors, 10), shards=2)
    size = sum(entry.bytes for name, entry in manifest.files.items() if name.endswith(".faiss"))
    estimate = estimated_bytes(kind, [2000, 2000], 64)
    codebooks = 2 * 4 * 256 * 64 if kind == "ivf_pq" else 0  # the same however many rows there are
    assert size == pytest.approx(estimate + codebooks, rel=0.06)


@pytest.mark.parametrize("rows", [1, 100, 10_000, 10_000_000])
@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_settings_of_a_search_ascend_and_stay_within_the_index(kind: Kind, rows: int) -> None:
    ladder = KINDS[kind].ladder(rows)
    assert ladder
    costs = [rung.get("nprobe", rung.get("efSearch", 0)) * rung.get("k_factor", 1) for rung in ladder]
    assert costs == sorted(costs)
    assert all(rung.get("nprobe", 1) <= lists(rows) for rung in ladder)


@pytest.mark.parametrize("kind", sorted(set(get_args(Kind)) - {"ivf_pq"}))
@pytest.mark.parametrize("rows", [1, 2, 30])
def test_few_passages_can_be_of_any_kind(tmp_path: Path, kind: Kind, rows: int) -> None:
    assert build(tmp_path / "v", clustered(rows, 8), kind=kind).rows == rows


def test_too_few_passages_for_a_codebook_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ivf_pq is trained on at least 256 passages, and a shard has 30"):
        build(tmp_path / "v", clustered(30, 8), kind="ivf_pq")


def test_a_gpu_that_is_not_there_is_not_used(tmp_path: Path) -> None:
    import faiss

    if faiss.get_num_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="finds no GPU"):
        build(tmp_path / "v", clustered(30, 8), gpu=True)


def test_settings_know_every_kind() -> None:
    kinds = get_args(IndexSettings.model_fields["kind"].annotation)
    assert set(kinds) == {"auto", *get_args(Kind)}
