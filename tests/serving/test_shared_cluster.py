"""The server on a Ray cluster that runs already, which others use too."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_cluster import SharedCluster, free_ports, shared_cluster
from small_index import small_workspace

from causalneg.client import Client
from causalneg.serving import keys

pytestmark = pytest.mark.ray
READY = "Ctrl-C stops it"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedCluster]:
    """A cluster with two CPUs."""
    with shared_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The folder of a workspace that is indexed."""
    small_workspace(tmp_path / "ws")
    return tmp_path / "ws"


def test_a_second_server_is_refused_and_a_killed_one_replaced(
    cluster: SharedCluster, workspace: Path, tmp_path: Path
) -> None:
    """What a killed one acknowledged is there afterwards; until then it goes on answering."""
    first_port, second_port = free_ports(2)
    key = keys.add(tmp_path / "keys.json", "tester", "write")
    flags = ("--keys", str(tmp_path / "keys.json"))
    with cluster.server(workspace, first_port, *flags) as first:
        first.wait_for(READY)
        client = Client(f"http://127.0.0.1:{first_port}", key)
        client.upsert({"id": "new", "text": "A passage about quokkas."})
        with cluster.server(workspace, second_port, *flags) as second:
            assert second.process.wait(120) == 2
        assert f"already has a causalneg server, process {first.process.pid} on " in second.text
        assert f"at http://127.0.0.1:{first_port}. " in second.text
        assert "Traceback" not in second.text
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(30)
    assert client.search("quokkas", limit=1)[0].id == "new"
    with cluster.server(workspace, first_port, *flags) as third:
        third.wait_for(READY)
        assert "taking the place of a server whose process was killed" in third.text
        assert client.search("quokkas", limit=1)[0].id == "new"
        third.process.send_signal(signal.SIGTERM)
        assert third.process.wait(60) == 0


def test_it_is_said_what_is_waited_for_and_why_a_replica_cannot_start(cluster: SharedCluster, workspace: Path) -> None:
    """The log of changes is damaged while the server waits for a CPU: only the replica meets it."""
    (port,) = free_ports(1)
    with cluster.all_cores_taken() as holder, cluster.server(workspace, port) as server:
        server.wait_for("serve: waiting for CPUs: 1 needed, 0 of the cluster's 2 free")
        (workspace / "index" / "changes.jsonl").write_text('{"changes":[],"checksum":"0"}\n')
        holder.process.communicate(timeout=60)
        assert server.process.wait(240) == 2
    assert re.search(r"error: .*changes\.jsonl, line 1 does not have its checksum; put a whole copy", server.text)
    assert "Traceback" not in server.text


def test_a_server_that_waits_is_stopped(cluster: SharedCluster, workspace: Path) -> None:
    (port,) = free_ports(1)
    with cluster.all_cores_taken(), cluster.server(workspace, port) as server:
        server.wait_for("serve: waiting for CPUs: 1 needed")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert "serve: stopping" in server.text


def test_what_can_never_come_is_refused_at_once(cluster: SharedCluster, workspace: Path) -> None:
    (port,) = free_ports(1)
    for flags in ([], ["--wait-seconds", "1"]):
        with cluster.server(workspace, port, "--replicas", "3", *flags) as server:
            assert server.process.wait(240) == 2
        assert "serve.replicas: 3 replicas of 1 threads need 3 cores, and there are 2; give --wait-s" in server.text
        assert flags or "waiting for" not in server.text
