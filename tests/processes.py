"""Commands as processes, and what they started, to be killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import psutil


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a command of causalneg."""
    command = [sys.executable, "-m", "causalneg.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))


def descendants(driver: subprocess.Popen[bytes], wanted: Callable[[str], bool]) -> list[psutil.Process]:
    """Return the processes that a command started, by their command lines."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if wanted(" ".join(process.cmdline())):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def one_descendant(driver: subprocess.Popen[bytes], name: str, seconds: float = 120) -> psutil.Process:
    """Return the one process that a command started with a name in its command line; a restart is waited for."""
    deadline = time.monotonic() + seconds
    while len(found := descendants(driver, lambda line: name in line)) != 1:
        assert driver.poll() is None, f"the command ended with {driver.returncode}"
        assert time.monotonic() < deadline, f"{name}: {[process.pid for process in found]}"
        time.sleep(0.1)
    return found[0]


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait for processes to end, and end them if they do not."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=30)
