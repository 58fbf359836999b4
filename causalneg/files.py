"""Files on this machine: checksums, and making sure that they are on the disk."""

import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Have a folder written elsewhere and put it in its place, on the disk: it is there as a whole or not at all.

    The one that was there goes, and so does what a killed writer left: there must be one writer at a time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(left)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield fresh
        fresh.chmod(0o755)  # mkdtemp's folder is for its owner alone
        for path in fresh.rglob("*"):
            sync(path)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def link_files(source: Path, target: Path) -> None:
    """Give a folder the files below another, linked where the file system can, so that they take no room of their own.

    They must be replaced and never written into, or both folders change.
    """
    for file in source.rglob("*"):
        if file.is_file():
            there = target / file.relative_to(source)
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, there)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, there)


def write_whole(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file that is on the disk, with its name, when this returns, and never there in part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[int]:
    """Hold the lock that a file stands for, among threads and processes; it ends with the process, too.

    Args:
        path: made if it is not there, with its folder.
        wait: for whoever holds it.

    Yields:
        The file, open to be read and written.

    Raises:
        BlockingIOError: somebody holds the lock, and this should not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # flock belongs to this opening of the file, so that a thread that opens it as well neither shares nor ends it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)
