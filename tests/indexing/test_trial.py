"""FAISS files that somebody made with care, checksums and all: refused or harmless, never the end of this process."""

import struct
from pathlib import Path
from typing import get_args

import faiss
import numpy as np
import pytest
from index_samples import asked, build, clustered, opened, reseal

from causalneg.indexing import trial
from causalneg.indexing.kinds import Kind
from causalneg.indexing.manifest import IndexDamaged

VECTORS = clustered(400, 16)
QUERIES = asked(VECTORS, 20)
VECTORS_FILE = "index-000.faiss"


@pytest.mark.parametrize("kind", get_args(Kind))
def test_whatever_the_bytes_are_this_process_goes_on(tmp_path: Path, kind: Kind) -> None:
    """Large numbers in the head of the file, where sizes stand, and random bytes anywhere."""
    build(tmp_path / "v", VECTORS, kind=kind)
    file = tmp_path / "v" / VECTORS_FILE
    whole = file.read_bytes()
    rng = np.random.default_rng(len(kind))
    for attempt in range(6):
        changed = bytearray(whole)
        if attempt % 2:
            for at in rng.integers(len(whole), size=8):
                changed[at] ^= int(rng.integers(1, 256))
        else:
            at = int(rng.integers(4, 200))
            changed[at : at + 8] = struct.pack("<q", int(rng.choice([-1, 2**31, 2**40, 2**62, 1])))
        file.write_bytes(changed)
        reseal(tmp_path / "v")
        try:
            index = opened(tmp_path / "v")
            scores, rows = index.search(QUERIES, 10)
        except IndexDamaged:
            continue
        assert ((rows >= 0) & (rows < len(VECTORS))).all()
        assert np.isfinite(scores).all()


def _changed(folder: Path, index: "faiss.Index") -> None:
    faiss.write_index(index, str(folder / VECTORS_FILE))
    reseal(folder)


@pytest.mark.parametrize("number", [-5, 400, 3])
def test_lists_that_name_other_rows_are_refused(tmp_path: Path, number: int) -> None:
    build(tmp_path / "v", VECTORS, kind="ivf_sq8")
    index = faiss.read_index(str(tmp_path / "v" / VECTORS_FILE))
    filled = next(at for at in range(index.nlist) if index.invlists.list_size(at))
    ids = faiss.rev_swig_ptr(index.invlists.get_ids(filled), 1)
    ids[0] = number if number != 3 else ids[0] + 1
    _changed(tmp_path / "v", index)
    with pytest.raises(IndexDamaged, match="do not hold each row once"):
        opened(tmp_path / "v")


@pytest.mark.parametrize("row", [400, -2, 2**30])
def test_links_to_other_rows_are_refused(tmp_path: Path, row: int) -> None:
    build(tmp_path / "v", VECTORS, kind="hnsw")
    index = faiss.read_index(str(tmp_path / "v" / VECTORS_FILE))
    links = faiss.vector_to_array(index.hnsw.neighbors)
    links[-1] = row
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    _changed(tmp_path / "v", index)
    with pytest.raises(IndexDamaged):
        opened(tmp_path / "v")


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "v", VECTORS, kind="flat")
    index = faiss.IndexFlatIP(16)
    index.add(np.full_like(VECTORS, np.nan))
    _changed(tmp_path / "v", index)
    with pytest.raises(IndexDamaged):
        opened(tmp_path / "v")


def test_the_vectors_of_another_kind_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "v", VECTORS, kind="sq8")
    other = faiss.index_factory(16, "SQ4", faiss.METRIC_INNER_PRODUCT)
    other.train(VECTORS)
    other.add(VECTORS)
    _changed(tmp_path / "v", other)
    with pytest.raises(IndexDamaged):
        opened(tmp_path / "v")


def test_a_trial_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "v", VECTORS, kind="flat")
    monkeypatch.setattr(trial, "_SECONDS", 0.0)
    with pytest.raises(IndexDamaged, match="takes without end"):
        opened(tmp_path / "v")


def test_a_crash_is_that_of_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "v", VECTORS, kind="flat")
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(crash))
    with pytest.raises(IndexDamaged, match="loading its vectors ended with SIGSEGV"):
        opened(tmp_path / "v")
