"""A mine that is killed goes on where it was and ends with what an uninterrupted one gives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.records import Mined
from causalneg.sources.run import run as import_data
from causalneg.workspace import Workspace

WORDS = ("moon", "river", "engine", "whale", "opera", "press", "glass", "copper", "violin", "harbour")


def imported(root: Path, report: Reporter) -> Workspace:
    """Some thousand short passages: a few slices to encode."""
    source = root / "data"
    (source / "qrels").mkdir(parents=True)
    texts = [
        f"{a} {b} {c} {n}" for n, (a, b, c) in enumerate((a, b, c) for a in WORDS for b in WORDS for c in WORDS * 3)
    ]
    (source / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": str(n), "text": t}) for n, t in enumerate(texts)))
    queries = [json.dumps({"_id": w, "text": f"Which {w}?"}) for w in WORDS]
    (source / "queries.jsonl").write_text("\n".join(queries))
    (source / "qrels" / "train.tsv").write_text("".join(f"{w}\t{n * 300}\t1\n" for n, w in enumerate(WORDS)))
    workspace = Workspace(str(root / "ws"))
    import_data(load_config(flags={"import.source": str(source)}), workspace, report)
    return workspace


def command(workspace: Workspace) -> list[str]:
    return [sys.executable, "-m", "causalneg.cli", "mine", "--workspace", workspace.root, "--encode.precision", "fp32"]


def mined(workspace: Workspace) -> list[Mined]:
    subprocess.run(command(workspace), check=True, capture_output=True)
    return list(workspace.read_rows("mined", Mined))


def test_a_killed_mine_encodes_nothing_twice(tmp_path: Path, report: Reporter) -> None:
    workspace = imported(tmp_path / "killed", report)
    process = subprocess.Popen(command(workspace), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (blocks := workspace.list_files(["embeddings"], ".keys.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert workspace.manifest("mine") is None
    kept = {name: Path(workspace.path(name)).stat().st_mtime_ns for name in blocks}
    resumed = mined(workspace)
    assert kept == {name: Path(workspace.path(name)).stat().st_mtime_ns for name in blocks}
    assert len(workspace.list_files(["embeddings"], ".keys.npy")) > len(blocks)
    assert resumed == mined(imported(tmp_path / "whole", report))
