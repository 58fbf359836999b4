"""A new result is built beside the old one and takes its place whole, wherever it is cut off."""

import os
import shutil
import signal
import sys
import uuid
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from causalneg.errors import UserError
from causalneg.workspace import Counts, Manifest, StageRun, Workspace

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
OLD = {"corpus/part-0": b"old", "corpus/part-1": b"old, too", "qrels/part-0": b"old", "rejected/part-0": b"old"}
NEW = {"corpus/part-0": b"new", "corpus/part-2": b"new, too", "qrels/part-0": b"new", "queries/part-0": b"new"}


def write(stage: StageRun, files: dict[str, bytes]) -> Manifest:
    for name, data in files.items():
        stage.workspace.write_bytes(name, data)
    return stage.finish(Counts(rows_in=1, accepted=1))


def begin(workspace: Workspace, number: int) -> StageRun:
    return workspace.begin("import", {"number": number}, [])


def old_workspace(workspace: Workspace) -> Workspace:
    """An import, and a stage behind it."""
    write(begin(workspace, 0), OLD)
    write(workspace.begin("mine", {}, ["import"]), {"mined/part-0": b"mined"})
    return workspace


def anew(workspace: Workspace) -> Manifest:
    """Import other data."""
    stage = begin(workspace, 1)
    return stage.done or write(stage, NEW)


def contents(workspace: Workspace) -> dict[str, bytes]:
    """The files of an import that stand in their place."""
    names = workspace.list_files(["corpus", "queries", "qrels", "rejected"])
    return {name: workspace.read_bytes(name) for name in names}


def assert_whole(workspace: Workspace) -> None:
    """What the manifest names is there, as it says, and nothing else."""
    manifest = workspace.require("import")
    found = contents(workspace)
    assert found == (OLD if manifest.config["number"] == 0 else NEW)
    assert manifest.files == {name: workspace.checksum(name) for name in found}
    assert workspace.read_bytes("mined/part-0") == b"mined"
    assert workspace.is_outdated("mine") == (found == NEW)


def assert_new(workspace: Workspace) -> None:
    assert contents(workspace) == NEW
    assert workspace.require("import").config == {"number": 1}
    assert not workspace.list_files(["building"])
    assert not workspace.is_being_built("import")
    assert_whole(workspace)


def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
    return event in CHANGES or (event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & os.O_CREAT))


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do work in a process that is killed before its n-th change of a file's name or content; whether it came to it."""
    child = os.fork()
    if not child:
        left = number

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if _writes(event, arguments):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


@pytest.mark.parametrize("left", [1, 2], ids=["the same begun", "another begun"])
def test_killed_anywhere_the_old_result_stands_or_the_new_one(tmp_path: Path, left: int) -> None:
    stage = begin(old_workspace(Workspace(str(tmp_path / "old"))), left)
    stage.workspace.write_bytes("corpus/part-0" if left == 1 else "corpus/part-9", b"left by a killed run")
    seen = set()
    for number in count(1):
        workspace = Workspace(str(shutil.copytree(tmp_path / "old", tmp_path / f"ws{number}")))
        cut_off = killed_at(number, lambda there=workspace: anew(there))
        assert_whole(workspace)
        seen.add(workspace.require("import").config["number"])
        anew(workspace)
        assert_new(workspace)
        if not cut_off:
            break
    assert number > 20
    assert seen == {0, 1}


def test_killed_again_and_again_it_comes_to_its_end(tmp_path: Path) -> None:
    workspace = old_workspace(Workspace(str(tmp_path)))
    for number in count(1):
        if not killed_at(number, lambda: anew(workspace)):
            break
        assert_whole(workspace)
    assert_new(workspace)


def test_in_an_object_store_any_call_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    left = 0

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> object:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(5, "the store does not answer")
            return original(*arguments, **named)

        return call

    for name in ("cp_file", "pipe_file", "rm", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, name, failing(getattr(MemoryFileSystem, name)))
    seen = set()
    for number in count(1):
        workspace = old_workspace(Workspace(f"memory://{uuid.uuid4().hex}/ws"))
        left, failed = number, False
        try:
            anew(workspace)
        except (OSError, UserError):
            failed = True
        left = 0
        assert_whole(workspace)
        seen.add(workspace.require("import").config["number"])
        anew(workspace)
        assert_new(workspace)
        if not failed:
            break
    assert seen == {0, 1}


def test_a_result_that_cannot_be_put_in_its_place_is_said_and_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = old_workspace(Workspace(str(tmp_path / "ws")))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        with pytest.raises(UserError, match=r"import is whole, but .*No space left.* run any command"):
            anew(workspace)
    assert workspace.is_outdated("mine"), "whoever asks puts it there"
    assert_new(workspace)


def test_a_stage_behind_says_why_it_is_run_again_and_that_what_it_reads_is_outdated(tmp_path: Path) -> None:
    workspace = old_workspace(Workspace(str(tmp_path)))
    lines: list[str] = []
    write(workspace.begin("generate", {}, ["import", "mine"], say=lines.append), {"negatives/part-0": b"n"})
    assert lines == []
    anew(workspace)
    assert [workspace.is_outdated(stage) for stage in ("import", "mine", "generate")] == [False, True, True]
    workspace.begin("generate", {}, ["import", "mine"], say=lines.append)
    assert "generate: mine is outdated" in lines[0]
    assert lines[1].endswith("stays until the new one is whole: import has another result now")
    lines.clear()
    write(workspace.begin("mine", {}, ["import"], say=lines.append), {"mined/part-0": b"mined"})
    assert [line.rsplit(": ", 1)[1] for line in lines] == ["import has another result now"]
    assert [workspace.is_outdated(stage) for stage in ("import", "mine", "generate")] == [False, False, True]


def test_a_stage_done_again_with_the_same_result_leaves_those_behind_it_done(tmp_path: Path) -> None:
    workspace = old_workspace(Workspace(str(tmp_path)))
    mined = workspace.require("mine")
    write(begin(workspace, 5), {name: OLD[name] for name in OLD if name != "rejected/part-0"})
    assert workspace.require("import").config == {"number": 5}
    assert not workspace.is_outdated("mine")
    assert workspace.begin("mine", {}, ["import"]).done == mined


def test_a_stage_that_is_done_again_goes_on_though_it_is_not_asked_again(tmp_path: Path) -> None:
    workspace = old_workspace(Workspace(str(tmp_path)))
    first = workspace.begin("mine", {}, ["import"], again=True)
    assert first.done is None
    assert workspace.begin("mine", {}, ["import"]).resumed
    write(first, {"mined/part-0": b"mined"})
    assert workspace.begin("mine", {}, ["import"]).done
