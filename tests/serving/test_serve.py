"""The whole server on loopback, and what it refuses to start with."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from client.checks import check_client, check_haystack, check_langchain, check_llamaindex
from small_index import PASSAGES, QUESTIONS, build, small_workspace

from causalneg.client import CausalNegError, Client
from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.manifest import read_manifest
from causalneg.serving import keys
from causalneg.serving.opening import open_service
from causalneg.serving.run import base_url, check_port, run, serving
from causalneg.workspace import Workspace


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with a finished import and index."""
    return small_workspace(tmp_path / "ws", lexical=True)


def _config(workspace: Workspace, port: int, **flags: object) -> Config:
    return load_config(flags={"workspace": workspace.root_url, "serve.port": port, **flags})


@pytest.mark.ray
def test_the_server_answers_refuses_and_gives_its_port_back(
    workspace: Workspace, report: Reporter, tmp_path: Path
) -> None:
    port = _free_port()
    key = keys.add(tmp_path / "keys.json", "tester", "write")
    build(workspace, "v2", PASSAGES[:2])
    config = _config(workspace, port, **{"serve.keys": str(tmp_path / "keys.json"), "serve.replicas": 2})
    with serving(config, workspace, report) as url:
        assert url == f"http://127.0.0.1:{port}"
        _check_requests(url, key)
        _check_swaps(url, key)
        check_client(url, key)
        check_langchain(url, key)
        check_llamaindex(url, key)
        check_haystack(url, key)
        with pytest.raises(UserError, match=f"Port {port} .* in use.*--port"):
            run(config, workspace, report)
        outside = socket.socket()
        outside.settimeout(2)
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            with pytest.raises(OSError, match=r".*"):
                outside.connect((own, port))
        outside.close()
    check_port("127.0.0.1", port)


def _check_requests(url: str, key: str) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=30, headers={"X-API-Key": key}) as client:

        def ask(**body: object) -> httpx.Response:
            return client.post("/v1/search", json=body)

        assert httpx.post(f"{url}/v1/search", json={"query": "a"}, trust_env=False).status_code == 401
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json() == {"status": "ok", "problem": None}
        info = client.get("/info").json()
        assert (info["model_id"], info["index_version"], info["rows"]) == ("embedded:minilm-l6", "v1", 4)
        (hits,) = ask(query="capital of Italy", limit=2).json()["results"]
        assert [hit["id"] for hit in hits] == ["rome", "paris"]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda question: ask(query=question), list(QUESTIONS) * 10))
        assert [a.json()["results"][0][0]["id"] for a in answers] == list(QUESTIONS.values()) * 10
        for body, status in (
            ({"query": ""}, 400),
            ({"query": "a", "limit": 10**12}, 413),
            ({"queries": ["a"] * 10_000}, 413),
            ({"query": "a" * 10_000_000}, 413),
            ({"query": "a", "extra": 1}, 422),
            ({"query": "a", "limit": 0}, 422),
        ):
            response = ask(**body)
            assert (response.status_code, response.json()["code"]) == (status, status)
        assert client.post("/v1/search", content=b'{"query": "\\ud800"}').status_code == 422
        for odd in ("\0", "a\0b", "\u202e", "😀" * 5000, "x " * 20_000):
            assert ask(query=odd).status_code == 200
        assert client.get("/nope").json()["type"] == "not_found"
        metrics = client.get("/metrics").text
        counted = re.search(r'causalneg_requests_total\{route="/v1/search",status="200"\} (\d+)', metrics)
        assert counted is not None
        assert int(counted[1]) >= 41  # of both replicas together


def _check_swaps(url: str, key: str) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=60, headers={"X-API-Key": key}) as client:
        swapped = client.post("/v1/index/activate", json={"version": "v2"}).json()
        assert (swapped["active"], swapped["replicas"]) == ("v2", 2)
        seen = {client.post("/v1/search", json={"query": "a"}).json()["index_version"] for _ in range(20)}
        assert seen == {"v2"}
        assert client.post("/v1/index/rollback").json()["active"] == "v1"
        assert client.get("/v1/index").json()["replicas"] == {"v1": 2}
        assert client.post("/v1/index/activate", json={"version": "../v2"}).status_code == 404


@pytest.mark.ray
def test_the_command_serves_until_it_is_told_to_stop(workspace: Workspace, tmp_path: Path) -> None:
    """It is told so amid swaps of versions and writes: either version answers next, with all that was acknowledged."""
    port = _free_port()
    build(workspace, "v2", PASSAGES[:2])
    key_file = tmp_path / "keys.json"
    key = keys.add(key_file, "tester", "write")
    command = [sys.executable, "-m", "causalneg.cli", "serve", "--keys", str(key_file)]
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [*command, "--workspace", workspace.root_url, "--port", str(port)],
            stdout=out,
            stderr=out,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        try:
            while "Ctrl-C stops it" not in (tmp_path / "out").read_text() and process.poll() is None:
                time.sleep(0.2)
            said = (tmp_path / "out").read_text()
            curl = re.search(r"curl (\S+) .*-d '(.*)'", said)
            assert curl is not None, said
            answer = httpx.post(curl[1], content=curl[2], headers={"X-API-Key": key}, trust_env=False, timeout=30)
            assert len(answer.json()["results"][0]) == 3
            with ThreadPoolExecutor(2) as pool:
                client = Client(f"http://127.0.0.1:{port}", key)
                acknowledged, swapped = list[str](), list[str]()
                writes = pool.submit(_write_until_it_ends, client, acknowledged)
                swaps = pool.submit(_swap_until_it_ends, client, swapped)
                while len(acknowledged) < 5 or len(swapped) < 2:
                    assert not writes.done()
                    assert not swaps.done()
                    time.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
        finally:
            process.kill()
    assert "serve: stopping" in (tmp_path / "out").read_text()
    assert "Traceback" not in (tmp_path / "out").read_text()
    check_port("127.0.0.1", port)
    service, _ = open_service(_config(workspace, port, **{"serve.backend": "torch-fp32"}))
    assert service.info().index_version in ("v1", "v2")
    made = [change.id for change in Catalog(workspace.local_folder("index")).changes.reader().poll()]
    assert made[: len(acknowledged)] == acknowledged


def _write_until_it_ends(client: Client, acknowledged: list[str]) -> None:
    with suppress(CausalNegError):
        for number in range(10_000):
            client.upsert({"id": f"n{number}", "text": f"passage {number}"})
            acknowledged.append(f"n{number}")


def _swap_until_it_ends(client: Client, swapped: list[str]) -> None:
    with suppress(CausalNegError):
        for version in ["v2", "v1"] * 1000:
            swapped.append(client.activate(version).active)


def test_a_port_in_use_is_named(workspace: Workspace, report: Reporter) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} on 127.0.0.1 is in use.*--port"):
            run(_config(workspace, port), workspace, report)


@pytest.mark.parametrize("host", ["no such host", "host.invalid", "192.0.2.1", "x" * 300])
def test_an_address_that_is_not_ours_is_named(workspace: Workspace, report: Reporter, host: str) -> None:
    with pytest.raises(UserError, match=r"another --host\.$"):
        run(_config(workspace, _free_port(), **{"serve.host": host}), workspace, report)


def test_the_url_leads_to_this_machine() -> None:
    assert base_url("0.0.0.0", 80) == "http://127.0.0.1:80"  # noqa: S104 - nothing listens here
    assert base_url("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert base_url("::1", 8000) == "http://[::1]:8000"


def test_an_index_is_needed(tmp_path: Path, report: Reporter) -> None:
    workspace = Workspace(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="run `causalneg index`"):
        run(_config(workspace, _free_port()), workspace, report)


def test_a_damaged_index_is_not_served(workspace: Workspace, report: Reporter) -> None:
    path = workspace.local_folder("index/v1") / "index-000.faiss"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"index-000\.faiss does not have the checksum"):
        run(_config(workspace, _free_port()), workspace, report)


def test_a_damaged_log_of_changes_is_not_served(workspace: Workspace, report: Reporter) -> None:
    (workspace.local_folder("index") / "changes.jsonl").write_text('{"changes":[],"checksum":"0"}\n')
    with pytest.raises(UserError, match=r"changes\.jsonl, line 1 does not have its checksum"):
        run(_config(workspace, _free_port()), workspace, report)


def test_a_model_that_changed_since_is_not_served(workspace: Workspace, report: Reporter) -> None:
    folder = workspace.local_folder("index/v1")
    manifest = read_manifest(folder)
    other = manifest.model.model_copy(update={"fingerprint": "fedcba9876543210"})
    (folder / "manifest.json").write_text(manifest.model_copy(update={"model": other}).sealed().model_dump_json())
    with pytest.raises(UserError, match=r"was built with the model .*run `causalneg index` again"):
        run(_config(workspace, _free_port()), workspace, report)


def test_a_pointer_that_is_damaged_is_named(workspace: Workspace, report: Reporter) -> None:
    (Catalog(workspace.local_folder("index")).folder / "active.json").write_text("{")
    with pytest.raises(UserError, match=r"active\.json is damaged"):
        run(_config(workspace, _free_port()), workspace, report)


def test_a_key_file_that_is_not_there_is_named(workspace: Workspace, report: Reporter) -> None:
    with pytest.raises(UserError, match=r"no-keys\.json"):
        run(_config(workspace, _free_port(), **{"serve.keys": "no-keys.json"}), workspace, report)
