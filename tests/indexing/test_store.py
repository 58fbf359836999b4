"""Index versions: what is written is read, and what is damaged is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from index_samples import MODEL, PASSAGES

from causalneg.errors import UserError
from causalneg.files import file_sha256
from causalneg.indexing.build import build_version
from causalneg.indexing.store import IndexManifest, IndexModel, open_index
from causalneg.records import Passage, to_table
from causalneg.workspace import FileEntry

FILES = ("manifest.json", "index.faiss", "passages.arrow")


def _reseal(folder: Path, **changes: object) -> None:
    """Write a manifest that is right about its files and its seal, but otherwise changed."""
    manifest = IndexManifest.model_validate_json((folder / "manifest.json").read_bytes())
    files = {n: FileEntry(bytes=(folder / n).stat().st_size, sha256=file_sha256(folder / n)) for n in FILES[1:]}
    changed = manifest.model_copy(update={"files": files, **changes}).sealed()
    (folder / "manifest.json").write_text(changed.model_dump_json())


def test_search_agrees_with_brute_force(version: Path, vectors: np.ndarray) -> None:
    index = open_index(version, MODEL.fingerprint)
    queries = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    expected = queries @ vectors.T
    for hits, scores in zip(index.search(queries, 3), expected, strict=True):
        order = np.argsort(-scores)[:3]
        assert [hit.id for hit in hits] == [PASSAGES[i].id for i in order]
        assert [hit.row for hit in hits] == order.tolist()
        np.testing.assert_allclose([hit.score for hit in hits], scores[order], rtol=1e-5)


def test_each_row_gives_its_passage_and_no_other_row_does(version: Path) -> None:
    index = open_index(version, MODEL.fingerprint)
    assert [index.passage(row) for row in range(len(PASSAGES))] == PASSAGES
    for row in (-1, len(PASSAGES)):
        with pytest.raises(IndexError, match="5 rows"):
            index.passage(row)


def test_equal_scores_come_in_the_order_of_ids(tmp_path: Path) -> None:
    rows = [Passage(id=name, text=name) for name in ("c", "a", "b")]
    same = np.ones((3, 2), np.float32)
    build_version(tmp_path / "v", MODEL, [same], to_table(Passage, rows).to_batches())
    (hits,) = open_index(tmp_path / "v", MODEL.fingerprint).search(same[:1], 10)
    assert [hit.id for hit in hits] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        (np.full((1, 8), np.nan, np.float32), 1, "NaN"),
        (np.full((1, 8), np.inf, np.float32), 1, "infinity"),
        (np.ones((1, 7), np.float32), 1, "shape"),
        (np.ones(8, np.float32), 1, "shape"),
        (np.ones((1, 8), np.float32), 0, "at least 1"),
    ],
)
def test_queries_that_cannot_be_answered_are_refused(version: Path, query: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_index(version, MODEL.fingerprint).search(query, k)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_anywhere_is_refused(version: Path, name: str) -> None:
    whole = (version / name).read_bytes()
    for position in sorted({0, len(whole) - 1, *range(0, len(whole), max(1, len(whole) // 40))}):
        flipped = bytearray(whole)
        flipped[position] ^= 0xFF
        (version / name).write_bytes(flipped)
        with pytest.raises(UserError, match=f"{re.escape(str(version))} is damaged.*causalneg index"):
            open_index(version, MODEL.fingerprint)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_truncated_file_is_refused(version: Path, name: str, kept: float) -> None:
    whole = (version / name).read_bytes()
    (version / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UserError, match="damaged"):
        open_index(version, MODEL.fingerprint)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(version: Path, name: str) -> None:
    (version / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        open_index(version, MODEL.fingerprint)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rows", 4), ("dimension", 9), ("version", "v2"), ("created", "2001-01-01"), ("seal", "")],
)
def test_a_changed_field_of_the_manifest_is_refused(version: Path, field: str, value: object) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    (version / "manifest.json").write_text(json.dumps(manifest | {field: value}))
    with pytest.raises(UserError, match="damaged"):
        open_index(version, MODEL.fingerprint)


@pytest.mark.parametrize(("field", "value"), [("rows", 4), ("dimension", 9), ("version", "v2")])
def test_files_that_contradict_a_well_formed_manifest_are_refused(version: Path, field: str, value: object) -> None:
    _reseal(version, **{field: value})
    with pytest.raises(UserError, match="damaged"):
        open_index(version, MODEL.fingerprint)


def test_passages_of_another_corpus_are_refused(version: Path) -> None:
    table = to_table(Passage, PASSAGES[:4])
    with pa.OSFile(str(version / "passages.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    _reseal(version)
    with pytest.raises(UserError, match=r"passages.arrow has 4 rows, manifest.json 5"):
        open_index(version, MODEL.fingerprint)


def test_an_index_of_another_kind_is_refused(version: Path, vectors: np.ndarray) -> None:
    import faiss

    other = faiss.IndexFlatL2(8)
    other.add(vectors)
    faiss.write_index(other, str(version / "index.faiss"))
    _reseal(version)
    with pytest.raises(UserError, match="not a flat inner-product index"):
        open_index(version, MODEL.fingerprint)


def test_the_index_of_another_model_is_refused(version: Path) -> None:
    with pytest.raises(UserError, match=r"built with the model test .* run `causalneg index` again"):
        open_index(version, "fedcba9876543210")


def test_a_version_is_published_whole_or_not_at_all(tmp_path: Path, vectors: np.ndarray) -> None:
    batches = to_table(Passage, PASSAGES[:4]).to_batches()
    with pytest.raises(ValueError, match="5 vectors for 4 passages"):
        build_version(tmp_path / "v", MODEL, [vectors], batches)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_builders_wins(version: Path, vectors: np.ndarray) -> None:
    before = {path.name: path.read_bytes() for path in version.iterdir()}
    build_version(version, MODEL, [vectors], to_table(Passage, PASSAGES).to_batches())
    assert {path.name: path.read_bytes() for path in version.iterdir()} == before
    assert [path.name for path in version.parent.iterdir()] == ["v1"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_not_indexed(tmp_path: Path, vectors: np.ndarray, bad: float) -> None:
    vectors[2, 3] = bad
    with pytest.raises(UserError, match="NaN"):
        build_version(tmp_path / "v", MODEL, [vectors], to_table(Passage, PASSAGES).to_batches())


def test_an_empty_corpus_is_not_indexed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no passages"):
        build_version(tmp_path / "v", MODEL, [], [])


def test_a_version_can_be_moved_with_its_name(version: Path, tmp_path: Path) -> None:
    shutil.move(version, tmp_path / "elsewhere" / "v1")
    assert open_index(tmp_path / "elsewhere" / "v1", MODEL.fingerprint).manifest.model == IndexModel(
        name="test", fingerprint=MODEL.fingerprint
    )
