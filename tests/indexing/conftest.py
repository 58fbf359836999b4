"""Small index versions and workspaces."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from index_samples import PASSAGES, build

from causalneg.console import Reporter
from causalneg.records import Passage, Qrel, Query
from causalneg.workspace import Counts, Workspace


@pytest.fixture
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(7).normal(size=(len(PASSAGES), 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def version(tmp_path: Path, vectors: np.ndarray) -> Path:
    """A whole index version, in one shard."""
    folder = tmp_path / "index" / "v1"
    build(folder, vectors, PASSAGES)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with a finished import."""
    workspace = Workspace(str(tmp_path / "ws"))
    stage = workspace.begin("import", {}, [])
    stage.workspace.write_rows("corpus", "000000", Passage, PASSAGES[:3])
    stage.workspace.write_rows("corpus", "000001", Passage, PASSAGES[3:])
    stage.workspace.write_rows("queries", "000000", Query, [Query(id="q", text="capital of Italy")])
    stage.workspace.write_rows("qrels", "000000", Qrel, [Qrel(query_id="q", passage_id="rome")])
    stage.finish(Counts(rows_in=len(PASSAGES), accepted=len(PASSAGES)))
    return workspace


@pytest.fixture
def report() -> Iterator[Reporter]:
    with io.StringIO() as stream:
        yield Reporter(stream)
