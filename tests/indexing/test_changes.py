"""The log of changes: whole appends, several writers, killed writers, full disks, damage."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from causalneg.errors import UserError
from causalneg.indexing.changes import Change, ChangeLog, StorageFull, latest
from causalneg.records import Passage

VECTOR = np.array([0.5, -1.25, 3e-7], np.float32)


def upsert(name: str, text: str = "Zürich «x»\nnext line") -> Change:
    return Change.upsert(Passage(id=name, title="T", text=text, metadata='{"a":1}'), "model", VECTOR)


@pytest.fixture
def log(tmp_path: Path) -> ChangeLog:
    return ChangeLog(tmp_path / "changes.jsonl")


def test_what_is_appended_is_read_once_and_in_order(log: ChangeLog) -> None:
    reader = log.reader()
    assert reader.poll() == [], "the file need not be there"
    assert log.append([upsert("a"), Change.delete("b")]) == 2
    first, second = reader.poll()
    assert (first.number, first.kind, first.passage) == (1, "upsert", upsert("a").passage)
    assert (second.number, second.kind, second.id) == (2, "delete", "b")
    np.testing.assert_array_equal(first.array(), VECTOR)
    assert reader.poll() == []
    assert log.append([upsert("c")]) == 3
    assert [c.number for c in reader.poll()] == [3]
    assert [c.number for c in log.reader(after=2).poll()] == [3]
    assert log.append([]) == 3
    lines = [json.loads(line) for line in log.path.read_text("utf-8").splitlines()]
    assert [[c["number"] for c in line["changes"]] for line in lines] == [[1, 2], [3]]


def test_another_process_goes_on_with_the_numbers(log: ChangeLog) -> None:
    log.append([upsert("a")])
    other = ChangeLog(log.path)
    assert other.append([upsert("b")]) == 2
    assert log.append([upsert("c")]) == 3


def test_the_last_change_of_an_id_counts() -> None:
    changes = [c.model_copy(update={"number": n}) for n, c in enumerate([upsert("a"), upsert("b"), upsert("a")], 1)]
    assert [(c.id, c.number) for c in latest(changes)] == [("b", 2), ("a", 3)]


@pytest.mark.parametrize(
    "vector", [np.zeros(3), np.empty(0), np.array([1, np.nan]), np.array([1, np.inf]), np.array([1e-60])]
)
def test_a_vector_that_could_never_be_found_is_refused(vector: np.ndarray) -> None:
    with pytest.raises(ValueError, match="zero or not finite"):
        Change.upsert(Passage(id="a", text="t"), "model", vector)
    with pytest.raises(ValueError, match="zero or not finite"):
        Change(kind="upsert", id="a", text="t")


def test_a_torn_tail_is_unread_and_then_gone(log: ChangeLog) -> None:
    log.append([upsert("a")])
    whole = log.path.read_bytes()
    log.append([upsert("b"), upsert("c")])
    second = log.path.read_bytes()[len(whole) :]
    for cut in (1, len(second) // 2, len(second) - 1):
        log.path.write_bytes(whole + second[:cut])
        assert [c.id for c in log.reader().poll()] == ["a"]
        fresh = ChangeLog(log.path)
        assert fresh.append([upsert("d")]) == 2
        assert [c.id for c in log.reader().poll()] == ["a", "d"]


def test_whether_there_is_more_is_known_without_reading(log: ChangeLog) -> None:
    reader = log.reader()
    assert not reader.has_more()
    log.append([upsert("a")])
    assert reader.has_more()
    reader.poll()
    assert not reader.has_more()
    whole = log.path.read_bytes()
    log.append([Change.delete("b")])
    line = log.path.read_bytes()[len(whole) :]
    log.path.write_bytes(whole + b"x" * len(line))  # torn, and as long as the line that takes its place
    assert reader.has_more()
    assert reader.poll() == []
    assert not reader.has_more(), "a torn tail is looked at once"
    time.sleep(0.02)
    assert ChangeLog(log.path).append([Change.delete("b")]) == 2
    assert log.path.stat().st_size == len(whole + line)
    assert reader.has_more()
    assert [c.id for c in reader.poll()] == ["b"]


def test_a_reader_waits_for_the_rest_of_what_is_being_written(log: ChangeLog) -> None:
    log.append([upsert("a"), upsert("b")])
    whole = log.path.read_bytes()
    log.path.write_bytes(b"")
    reader = log.reader()
    for end in range(0, len(whole), 37):
        log.path.write_bytes(whole[:end])
        assert reader.poll() == []
    log.path.write_bytes(whole)
    assert [c.id for c in reader.poll()] == ["a", "b"]


def test_damage_is_told_with_file_and_line(log: ChangeLog) -> None:
    for name in "abc":
        log.append([upsert(name)])
    whole = log.path.read_bytes()
    start = whole.index(b"\n") + 1
    for place in range(start, whole.index(b"\n", start), 7):
        broken = bytearray(whole)
        broken[place] ^= 1
        log.path.write_bytes(broken)
        reader = log.reader()
        with pytest.raises(UserError, match=r"changes\.jsonl, line 2 .*put a whole copy"):
            reader.poll()
        log.path.write_bytes(whole)
        assert [change.id for change in reader.poll()] == ["a", "b", "c"], "nothing is lost when it is healed"
        log.path.write_bytes(broken)
    with pytest.raises(UserError, match="line 2"):
        ChangeLog(log.path).append([upsert("d")])


def test_missing_and_repeated_lines_are_damage(log: ChangeLog) -> None:
    for name in "abc":
        log.append([upsert(name)])
    one, two, three = log.path.read_bytes().splitlines(keepends=True)
    for lines in ([one, three], [one, two, two], [two]):
        log.path.write_bytes(b"".join(lines))
        with pytest.raises(UserError, match="does not go on from change"):
            log.reader().poll()


def test_a_log_that_became_shorter_is_told(log: ChangeLog) -> None:
    reader = log.reader()
    log.append([upsert("a")])
    reader.poll()
    log.path.write_bytes(b"")
    with pytest.raises(UserError, match="shorter than it was"):
        reader.poll()


def test_on_a_full_disk_nothing_is_changed(log: ChangeLog) -> None:
    log.append([upsert("a")])
    before = log.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5000, hard))
        with pytest.raises(StorageFull, match=r"changes\.jsonl cannot grow"):
            log.append([upsert(str(n)) for n in range(100)])
        assert log.path.read_bytes() == before
        assert log.append([upsert("b")]) == 2, "what fits is taken"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert [c.id for c in log.reader().poll()] == ["a", "b"]


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from causalneg.indexing.changes import Change, ChangeLog
from causalneg.records import Passage
log, name, count, size = ChangeLog(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for n in range(count):
    batch = [Change.upsert(Passage(id=f"{name}-{n}-{i}", text="x" * 500), "m", np.ones(4)) for i in range(size)]
    print(log.append(batch), flush=True)
"""


def writer(path: Path, name: str, count: int, size: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(path), name, str(count), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_several_processes_write_and_a_reader_follows(log: ChangeLog) -> None:
    reader, seen = log.reader(), []
    writers = [writer(log.path, name, 20, 3) for name in "abc"]
    while any(w.poll() is None for w in writers):
        seen += reader.poll()
    assert [w.wait() for w in writers] == [0, 0, 0]
    seen += reader.poll()
    assert [c.number for c in seen] == list(range(1, 181))
    for name in "abc":
        assert [c.id for c in seen if c.id.startswith(name)] == [f"{name}-{n}-{i}" for n in range(20) for i in range(3)]
    groups = [tuple(c.id.rsplit("-", 1)[0] for c in seen[at : at + 3]) for at in range(0, 180, 3)]
    assert all(len(set(group)) == 1 for group in groups), "appends are not mixed"


def test_killed_writers_leave_whole_appends(log: ChangeLog) -> None:
    size = 400
    for attempt in range(4):
        process = writer(log.path, f"w{attempt}", 10_000, size)
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline())
        time.sleep(0.01 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().split())])
        process.wait()
        changes = log.reader().poll()
        assert len(changes) % size == 0
        assert len(changes) >= acknowledged, "what was acknowledged is there"
        assert [c.number for c in changes] == list(range(1, len(changes) + 1))
    assert log.append([upsert("after")]) == len(changes) + 1
    assert log.reader(after=len(changes)).poll()[0].id == "after"


def test_a_writer_killed_in_the_middle_of_its_line(log: ChangeLog) -> None:
    """The kernel takes a line in pieces: one too large for a pipe stops half way, and the writer is killed there."""
    log.append([upsert("a")])
    whole = log.path.read_bytes()
    script = (
        "import os, sys, time\nfrom causalneg.files import locked\nfrom pathlib import Path\n"
        "with locked(Path(sys.argv[1])) as file:\n"
        "    os.pwrite(file, b'{\"changes\":[{\"number\":2,', int(sys.argv[2]))\n    print('half', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(log.path), str(len(whole))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    assert [c.id for c in log.reader().poll()] == ["a"], "readers do not wait for the lock"
    assert psutil.pid_exists(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert log.append([upsert("b")]) == 2, "the lock went with the process"
    assert [c.id for c in log.reader().poll()] == ["a", "b"]
