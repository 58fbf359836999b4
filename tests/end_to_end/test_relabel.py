"""The relabel stage from outside against an endpoint that judges by a rule: killed, resumed, retried, decided anew."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import start, wait_until_gone

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.generation.pairs import train_pairs
from causalneg.generation.relabel.rows import Drafts, Judged
from causalneg.generation.relabel.run import run
from causalneg.records import Failure, Relabelled
from causalneg.runtime import ray_session
from causalneg.workspace import Counts, Manifest, Workspace

sys.path.append(str(Path(__file__).parents[1] / "generation"))

from relabel_samples import QUERIES, Judge, judging, mined_workspace

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CANDIDATES = 5 * QUERIES


def relabel(server: Judge, workspace: Workspace, **settings: Any) -> tuple[Manifest | None, str]:
    """Run the stage, and return its manifest and what it said."""
    flags = {"engine.url": server.url, "engine.max_attempts": 1, "engine.batch_pairs": 2, "check": False, **settings}
    config = load_config(None, {"llm": "judge", **{f"relabel.{name}": value for name, value in flags.items()}})
    output = io.StringIO()
    return run(config, workspace, Reporter(output)), output.getvalue()


def test_verdicts_failures_retries_and_another_decision(tmp_path: Path) -> None:
    workspace = mined_workspace(str(tmp_path / "ws"))
    with judging() as server, ray_session():
        planned, said = relabel(server, workspace, plan=True)
        assert planned is None
        assert len(server.asked) == 2
        assert "4 of 6" in said
        assert workspace.manifest("relabel") is None

        server.garbled = {4}
        manifest, said = relabel(server, workspace)
        assert sorted(server.asked) == list(range(QUERIES)), "what the plan paid for is not paid for again"
        assert manifest is not None
        assert manifest.counts == Counts(rows_in=CANDIDATES, accepted=15, rejected=10, failed=5)
        assert manifest.details["answering"] == {"no": 15, "answers": 5, "partly": 5}
        assert manifest.details["failed_queries"] == {"invalid_judgement": 1}
        assert manifest.tokens == {"prompt": 600, "cached": 0, "generated": 60}
        assert "10 of 30 mined negatives of 6 queries are false" in said
        rows = list(workspace.read_rows("relabelled", Relabelled))
        assert {(r.passage_id, r.rejected_by, r.reason) for r in rows if r.query_id == "q0"} == {
            ("m0-0", None, ""),
            ("m0-1", "answers", "It is number 2."),
            ("m0-2", None, ""),
            ("m0-3", "partly", "It is number 4."),
            ("m0-4", None, ""),
        }
        assert [f.input_id for f in workspace.read_rows("relabel_failures", Failure)] == ["q4"]
        # Generation shows the LLM none of those that answer.
        assert [p.id for p in next(train_pairs(workspace)).references] == ["m0-0", "m0-2", "m0-4"]

        server.asked = []
        _, said = relabel(server, workspace)
        assert "already done (10 false negatives)" in said
        server.garbled = set()
        manifest, _ = relabel(server, workspace, retry_failed=True)
        assert server.asked == [4]
        assert manifest is not None
        assert manifest.counts == Counts(rows_in=CANDIDATES, accepted=18, rejected=12)

        server.asked = []
        manifest, _ = relabel(server, workspace, false_negatives=["answers"])
        assert manifest is not None
        assert manifest.counts == Counts(rows_in=CANDIDATES, accepted=24, rejected=6)
        assert server.asked == [], "to decide anew asks no LLM"


def judged(workspace: Workspace) -> dict[str, Judged]:
    """Return what is kept of queries, by their ids."""
    keys = [name.split("/")[1] for name in workspace.list_files(["drafts"], "queries.json")]
    return {row.query_id: row for key in keys for row in Drafts(workspace, key).unfinished()[1]}


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    workspace = mined_workspace(str(tmp_path / "ws"))
    with judging() as server:
        server.held = {3, 5}  # two batches can't end
        command = ["relabel", "--workspace", workspace.root, "--llm", "judge", "--engine.url", server.url]
        command += ["--engine.batch-pairs", "2", "--check", "false"]
        driver = start(*command)
        deadline = time.monotonic() + 300
        while len(judged(workspace)) < QUERIES - 2:
            assert driver.poll() is None, "relabel ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        wait_until_gone(children)
        before = judged(workspace)
        assert set(before) == {"q0", "q1", "q2", "q4"}
        server.held = set()
        server.let_go.set()
        with server.lock:
            server.asked = []

        done = subprocess.run(
            [sys.executable, "-m", "causalneg.cli", *command],
            env=dict(os.environ), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "going on after 4 of 6 queries" in done.stderr
        assert set(server.asked) == {3, 5}
    after = judged(workspace)
    assert all(after[query] == row for query, row in before.items())
    assert workspace.require("relabel").counts == Counts(rows_in=CANDIDATES, accepted=18, rejected=12)
