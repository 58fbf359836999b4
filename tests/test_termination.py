"""A command that is asked to end does so with all that it started, whatever that is busy with."""

import signal
import subprocess
import sys

import psutil
import pytest

# It starts a process that ignores SIGTERM, and one that outlives its parent, and says their ids.
BUSY = """
import subprocess, sys
from causalneg.termination import Termination, supervised

IGNORING = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
STUBBORN = f"{IGNORING}; import time; print('up', flush=True); time.sleep(600)"
PARENT = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).pid, flush=True)"

def started(code):
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return child, child.stdout.readline().strip()

def work():
    stubborn, _ = started(STUBBORN)
    parent, orphan = started(PARENT)
    parent.wait()
    print(stubborn.pid, orphan, flush=True)
    WORK

termination = Termination(lambda: print("told", file=sys.stderr, flush=True))
with supervised(termination):
    try:
        work()
    except KeyboardInterrupt:
        termination.tell()
print("unwound", file=sys.stderr)
"""
IN_PYTHON = "import time; time.sleep(600)"
IN_C = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # no handler runs while it does
IN_A_LIBRARY = """import signal, time
    signal.signal(signal.SIGTERM, lambda *_: print("handled by a library", file=sys.stderr))
    time.sleep(600)"""


def start(work: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start the command; return it with the processes that it said it started."""
    command = [sys.executable, "-c", BUSY.replace("WORK", work)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    return driver, [psutil.Process(int(pid)) for pid in driver.stdout.readline().split()]


@pytest.mark.parametrize(
    ("work", "number"),
    [
        (IN_PYTHON, signal.SIGINT),
        (IN_PYTHON, signal.SIGTERM),
        (IN_PYTHON, signal.SIGHUP),
        (IN_C, signal.SIGINT),
        (IN_A_LIBRARY, signal.SIGTERM),
    ],
)
def test_all_processes_end_with_the_command(work: str, number: signal.Signals) -> None:
    driver, processes = start(work)
    assert len(processes) == 2
    driver.send_signal(number)
    _, told = driver.communicate(timeout=120)
    assert driver.returncode == 128 + number
    assert told.count("told") == 1
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []


def test_a_command_that_ends_by_itself_leaves_no_process_behind() -> None:
    driver, processes = start("return")
    _, told = driver.communicate(timeout=120)
    assert (driver.returncode, told) == (0, "unwound\n")
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []


def test_what_ran_before_goes_on() -> None:
    code = f"""
import subprocess, sys
before = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
{BUSY.replace("WORK", "return")}
print(before.poll())
before.kill()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "None"


def test_a_signal_that_is_ignored_stays_so() -> None:
    hold = "import signal, time\n    while True:\n        time.sleep(0.1)"
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + BUSY.replace("WORK", hold)
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    driver.stdout.readline()
    driver.send_signal(signal.SIGHUP)
    driver.terminate()
    driver.communicate(timeout=120)
    assert driver.returncode == 128 + signal.SIGTERM, "the first signal that is not ignored ends it"
