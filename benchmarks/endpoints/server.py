"""Servers as processes on the loopback address, as long as they are needed."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

_START_SECONDS = 300.0
_STOP_SECONDS = 90.0
_REPLICA = "ServeReplica:causalneg"  # how Ray names the process of a replica


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        url: where.
        process: the one that was started; others may belong to it.
        log: what it said.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def replicas(self) -> list[psutil.Process]:
        """Return the processes of causalneg's replicas."""
        return [p for p in _family(self.process) if _REPLICA in " ".join(_command(p))]

    def memory_mib(self) -> float:
        """Return the memory that is this server's own, all its processes together, MiB."""
        total = 0
        for process in _family(self.process):
            try:
                total += process.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return total / 1024**2


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def _wait(process: subprocess.Popen[bytes], url: str, path: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                if client.get(url + path).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
    raise RuntimeError(f"no answer from {url}: {log.read_text(errors='replace')[-3000:]}")


@contextmanager
def process_server(
    command: Sequence[str], port: int, path: str = "/health", environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Have a server until the end; it is asked to stop, and killed with all that it started if it does not.

    Args:
        command: starts it.
        port: where it is to listen, on the loopback address.
        path: answers with success once the server is up.
        environment: variables beside those of this process.
    """
    url = f"http://127.0.0.1:{port}"
    with tempfile.NamedTemporaryFile("wb", suffix=".log") as log:
        process = subprocess.Popen(list(command), stdout=log, stderr=log, env=os.environ | (environment or {}))  # noqa: S603 - ours
        family: list[psutil.Process] = []
        try:
            _wait(process, url, path, Path(log.name))
            yield Server(url, process, Path(log.name))
        finally:
            if process.poll() is None:
                family = _family(process)
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
            _, alive = psutil.wait_procs([p for p in family if p.pid != process.pid], timeout=10)
            for left in alive:
                left.kill()


@contextmanager
def causalneg_server(workspace: str, **settings: object) -> Iterator[Server]:
    """Have `causalneg serve` on a workspace, with settings of `serve` by their names."""
    port = free_port()
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "causalneg.cli", "serve", "--workspace", workspace, "--port", str(port), *flags]
    with process_server(command, port, "/ready") as server:
        yield server
