"""The mine stage's refusals."""

import json
from pathlib import Path

import pytest

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.mining.run import run as mine
from causalneg.sources.run import run as import_data
from causalneg.workspace import Workspace


def test_data_without_a_train_split_is_refused(tmp_path: Path, report: Reporter) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"query": "who?", "positive": "She did.", "split": "test"}) + "\n")
    workspace = Workspace(str(tmp_path / "ws"))
    config = load_config(flags={"import.source": str(pairs)})
    import_data(config, workspace, report)
    with pytest.raises(UserError, match="No train query has a positive"):
        mine(config, workspace, report)
    assert workspace.manifest("mine") is None
