"""Index versions: what is written is read, and what is damaged is refused before it is read."""

import json
import re
import shutil
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest
from index_samples import MODEL, PASSAGES, asked, build, clustered, nearest, opened, reseal

from causalneg.errors import UserError
from causalneg.indexing.manifest import IndexDamaged, IndexManifest, read_manifest
from causalneg.indexing.store import open_index, open_passages, open_shards
from causalneg.records import Passage, to_table

FILES = ("manifest.json", "index-000.faiss", "passages-000.arrow")


def test_a_version_gives_back_what_it_was_built_from(version: Path, vectors: np.ndarray) -> None:
    index = opened(version)
    queries = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    scores, rows = index.search(queries, 3)
    assert rows.tolist() == nearest(vectors, queries, 3).tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), rtol=1e-5)
    assert [index.passages.get(row) for row in range(len(index.passages))] == PASSAGES
    assert index.passages.ids.to_pylist() == [passage.id for passage in PASSAGES]
    assert index.passages.metadata.to_pylist() == [passage.metadata for passage in PASSAGES]
    assert index.manifest.model == MODEL
    assert index.lexical_folder is None
    for row in (-1, len(PASSAGES)):
        with pytest.raises(IndexError, match="5 rows"):
            index.passages.get(row)


def test_a_version_of_several_shards_with_words_is_whole(tmp_path: Path, vectors: np.ndarray) -> None:
    manifest = build(tmp_path / "v", vectors, PASSAGES, shards=2, lexical=True)
    index = opened(tmp_path / "v")
    assert [shard.rows for shard in manifest.shards] == [3, 2]
    assert [index.passages.get(row) for row in range(5)] == PASSAGES
    assert index.lexical_folder == tmp_path / "v" / "bm25"
    assert {name.split("/")[0] for name in manifest.files} == {
        *("index-000.faiss", "index-001.faiss", "passages-000.arrow", "passages-001.arrow", "bm25"),
    }
    (tmp_path / "v" / "bm25" / "more.json").write_text("{}")
    with pytest.raises(IndexDamaged, match=r"bm25/more.json is not in manifest.json"):
        opened(tmp_path / "v")


def test_there_are_never_more_shards_than_passages(tmp_path: Path, vectors: np.ndarray) -> None:
    manifest = build(tmp_path / "v", vectors, PASSAGES, shards=9)
    assert [shard.rows for shard in manifest.shards] == [1] * 5


def test_canaries_are_found_by_their_own_vectors(tmp_path: Path) -> None:
    vectors = clustered(3000)
    manifest = build(tmp_path / "v", vectors, kind="ivf_sq8", queries=asked(vectors, 50))
    index = opened(tmp_path / "v")
    assert len(manifest.canaries) == 8
    for canary in manifest.canaries:
        row = int(canary.id.removeprefix("p"))
        assert index.search(vectors[row : row + 1], 1)[1].tolist() == [[row]]
        assert canary.text == f"text {row}"


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        (np.full((1, 8), np.nan, np.float32), 1, "NaN"),
        (np.full((1, 8), np.inf, np.float32), 1, "infinity"),
        (np.zeros((1, 8), np.float32), 1, "length 0"),
        (np.ones((1, 7), np.float32), 1, "shape"),
        (np.ones(8, np.float32), 1, "shape"),
        (np.ones((1, 8), np.float32), 0, "at least 1"),
    ],
)
def test_queries_that_cannot_be_answered_are_refused(version: Path, query: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(version).search(query, k)


@pytest.mark.parametrize("allowed", [np.ones(4, bool), np.ones((1, 5), bool), np.ones(5, np.uint8)])
def test_masks_of_another_shape_are_refused(version: Path, allowed: np.ndarray) -> None:
    with pytest.raises(ValueError, match="allowed"):
        opened(version).search(np.ones((1, 8), np.float32), 1, allowed)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_anywhere_is_refused(version: Path, name: str) -> None:
    whole = (version / name).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(500):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        (version / name).write_bytes(changed)
        with pytest.raises(IndexDamaged, match=f"{re.escape(str(version))} is damaged.*causalneg index"):
            opened(version)


def test_a_damaged_shard_is_refused_where_it_is_opened(tmp_path: Path, vectors: np.ndarray) -> None:
    manifest = build(tmp_path / "v", vectors, PASSAGES, shards=2)
    (tmp_path / "v" / "index-001.faiss").write_bytes(b"no index")
    assert len(open_passages(tmp_path / "v", manifest)) == len(PASSAGES)
    (shard,) = open_shards(tmp_path / "v", manifest, [0])
    assert shard.search(vectors[:1], 1, None)[1].tolist() == [[0]]
    for numbers in ([1], [0, 1]):
        with pytest.raises(IndexDamaged, match=r"index-001\.faiss"):
            open_shards(tmp_path / "v", manifest, numbers)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(version: Path, name: str) -> None:
    whole = (version / name).read_bytes()
    for length in np.random.default_rng(1).integers(len(whole), size=100):
        (version / name).write_bytes(whole[:length])
        with pytest.raises(IndexDamaged, match="damaged"):
            opened(version)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(version: Path, name: str) -> None:
    (version / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        opened(version)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rows", 4), ("dimension", 9), ("version", "v2"), ("created", "2001-01-01"), ("seal", ""), ("kind", "auto")],
)
def test_a_changed_field_of_the_manifest_is_refused(version: Path, field: str, value: object) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    (version / "manifest.json").write_text(json.dumps(manifest | {field: value}))
    with pytest.raises(IndexDamaged):
        opened(version)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 4},
        {"dimension": 9},
        {"version": "v2"},
        {"kind": "sq8"},
        {"shards": []},
        {"lexical": True},
        {"shards": [{"rows": 4}], "rows": 4},
        {"shards": [{"rows": 6}, {"rows": -1}]},
        {"files": {"../v1/manifest.json": {"bytes": 1, "sha256": ""}}},
    ],
)
def test_files_that_contradict_a_sealed_manifest_are_refused(version: Path, changes: dict[str, object]) -> None:
    content = read_manifest(version).model_dump() | changes
    (version / "manifest.json").write_bytes(IndexManifest.model_validate(content).sealed().written())
    with pytest.raises(IndexDamaged):
        opened(version)


def test_passages_of_another_corpus_are_refused(version: Path) -> None:
    table = to_table(Passage, PASSAGES[:4])
    with pa.OSFile(str(version / "passages-000.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    reseal(version)
    with pytest.raises(IndexDamaged, match=r"passages-000.arrow has 4 rows, not 5"):
        opened(version)


def test_passages_with_other_columns_are_refused(version: Path) -> None:
    table = to_table(Passage, PASSAGES).drop_columns(["metadata"])
    with pa.OSFile(str(version / "passages-000.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    reseal(version)
    with pytest.raises(IndexDamaged, match="does not have the columns id, title, text, metadata"):
        opened(version)


def test_vectors_of_another_metric_are_refused(version: Path, vectors: np.ndarray) -> None:
    other = faiss.IndexFlatL2(8)
    other.add(vectors)
    faiss.write_index(other, str(version / "index-000.faiss"))
    reseal(version)
    with pytest.raises(IndexDamaged, match="not an inner-product index of kind flat with 8 dimensions"):
        opened(version)


def test_the_index_of_another_model_is_refused(version: Path) -> None:
    with pytest.raises(UserError, match=r"built with the model test .* run `causalneg index` again"):
        open_index(version, "fedcba9876543210")


def test_a_version_can_be_moved_with_its_name(version: Path, tmp_path: Path) -> None:
    shutil.move(version, tmp_path / "elsewhere" / "v1")
    assert opened(tmp_path / "elsewhere" / "v1").manifest.model == MODEL
