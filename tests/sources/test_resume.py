"""An import that is killed goes on where it was, and its result is that of an uninterrupted one."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from source_samples import imported, lines, write_beir

from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.sources.run import run
from causalneg.sources.staging import Staging
from causalneg.workspace import Workspace

PASSAGES = 35_000
STAGING = "building/import/staging"

# Imports, and kills itself with SIGKILL at the n-th call of a function.
KILLED = """
import io, os, signal, sys
from causalneg.config import load_config
from causalneg.console import Reporter
from causalneg.sources import run, settle, staging
from causalneg.workspace import StageRun, Workspace
source, folder, place, calls = *sys.argv[1:4], int(sys.argv[4])
owner, name = {
    "part": (Workspace, "write_table"), "row": (staging.Staging, "add"), "commit": (staging.Staging, "keep"),
    "settle": (run, "write_settled"), "finish": (StageRun, "finish"),
}[place]
original = getattr(owner, name)
def counted(*arguments, **named):
    global calls
    calls -= 1
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)
setattr(owner, name, counted)
config = load_config(flags={"import.source": source, "import.duplicate_texts": "merge"})
run.run(config, Workspace(folder), Reporter(io.StringIO()))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of several parts, with rows of every outcome all over it."""
    corpus = [{"_id": f"d{n}", "text": f"passage number {n % 30_000}"} for n in range(PASSAGES)]
    queries = [{"_id": f"q{n}", "text": f"query {n}"} for n in range(2000)]
    qrels = "".join(f"q{n}\td{n * 17}\t1\n" for n in range(1900)) + "q1\tnowhere\t1\n"
    folder = write_beir(
        tmp_path_factory.mktemp("data") / "beir", corpus, queries, {"train": qrels, "test": qrels[:500]}
    )
    with (folder / "corpus.jsonl").open("a") as file:
        file.write("broken\n" * 5 + lines(corpus[:3]))
    return folder


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same import without interruption."""
    workspace = Workspace(str(tmp_path_factory.mktemp("whole") / "ws"))
    imported(workspace, source, import__duplicate_texts="merge")
    return workspace


def killed(source: Path, workspace: Workspace, place: str, calls: int) -> None:
    command = [sys.executable, "-c", KILLED, str(source), workspace.root, place, str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def assert_same(workspace: Workspace, whole: Workspace) -> None:
    one, other = workspace.require("import"), whole.require("import")
    assert one.details == other.details
    assert {name: f.sha256 for name, f in one.files.items()} == {name: f.sha256 for name, f in other.files.items()}
    assert sorted(one.files) == workspace.list_files(["corpus", "queries", "qrels", "rejected", "building"])


@pytest.mark.parametrize(
    ("place", "calls"),
    [
        ("row", 1),
        ("row", 15_000),
        ("part", 2),
        ("commit", 2),
        ("row", 36_000),
        ("settle", 1),
        ("part", 6),
        ("finish", 1),
    ],
)
def test_a_killed_import_goes_on(source: Path, whole: Workspace, workspace: Workspace, place: str, calls: int) -> None:
    killed(source, workspace, place, calls)
    assert workspace.manifest("import") is None
    report = Reporter(io.StringIO())
    imported(workspace, source, report, import__duplicate_texts="merge")
    assert_same(workspace, whole)
    went_on = "going on after" in report.console.file.getvalue()  # type: ignore[attr-defined]
    assert went_on == ((place, calls) not in {("row", 1), ("finish", 1)})


def test_an_import_killed_from_outside_many_times_ends_the_same(
    source: Path, whole: Workspace, workspace: Workspace
) -> None:
    command = [sys.executable, "-m", "causalneg.cli", "import", "--source", str(source), "--duplicate-texts", "merge"]
    for _ in range(4):
        process = subprocess.Popen([*command, "--workspace", workspace.root], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not Path(workspace.root, STAGING).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.2)
        process.kill()
        process.wait()
    subprocess.run([*command, "--workspace", workspace.root], check=True, stderr=subprocess.DEVNULL)
    assert_same(workspace, whole)


def test_what_was_left_of_another_import_is_not_taken_up(source: Path, beir: Path, workspace: Workspace) -> None:
    killed(source, workspace, "row", 15_000)
    made = imported(workspace, beir)
    assert made.details["passages"] == 3
    assert not workspace.exists("building")


def contents(workspace: Workspace) -> dict[str, bytes]:
    names = [name for name in workspace.list_files([""]) if not name.startswith("building/")]
    return {name: workspace.read_bytes(name) for name in names}


def test_an_import_that_fails_leaves_the_earlier_one_byte_for_byte(
    beir: Path, workspace: Workspace, tmp_path: Path
) -> None:
    made = imported(workspace, beir)
    before = contents(workspace)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("query,positive\n" + "who?,\n" * 50)
    with pytest.raises(UserError, match="are broken"):
        imported(workspace, wrong)
    assert contents(workspace) == before
    assert workspace.require("import") == made
    assert run(load_config(flags={"import.source": str(beir)}), workspace, Reporter(io.StringIO())) == made
    assert contents(workspace) == before


def test_an_import_that_is_killed_leaves_the_earlier_one_and_goes_on(
    source: Path, whole: Workspace, beir: Path, workspace: Workspace
) -> None:
    imported(workspace, beir)
    before = contents(workspace)
    killed(source, workspace, "part", 2)
    assert contents(workspace) == before
    report = Reporter(io.StringIO())
    imported(workspace, source, report, import__duplicate_texts="merge")
    assert "going on after" in report.console.file.getvalue()  # type: ignore[attr-defined]
    assert_same(workspace, whole)


def test_a_damaged_staging_file_is_begun_anew(source: Path, whole: Workspace, workspace: Workspace) -> None:
    killed(source, workspace, "row", 15_000)
    for file in Path(workspace.root, STAGING).iterdir():
        file.write_bytes(b"not a database" * 100)
    imported(workspace, source, import__duplicate_texts="merge")
    assert_same(workspace, whole)


def test_a_lost_part_of_the_corpus_is_named(source: Path, workspace: Workspace) -> None:
    killed(source, workspace, "row", 25_000)
    Path(workspace.path("building/import/corpus/part-000001.parquet")).unlink()
    with pytest.raises(UserError, match=r"part-000001\.parquet is gone; remove .*sqlite"):
        imported(workspace, source, import__duplicate_texts="merge")


def test_two_imports_at_once_are_refused(source: Path, workspace: Workspace) -> None:
    killed(source, workspace, "row", 15_000)
    (path,) = Path(workspace.root, STAGING).glob("*.sqlite")
    config = load_config(flags={"import.source": str(source), "import.duplicate_texts": "merge"})
    with Staging(path, config.import_), pytest.raises(UserError, match="Another import is at work"):
        run(config, workspace, Reporter(io.StringIO()))


def test_a_workspace_that_is_not_on_this_machine(
    source: Path, whole: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSALNEG_CACHE", str(tmp_path / "cache"))
    workspace = Workspace(f"memory://import-{os.getpid()}")
    imported(workspace, source, import__duplicate_texts="merge")
    assert workspace.require("import").details == whole.require("import").details
    assert list((tmp_path / "cache" / "import").iterdir()) == []


def test_parts_of_the_corpus_are_of_even_size(whole: Workspace) -> None:
    parts = [name for name in whole.require("import").files if name.startswith("corpus/")]
    sizes = [pq.read_metadata(whole.path(name)).num_rows for name in sorted(parts)]
    assert sizes == [10_000, 10_000, 10_000]
