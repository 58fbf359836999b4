"""A Ray cluster of two CPUs that somebody else started, and servers on it as processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_HOLD = """
import ray, sys
ray.init(log_to_driver=False)
@ray.remote(num_cpus=2)
class Holder:
    def held(self): return True
holder = Holder.remote()
ray.get(holder.held.remote())
print("held", flush=True)
sys.stdin.read()
"""


def free_ports(number: int) -> list[int]:
    """Return ports where nothing listens."""
    with ExitStack() as probes:
        return [probes.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(number)]


class Output:
    """A process whose output goes to a file."""

    def __init__(self, command: list[str], path: Path, env: dict[str, str]) -> None:
        self._path = path
        with path.open("w") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=env, cwd=_ROOT, start_new_session=True
            )

    @property
    def text(self) -> str:
        """What it has printed."""
        return self._path.read_text()

    def wait_for(self, words: str, seconds: float = 240) -> None:
        """Wait until it has printed some words."""
        deadline = time.monotonic() + seconds
        while words not in self.text:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {words!r} in:\n{self.text}"
            time.sleep(0.1)


class SharedCluster:
    """Starts processes on the cluster.

    Args:
        folder: for their output.
        address: of the cluster.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self._folder, self._count = folder, 0
        self._env = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"}

    @contextmanager
    def _running(self, command: list[str]) -> Iterator[Output]:
        self._count += 1
        started = Output([sys.executable, *command], self._folder / f"{self._count}.out", self._env)
        try:
            yield started
        finally:
            started.process.kill()
            started.process.wait(30)

    @contextmanager
    def server(self, workspace: Path, port: int, *flags: str) -> Iterator[Output]:
        """Serve a workspace."""
        command = ["-m", "causalneg.cli", "serve", "--workspace", str(workspace), "--port", str(port), *flags]
        with self._running(command) as started:
            yield started

    @contextmanager
    def all_cores_taken(self) -> Iterator[Output]:
        """Take both CPUs, until the end or until the input of the process is closed."""
        with self._running(["-c", _HOLD]) as holder:
            holder.wait_for("held")
            yield holder


@contextmanager
def shared_cluster(folder: Path) -> Iterator[SharedCluster]:
    """Start a cluster with `ray start`, and stop it at the end."""
    gcs, client, agent = free_ports(3)
    command = ["-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false"]
    command += ["--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", "--object-store-memory=200000000"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    head = Output([sys.executable, *command], folder / "head.out", {**os.environ, "RAY_AUTH_MODE": "disabled"})
    try:
        head.wait_for("Ray runtime started")
        yield SharedCluster(folder, f"127.0.0.1:{gcs}")
    finally:
        head.process.terminate()  # it ends what it started
        head.process.wait(60)
