"""Commands as processes, and what they started, to be killed."""

import os
import subprocess
import sys
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


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait for processes to end, and end them if they do not."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=30)
