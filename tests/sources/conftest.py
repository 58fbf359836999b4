"""Fixtures of the import's tests."""

from pathlib import Path

import pytest
from source_samples import CORPUS, QUERIES, TEST, TRAIN, write_beir

from causalneg.workspace import Workspace


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A small, correct data set in the BEIR layout."""
    return write_beir(tmp_path / "beir", CORPUS, QUERIES, {"train": TRAIN, "test": TEST})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "ws"))
