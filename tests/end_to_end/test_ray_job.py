"""The jobs on a Ray cluster with token authentication, submitted as a user would."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from causalneg.workspace import Workspace

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Cluster:
    """A Ray head on loopback, and the environment that reaches it."""

    address: str
    environment: dict[str, str]

    def submit(self, repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
        submit = [RAY, "job", "submit", "--address", self.address, "--working-dir", ".", "--", *command]
        return subprocess.run(
            submit, cwd=repository, env=self.environment, capture_output=True, text=True, check=False, timeout=900
        )


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    gcs, dashboard, client, agent, grpc, metrics = free_ports(6)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    bin_folder = str(Path(sys.executable).parent)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | token
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    command = [RAY, "start", "--head", "--block", "--num-cpus", "4", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    command += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--dashboard-agent-grpc-port={grpc}", f"--metrics-export-port={metrics}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--object-store-memory=500000000"]
    log = (tmp_path_factory.mktemp("cluster") / "head.log").open("wb")
    with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as head:
        try:
            deadline = time.monotonic() + 90
            while socket.socket().connect_ex(("127.0.0.1", dashboard)):
                assert head.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.5)
            yield Cluster(f"http://127.0.0.1:{dashboard}", environment)
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            try:
                head.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)


def test_generate_and_train_as_jobs(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    where = ["--workspace", str(tmp_path / "ws")]
    for command in (
        ["python", "jobs/import_data.py", *where, "--max-train-queries", "6"],
        ["python", "jobs/mine.py", *where, "--search.depth", "20"],
        ["python", "jobs/generate.py", *where],
        ["python", "jobs/train.py", *where, "--epochs", "1", "--mined-per-query", "2", "--workers", "2"],
    ):
        done = cluster.submit(repository, *command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    workspace = Workspace(str(tmp_path / "ws"))
    assert workspace.require("generate").counts.rows_in == 6
    assert workspace.require("train").details["workers"] == 2
    assert list(workspace.local_folder("model").glob("*.safetensors"))


def test_a_users_mistake_fails_the_job_with_a_sentence(cluster: Cluster, repository: Path) -> None:
    done = cluster.submit(repository, "python", "jobs/mine.py", "--workspace", "relative")
    assert done.returncode != 0
    assert "must be an absolute path or a URL" in done.stdout + done.stderr


def test_with_a_wrong_token_a_job_is_refused(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    stranger = cluster.environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    refused = Cluster(cluster.address, stranger).submit(
        repository, "python", "jobs/mine.py", "--workspace", str(tmp_path)
    )
    assert refused.returncode != 0
