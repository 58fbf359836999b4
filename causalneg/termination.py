"""Ends a command together with every process that it started."""

import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNWINDING = 4.0  # seconds for the command to end by itself, before its processes are ended and it with them
_ENDING = 1.5  # seconds for processes to end, once they were asked
_ROUNDS = 3  # a process that ends may have started another
_PR_SET_CHILD_SUBREAPER = 36


class Termination:
    """Whether a command was asked to end, and by which signal.

    Args:
        say: tells the user.
    """

    def __init__(self, say: Callable[[], None]) -> None:
        self.signal: int | None = None
        self._say, self._said = say, threading.Lock()

    @property
    def code(self) -> int:
        """Exit code of an interrupted command; Ctrl-C's where no signal was seen."""
        return 128 + (self.signal or signal.SIGINT)

    def tell(self) -> None:
        """Tell the user, once."""
        if self._said.acquire(blocking=False):
            with suppress(OSError):  # a terminal that was closed
                self._say()


@contextmanager
def supervised(termination: Termination) -> Iterator[None]:
    """Run a command; when it ends, for whatever reason, so do all processes that it started.

    At Ctrl-C, SIGTERM and SIGHUP the user is told at once, and the main thread is interrupted. Where that is busy in a
    library, or waits for a process, the command is over all the same within a few seconds.

    Args:
        termination: is told of the signal.
    """
    before = set(psutil.Process().children())
    _adopt_orphans(True)
    try:
        with _signals_watched(termination, before):
            yield
    except BaseException:
        if termination.signal is None:
            raise
    finally:
        _end_children(before)
        _adopt_orphans(False)
        if termination.signal is not None:
            _leave(termination)


@contextmanager
def _signals_watched(termination: Termination, before: set[psutil.Process]) -> Iterator[None]:
    """Have a thread watch for signals; the main thread is interrupted by the first.

    The thread sees signals also where a library put a handler of its own in the place of ours, and while C code runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_watch, args=(reader, termination, before), daemon=True).start()
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:  # a second signal does not disturb what the first one has to clean up
            interrupted = True
            raise KeyboardInterrupt

    # A signal that is ignored, as SIGHUP under nohup, stays so.
    numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, interrupt) for number in numbers}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(writer)


def _watch(reader: int, termination: Termination, before: set[psutil.Process]) -> None:
    """Wait for a signal, and see to it that the command ends then."""
    while number := os.read(reader, 1):
        if number[0] in _SIGNALS:
            termination.signal = number[0]
            termination.tell()
            select.select([reader], [], [], _UNWINDING)  # until the main thread has closed it, or another signal
            _end_children(before)
            _leave(termination)
    os.close(reader)


def _leave(termination: Termination) -> None:
    """End this process: neither a library's threads nor the interpreter's own end may hold it up."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(termination.code)


def _adopt_orphans(on: bool) -> None:
    """Become the parent of every descendant whose own parent dies, so that none is out of sight; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def _end_children(before: set[psutil.Process]) -> None:
    """End the processes that were started since, and theirs: asked first, then killed."""
    for _ in range(_ROUNDS):
        processes = _started_since(before)
        if not processes:
            return
        _send(processes, signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, timeout=_ENDING)
        _send(alive, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=_ENDING)


def _started_since(before: set[psutil.Process]) -> list[psutil.Process]:
    """Return the children that were not there before, with all their descendants.

    Those that keep shared memory in order for others are left out: they end by themselves, after the others.
    """
    found = []
    for child in psutil.Process().children():
        if child not in before:
            with suppress(psutil.NoSuchProcess):
                found += [p for p in (child, *child.children(recursive=True)) if not _is_resource_tracker(p)]
    return found


def _is_resource_tracker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    return False


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
