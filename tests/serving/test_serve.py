"""The whole server on loopback, and what it refuses to start with."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.indexing.build import build_version
from causalneg.indexing.store import IndexModel
from causalneg.models import resolve
from causalneg.records import Passage, Qrel, Query, to_table
from causalneg.serving.run import base_url, check_port, run, serving
from causalneg.workspace import Counts, Workspace

PASSAGES = [
    Passage(id="rome", title="Rome", text="Rome is the capital of Italy."),
    Passage(id="paris", title="Paris", text="Paris is the capital of France."),
    Passage(id="moon", text="The Moon orbits the Earth in about 27 days."),
    Passage(id="mars", title="Mars", text="Mars is the fourth planet from the Sun."),
]
QUESTIONS = {
    "What is the capital of Italy?": "rome",
    "How long does the Moon take around the Earth?": "moon",
    "fourth planet": "mars",
    "Which city is the capital of France?": "paris",
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    encoder = load_encoder(resolve("embedded:minilm-l6"))
    return encode(encoder, [passage.full_text for passage in PASSAGES], "passage")


@pytest.fixture
def workspace(tmp_path: Path, vectors: np.ndarray) -> Workspace:
    """A workspace with a finished import and index."""
    workspace = Workspace(str(tmp_path / "ws"))
    stage = workspace.begin("import", {}, [])
    workspace.write_rows("corpus", "000000", Passage, PASSAGES)
    workspace.write_rows("queries", "000000", Query, [Query(id="q", text="capital of Italy")])
    workspace.write_rows("qrels", "000000", Qrel, [Qrel(query_id="q", passage_id="rome")])
    stage.finish(Counts(rows_in=4, accepted=4))
    stage = workspace.begin("index", {}, ["import"])
    model = resolve("embedded:minilm-l6")
    build_version(
        workspace.local_folder("index/v1"),
        IndexModel(name=model.name, fingerprint=model.fingerprint),
        [vectors],
        to_table(Passage, PASSAGES).to_batches(),
    )
    details = {"version": "v1", "model": model.name, "trained": False}
    stage.finish(Counts(rows_in=4, accepted=4), details=details, folders=["index/v1"])
    return workspace


@pytest.fixture
def report() -> Reporter:
    return Reporter(io.StringIO())


def _config(workspace: Workspace, port: int, **flags: object) -> Config:
    return load_config(flags={"workspace": workspace.root_url, "serve.port": port, **flags})


def _ask(url: str, **body: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/search", json=body, trust_env=False, timeout=30)


@pytest.mark.ray
def test_the_server_answers_refuses_and_gives_its_port_back(workspace: Workspace, report: Reporter) -> None:
    port = _free_port()
    config = _config(workspace, port)
    with serving(config, workspace, report) as url:
        assert url == f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/health", trust_env=False).json() == {"status": "ok"}
        info = httpx.get(f"{url}/info", trust_env=False).json()
        assert (info["model"], info["index_version"]) == ("embedded:minilm-l6", "v1")
        assert (info["rows"], info["dimension"]) == (4, 384)

        one = _ask(url, query="capital of Italy", limit=2).json()
        (hits,) = one["results"]
        assert [hit["id"] for hit in hits] == ["rome", "paris"]
        assert hits[0]["payload"] == {"title": "Rome", "text": "Rome is the capital of Italy."}
        assert hits[0]["score"] > hits[1]["score"]
        many = _ask(url, queries=list(QUESTIONS), limit=1000).json()
        assert [found[0]["id"] for found in many["results"]] == list(QUESTIONS.values())
        assert {len(found) for found in many["results"]} == {4}

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda question: _ask(url, query=question), list(QUESTIONS) * 10))
        assert [a.json()["results"][0][0]["id"] for a in answers] == list(QUESTIONS.values()) * 10

        for body, status in (
            ({"query": ""}, 400),
            ({"query": "a", "limit": 10**12}, 413),
            ({"queries": ["a"] * 129}, 413),
            ({"query": "a" * 2_000_000}, 413),
            ({"query": "a", "extra": 1}, 422),
            ({"query": "a", "limit": 0}, 422),
        ):
            response = _ask(url, **body)
            assert (response.status_code, response.json()["code"]) == (status, status)
        raw = httpx.post(f"{url}/v1/search", content=b'{"query": "\\ud800"}', trust_env=False)
        assert raw.status_code == 422
        for odd in ("\0", "a\0b", "\u202e", "😀" * 5000, "x " * 20_000):
            assert _ask(url, query=odd).status_code == 200
        assert httpx.get(f"{url}/nope", trust_env=False).json()["type"] == "not_found"

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


@pytest.mark.ray
def test_the_command_serves_until_it_is_told_to_stop(workspace: Workspace, tmp_path: Path) -> None:
    port = _free_port()
    command = [sys.executable, "-m", "causalneg.cli", "serve"]
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
            answer = httpx.post(curl[1], content=curl[2], trust_env=False, timeout=30)
            assert len(answer.json()["results"][0]) == 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert "serve: stopping" in (tmp_path / "out").read_text()
    assert "Traceback" not in (tmp_path / "out").read_text()
    check_port("127.0.0.1", port)


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
    with pytest.raises(UserError, match="run `causalneg index` first"):
        run(_config(workspace, _free_port()), workspace, report)


def test_a_damaged_index_is_not_served(workspace: Workspace, report: Reporter) -> None:
    path = workspace.local_folder("index/v1") / "index.faiss"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"index\.faiss does not have the checksum"):
        run(_config(workspace, _free_port()), workspace, report)


def test_a_model_that_changed_since_is_not_served(workspace: Workspace, report: Reporter) -> None:
    stage = workspace.begin("index", {"other": 1}, ["import"])
    version = workspace.local_folder("index")
    model = IndexModel(name="trained", fingerprint="fedcba9876543210")
    vectors = [np.ones((4, 384), np.float32)]
    build_version(version / "v2", model, vectors, to_table(Passage, PASSAGES).to_batches())
    details = {"version": "v2", "model": "embedded:minilm-l6", "trained": False}
    stage.finish(Counts(rows_in=4, accepted=4), details=details, folders=["index/v2"])
    with pytest.raises(UserError, match=r"was built with the model trained .*run `causalneg index` again"):
        run(_config(workspace, _free_port()), workspace, report)
