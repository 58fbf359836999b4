"""Killing the driver of generate in the middle: the next run loses no row and makes none twice."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from causalneg.generation.run import train_pairs
from causalneg.records import Analysis, Failure, Negative, Outcome
from causalneg.workspace import Workspace

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

QUERIES = "24"
SMALL_BATCHES = ["--engine.batch-pairs", "2", "--engine.batches-in-flight", "2"]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "causalneg.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))


def outcomes(workspace: Workspace) -> list[Outcome]:
    return list(workspace.read_rows("outcomes", Outcome))


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=30)


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = str(tmp_path_factory.mktemp("killed") / "ws")
    for command in (["import", "--max-train-queries", QUERIES], ["mine", "--search.depth", "20"]):
        assert start(*command, "--workspace", folder).wait() == 0
    return Workspace(folder)


def test_a_killed_run_goes_on_where_it_was(mined: Workspace) -> None:
    generate = ["generate", "--workspace", mined.root, *SMALL_BATCHES]
    driver = start(*generate)
    deadline = time.monotonic() + 400
    while not outcomes(mined):
        assert driver.poll() is None, "generate ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until_gone(children)
    before = {o.input_id: o for o in outcomes(mined)}
    assert 0 < len(before) < int(QUERIES)
    assert mined.manifest("generate") is None
    written_before = {
        n.id for n in mined.read_rows("negatives", Negative) if n.query_id in {o.query_id for o in before.values()}
    }
    # What a batch without outcomes leaves behind when it is cut off in the middle of writing.
    torn = Path(mined.path("negatives")) / "part-torn.parquet"
    torn.write_bytes(b"PAR1 and no more")

    assert start(*generate).wait() == 0

    after = outcomes(mined)
    assert Counter(o.input_id for o in after) == Counter(p.id for p in train_pairs(mined))
    assert all(o in after for o in before.values()), "a finished pair was done again"
    negatives = list(mined.read_rows("negatives", Negative))
    assert len({n.id for n in negatives}) == len(negatives)
    assert written_before <= {n.id for n in negatives}
    assert not torn.exists()
    by_pair = Counter((n.query_id, n.positive_id) for n in negatives)
    assert all(by_pair[o.query_id, o.positive_id] == o.accepted + o.rejected for o in after)
    failed = {f.input_id for f in mined.read_rows("failures", Failure)}
    assert len(list(mined.read_rows("analyses", Analysis))) + len(failed) == len(after)
    manifest = mined.require("generate")
    assert manifest.counts.rows_in == len(after) == int(QUERIES)
