"""Commands as processes, and what they started, to be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil


def start(*arguments: str, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a command of causalneg, in a process group of its own."""
    command = [sys.executable, "-m", "causalneg.cli", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=stderr, env=dict(os.environ), start_new_session=True
    )


def check_interrupted(driver: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Interrupt a command whose stderr is a pipe: it says what to do next, and no process that it started is left."""
    processes = psutil.Process(driver.pid).children(recursive=True)
    if number is signal.SIGINT:
        os.killpg(driver.pid, number)  # a terminal sends Ctrl-C to all of them
    else:
        driver.send_signal(number)
    _, told = driver.communicate(timeout=120)
    assert driver.returncode == 128 + number
    assert "interrupted; the same command goes on where it was" in told.decode()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
    assert _in_session(driver.pid) == [], "a process that was started since"


def _in_session(leader: int) -> list[psutil.Process]:
    """Return the processes of a session that is not this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


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
