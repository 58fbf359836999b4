"""Builds of a second version that are killed at each step, or find the disk full; each in a fork of this process.

    python faulty_builds.py FOLDER kill|full

FOLDER holds the version `v1`, built by `index_samples`. Prints a line of JSON for each build: how it ended, and what is
in the folder then.
"""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import bm25s  # noqa: F401 - once here, not in every fork
from index_samples import MODEL, build, clustered

from causalneg.errors import UserError
from causalneg.indexing.manifest import read_manifest, verify_files
from causalneg.indexing.store import open_index

VECTORS = clustered(60, 8)


def killed_at(step: int, folder: Path) -> Callable[[str, tuple[object, ...]], None]:
    """Return an audit hook that kills this process before the `step`th operation that changes something in a folder."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open" and arguments[1] in ("r", "rb"):
            return
        if event.startswith(("open", "os.", "shutil.")) and arguments and str(folder) in str(arguments[0]):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def in_fork(work: Callable[[], None]) -> str:
    """Do some work in a fork; return `done`, `killed`, or what the user is told."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            work()
            os.write(write, b"done")
        except UserError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    return said if os.WIFEXITED(status) else "killed"


def build_second(folder: Path) -> None:
    """Build `v2`, which has everything that a version can have."""
    build(folder / "v2", VECTORS, shards=2, lexical=True, language="none")


def say(folder: Path, ended: str) -> None:
    """Print how a build ended and what it left: `v2` is whole, absent, or in pieces."""
    state = "absent"
    if (folder / "v2").exists():
        manifest = read_manifest(folder / "v2")
        verify_files(folder / "v2", manifest)
        state = "whole"
    verify_files(folder / "v1", read_manifest(folder / "v1"))
    left = sorted(path.name for path in folder.iterdir())
    sys.stdout.write(json.dumps({"ended": ended, "second": state, "left": left}) + "\n")


def main() -> None:
    """Build again and again."""
    folder, fault = Path(sys.argv[1]), sys.argv[2]
    if fault == "full":
        for limit in (0, 200, 1000, 1500, 1_000_000):

            def on_full_disk(limit: int = limit) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                build_second(folder)

            say(folder, in_fork(on_full_disk))
            shutil.rmtree(folder / "v2", ignore_errors=True)
        return
    step, ended = 0, ""
    while ended != "done":
        step += 1

        def to_be_killed(step: int = step) -> None:
            sys.addaudithook(killed_at(step, folder))
            build_second(folder)

        ended = in_fork(to_be_killed)
        say(folder, ended)
        if ended != "done":
            shutil.rmtree(folder / "v2", ignore_errors=True)
    open_index(folder / "v2", MODEL.fingerprint)


if __name__ == "__main__":
    main()
