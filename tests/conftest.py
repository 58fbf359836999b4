"""Settings and fixtures of all tests: no network, real data where it is, one tiny imported workspace."""

import io
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.sources.run import run as run_import
from causalneg.workspace import Workspace

# The same examples in every run, and no deadline: a busy machine is no failure.
settings.register_profile("causalneg", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("causalneg")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def report() -> Reporter:
    """A reporter that writes into memory: `report.console.file.getvalue()`."""
    return Reporter(io.StringIO())


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data sets beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets, and there is no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def sample_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace into which the embedded sample was imported; to be read only."""
    workspace = Workspace(str(tmp_path_factory.mktemp("sample") / "ws"))
    run_import(load_config(), workspace, Reporter(io.StringIO()))
    return workspace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, then those that start Ray, then those that start vLLM."""
    items.sort(key=lambda item: 2 if item.get_closest_marker("vllm") else 1 if item.get_closest_marker("ray") else 0)
