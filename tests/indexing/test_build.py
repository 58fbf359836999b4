"""Building a version: whole or not at all, whatever happens, and nothing in it that no search would find."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from index_samples import MODEL, PASSAGES, build, clustered, numbered, opened

from causalneg.config import IndexSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.files import locked
from causalneg.indexing.build import build_version
from causalneg.indexing.fill import by_shard
from causalneg.records import Passage, to_table


def _versions(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.mark.parametrize(("bad", "why"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0.0, "length 0")])
def test_a_vector_that_no_search_would_find_is_refused_with_its_passage(
    tmp_path: Path, vectors: np.ndarray, bad: float, why: str
) -> None:
    vectors[3] = bad
    with pytest.raises(UserError, match=rf"vector of passage bread \(row 3\) .*{why}"):
        build(tmp_path / "v", vectors, PASSAGES)
    assert _versions(tmp_path) == []


def test_a_vector_of_another_size_is_refused_with_its_passage(
    tmp_path: Path, vectors: np.ndarray, report: Reporter
) -> None:
    blocks = [vectors[:3], vectors[3:, :7]]
    batches = to_table(Passage, PASSAGES).to_batches()
    with pytest.raises(UserError, match=r"passage bread \(row 3\) has 7 dimensions, those before it have 8"):
        build_version(tmp_path / "v", MODEL, lambda: blocks, batches, IndexSettings(), rows=5, report=report)


@pytest.mark.parametrize(("passages", "message"), [(4, "5 vectors for 4"), (6, "5 vectors for 6")])
def test_as_many_vectors_as_passages_or_none(tmp_path: Path, vectors: np.ndarray, passages: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "v", vectors, numbered(passages))
    assert _versions(tmp_path) == []


@pytest.mark.parametrize("rows", [4, 6])
def test_as_many_passages_as_were_said(tmp_path: Path, vectors: np.ndarray, rows: int, report: Reporter) -> None:
    batches = to_table(Passage, PASSAGES).to_batches()
    with pytest.raises(ValueError, match=f"5 passages instead of {rows}"):
        build_version(tmp_path / "v", MODEL, lambda: [vectors], batches, IndexSettings(), rows=rows, report=report)


def test_an_empty_corpus_is_not_indexed(tmp_path: Path, report: Reporter) -> None:
    with pytest.raises(UserError, match="no passages"):
        build_version(tmp_path / "v", MODEL, lambda: [], [], IndexSettings(), rows=0, report=report)


def test_the_first_of_two_builders_wins(version: Path, vectors: np.ndarray) -> None:
    before = {path.name: path.read_bytes() for path in version.iterdir()}
    manifest = build(version, vectors[::-1], PASSAGES[::-1])
    assert manifest == opened(version).manifest
    assert {path.name: path.read_bytes() for path in version.iterdir()} == before


def test_builders_take_turns(version: Path, vectors: np.ndarray) -> None:
    other = threading.Thread(target=build, args=(version.with_name("v2"), vectors, PASSAGES))
    with locked(version.parent / "build.lock"):
        (version.parent / ".build-at-work").mkdir()
        other.start()
        other.join(0.3)
        assert _versions(version.parent) == [".build-at-work", "v1"]
    other.join()
    assert _versions(version.parent) == ["v1", "v2"]  # what its owner left behind is gone


def test_blocks_are_cut_where_shards_end() -> None:
    rows = np.arange(23)
    for sizes in ([23], [8, 8, 7], [1, 21, 1], [12, 11]):
        for width in (1, 5, 23):
            blocks = [rows[at : at + width] for at in range(0, 23, width)]
            shards: list[list[int]] = [[] for _ in sizes]
            for shard, part in by_shard(blocks, sizes):
                shards[shard] += part.tolist()
            assert [len(shard) for shard in shards] == sizes
            assert [row for shard in shards for row in shard] == rows.tolist()


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_a_build_that_ends_early_leaves_the_old_version_or_the_new_one(tmp_path: Path, fault: str) -> None:
    build(tmp_path / "v1", clustered(20, 8))
    script = Path(__file__).with_name("faulty_builds.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), fault],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    builds = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(build["second"] in ("absent", "whole") for build in builds)
    assert builds[-1] == {"ended": "done", "second": "whole", "left": ["build.lock", "v1", "v2"]}
    failed = [build for build in builds if build["ended"] != "done"]
    if fault == "kill":
        assert len(failed) > 20  # steps
        assert {build["second"] for build in failed} == {"absent", "whole"}  # before the rename and after
        assert any(name.startswith(".build-") for build in failed for name in build["left"])
    else:
        assert len(failed) == 4
        assert all("v2 cannot be written (" in build["ended"] for build in failed)
        assert all(build["left"] == ["build.lock", "v1"] for build in failed)
