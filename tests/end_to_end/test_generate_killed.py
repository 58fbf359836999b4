"""Killing what generates, for real: driver, worker, engine, and a pair that kills; nothing lost, nothing twice."""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from processes import check_interrupted, one_descendant, start, wait_until_gone

from causalneg.generation.drafts import Drafts
from causalneg.generation.pairs import train_pairs
from causalneg.records import Analysis, Failure, Negative, Outcome
from causalneg.workspace import Workspace

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

QUERIES = "10"
SMALL_BATCHES = ["--engine.batch-pairs", "2", "--engine.batches-in-flight", "2"]


def drafts_of(workspace: Workspace) -> Drafts | None:
    keys = [name.split("/")[1] for name in workspace.list_files(["drafts"], "pairs.json")]
    return Drafts(workspace, keys[0]) if keys else None


def finished(workspace: Workspace) -> dict[str, Outcome]:
    """Return the outcomes of the pairs that are done, by pair id."""
    drafts = drafts_of(workspace)
    return {o.input_id: o for o in drafts.unfinished()[1]} if drafts else {}


def wait_for(workspace: Workspace, driver: subprocess.Popen[bytes], count: int) -> None:
    """Wait until so many pairs are done."""
    deadline = time.monotonic() + 400
    while len(finished(workspace)) < count:
        assert driver.poll() is None, "generate ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_whole(workspace: Workspace) -> None:
    """Every pair has one outcome, every negative one pair, and all adds up."""
    outcomes = list(workspace.read_rows("outcomes", Outcome))
    assert Counter(o.input_id for o in outcomes) == Counter(p.id for p in train_pairs(workspace))
    assert not [o for o in outcomes if o.status == "failed"]
    negatives = list(workspace.read_rows("negatives", Negative))
    assert len({n.id for n in negatives}) == len(negatives)
    by_pair = Counter((n.query_id, n.positive_id) for n in negatives)
    assert all(by_pair[o.query_id, o.positive_id] == o.accepted + o.rejected for o in outcomes)
    assert list(workspace.read_rows("failures", Failure)) == []
    assert len(list(workspace.read_rows("analyses", Analysis))) == len(outcomes)
    assert workspace.require("generate").counts.rows_in == len(outcomes) == int(QUERIES)


@contextmanager
def nothing_done_again(workspace: Workspace, before: dict[str, Outcome]) -> Iterator[None]:
    """Check that what was finished before is neither done nor written again."""
    drafts = drafts_of(workspace)
    assert drafts is not None
    kept = {n: Path(workspace.path(n)).stat().st_mtime_ns for n in workspace.list_files([drafts.folder], ".parquet")}
    yield
    after = finished(workspace)
    assert all(after[pair_id] == row for pair_id, row in before.items()), "a finished pair was done again"
    done = {b for b in drafts.batches() if set(drafts.read_outcomes(b)) <= set(before)}
    again = [n for n, at in kept.items() if Path(n).stem in done and Path(workspace.path(n)).stat().st_mtime_ns != at]
    assert again == [], "a finished step was written again"


@pytest.fixture
def mined(tmp_path: Path) -> Workspace:
    folder = str(tmp_path / "ws")
    for command in (["import", "--max-train-queries", QUERIES], ["mine", "--search.depth", "20"]):
        assert start(*command, "--workspace", folder).wait() == 0
    return Workspace(folder)


def test_a_killed_driver_goes_on_where_it_was(mined: Workspace) -> None:
    generate = ["generate", "--workspace", mined.root, *SMALL_BATCHES]
    driver = start(*generate)
    wait_for(mined, driver, 1)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until_gone(children)
    before = finished(mined)
    assert 0 < len(before) < int(QUERIES)
    assert mined.manifest("generate") is None

    with nothing_done_again(mined, before):
        assert start(*generate).wait() == 0
    check_whole(mined)


def test_an_interrupted_command_ends_with_its_engine_and_goes_on_where_it_was(mined: Workspace) -> None:
    generate = ["generate", "--workspace", mined.root, *SMALL_BATCHES]
    driver = start(*generate, stderr=subprocess.PIPE)
    wait_for(mined, driver, 1)
    check_interrupted(driver, signal.SIGINT)
    before = finished(mined)
    assert 0 < len(before) < int(QUERIES)

    with nothing_done_again(mined, before):
        driver = start(*generate, stderr=subprocess.PIPE)
        one_descendant(driver, "EngineCore")  # it starts, and takes no orders yet
        check_interrupted(driver, signal.SIGTERM)
        assert start(*generate).wait() == 0
    check_whole(mined)


@pytest.mark.parametrize("flags", [["--plan"], ["--engine.replicas", "2", "--engine.cpus", "0.5"]])
def test_an_engine_in_a_process_before_the_others_ends_with_the_command(mined: Workspace, flags: list[str]) -> None:
    driver = start("generate", "--workspace", mined.root, *flags, stderr=subprocess.PIPE)
    one_descendant(driver, "EngineCore")
    check_interrupted(driver, signal.SIGTERM)


def test_a_killed_engine_and_a_killed_worker_cost_the_run_nothing(mined: Workspace) -> None:
    driver = start("generate", "--workspace", mined.root, *SMALL_BATCHES)
    wait_for(mined, driver, 2)
    one_descendant(driver, "EngineCore").send_signal(signal.SIGKILL)
    wait_for(mined, driver, len(finished(mined)) + 2)
    one_descendant(driver, "MapWorker").send_signal(signal.SIGKILL)
    assert driver.wait() == 0
    check_whole(mined)
