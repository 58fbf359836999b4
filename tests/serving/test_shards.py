"""Shards in deployments of their own: they answer as those in one process do, or say that they do not answer."""

import asyncio
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from indexing.index_samples import asked, build, clustered
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import DeploymentUnavailableError
from small_index import PASSAGES, QUESTIONS, small_workspace
from small_index import build as build_small

from causalneg.config import Config, load_config
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.manifest import IndexDamaged, read_manifest
from causalneg.indexing.search import Found, VectorSearch
from causalneg.indexing.store import local_vectors
from causalneg.records import Passage
from causalneg.serving import keys
from causalneg.serving.deadline import Deadline
from causalneg.serving.errors import ApiError
from causalneg.serving.opening import open_service
from causalneg.serving.run import run, serving
from causalneg.serving.schema import SearchRequest
from causalneg.serving.shards import RemoteShard, ShardReplica, SpreadVectors
from causalneg.workspace import Workspace

SHARDS, ROWS = 3, 1501
VECTORS = clustered(ROWS)
QUERIES = asked(VECTORS, 20)


class _Response:
    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    def result(self, timeout_s: float) -> Any:  # noqa: ANN401
        return self._answer()

    def results(self, timeout_s: float) -> list[Any]:
        return [self._answer()]


class _Method:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> _Response:
        return _Response(lambda: asyncio.run(self._call(*arguments)))


class _Handle:
    """Calls a replica in this process, as Serve's handle calls one elsewhere."""

    def __init__(self, replica: ShardReplica, running: bool = True) -> None:
        self.search, self.prepare = _Method(replica.search), _Method(replica.prepare)
        self._running = running

    def broadcast(self, method: str, *arguments: Any) -> _Response:
        if not self._running:
            raise DeploymentUnavailableError(None)
        return getattr(self, method).remote(*arguments)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "index")


def _config(catalog: Catalog) -> Config:
    return load_config(flags={"workspace": str(catalog.folder.parent), "serve.spread_shards": SHARDS})


def _handles(catalog: Catalog) -> list[_Handle]:
    return [_Handle(ShardReplica(_config(catalog), number), running=number > 0) for number in range(SHARDS)]


def _opened(catalog: Catalog, handles: list[_Handle], version: str) -> VectorSearch:
    folder = catalog.folder_of(version)
    return SpreadVectors(handles, 30)(folder, read_manifest(folder))  # type: ignore[arg-type]


def _local(catalog: Catalog, version: str) -> VectorSearch:
    folder = catalog.folder_of(version)
    return local_vectors(folder, read_manifest(folder))


def _same(one: Found, other: Found) -> None:
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[0], other[0])


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_sq8"])
def test_they_answer_as_shards_in_one_process_do(catalog: Catalog, kind: str) -> None:
    build(catalog.folder / "v1", VECTORS, kind=kind, shards=SHARDS, queries=asked(VECTORS, 50, seed=5), recall=0.9)
    spread, local = _opened(catalog, _handles(catalog), "v1"), _local(catalog, "v1")
    assert (spread.rows, spread.dimension) == (local.rows, local.dimension)
    drawn = np.random.default_rng(1).random(ROWS)
    masks = [None, drawn < 0.5, drawn < 0.005, np.arange(ROWS) < 100, np.zeros(ROWS, bool), np.ones(ROWS, bool)]
    for allowed in masks:
        for k in (1, 10, ROWS + 5):
            _same(spread.search(QUERIES[:4], k, allowed), local.search(QUERIES[:4], k, allowed))
    with pytest.raises(ValueError, match="k is 0"):
        spread.search(QUERIES, 0)


def test_equal_scores_come_in_the_order_of_rows(catalog: Catalog) -> None:
    vectors = np.repeat(clustered(4, 8), 9, axis=0)
    build(catalog.folder / "v1", vectors, kind="flat", shards=SHARDS)
    spread = _opened(catalog, _handles(catalog), "v1")
    assert spread.search(vectors[9:10], 9)[1].tolist() == [list(range(9, 18))]
    assert spread.search(vectors[9:10], 3, np.arange(36) > 11)[1].tolist() == [[12, 13, 14]]


def test_each_version_answers_by_itself_while_they_change(catalog: Catalog) -> None:
    for number in range(3):
        build(catalog.folder / f"v{number}", clustered(90, seed=number), kind="flat", shards=SHARDS)
    catalog.activate("v0")
    handles, expected = _handles(catalog), [_local(catalog, f"v{n}").search(QUERIES, 5) for n in range(3)]
    searches = [_opened(catalog, handles, "v0"), _opened(catalog, handles, "v1")]
    for _ in range(2):
        for number, search in enumerate(searches):
            _same(search.search(QUERIES, 5), expected[number])
        catalog.activate("v1")
    searches.append(_opened(catalog, handles, "v2"))
    shutil.rmtree(catalog.folder / "v2")
    _same(searches[2].search(QUERIES, 5), expected[2])
    _same(searches[1].search(QUERIES, 5), expected[1])
    _same(searches[0].search(QUERIES, 5), expected[0])  # was let go of, and is opened again
    with pytest.raises(ApiError, match="of the index version v2 does not answer"):
        searches[2].search(QUERIES, 5)


def test_a_replica_that_starts_anew_opens_what_it_is_asked_for(catalog: Catalog) -> None:
    build(catalog.folder / "v0", VECTORS, kind="flat", shards=SHARDS)
    build(catalog.folder / "v1", VECTORS, kind="flat", shards=1)
    handles = _handles(catalog)
    search = _opened(catalog, handles, "v0")
    catalog.activate("v1")  # which these replicas cannot hold
    for old, new in zip(handles, _handles(catalog), strict=True):
        old.search._call = new.search._call
    _same(search.search(QUERIES, 5), _local(catalog, "v0").search(QUERIES, 5))


def test_what_a_shard_refuses_is_refused(catalog: Catalog) -> None:
    build(catalog.folder / "v1", VECTORS, kind="flat", shards=SHARDS)
    build(catalog.folder / "v2", VECTORS, kind="flat", shards=SHARDS)
    build(catalog.folder / "v3", VECTORS, kind="flat", shards=2)
    handles = _handles(catalog)
    search = _opened(catalog, handles, "v1")
    (catalog.folder / "v2" / "index-001.faiss").write_bytes(b"no index")
    with pytest.raises(UserError, match=r"v2 is damaged: index-001\.faiss has 8 bytes"):
        _opened(catalog, handles, "v2")
    with pytest.raises(UserError, match=r"version v3 has 2 shards, and the server is for 3; .*--shards 3"):
        _opened(catalog, handles, "v3")
    _same(search.search(QUERIES, 5), _local(catalog, "v1").search(QUERIES, 5))


class _Answers:
    """A handle whose answers are given, the last of them for ever; exceptions are raised."""

    def __init__(self, *answers: object) -> None:
        self.search, self.asked, self._answers = self, 0, list(answers)

    def remote(self, *_: object) -> _Response:
        self.asked += 1
        return _Response(self._next)

    def _next(self) -> object:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _remote(catalog: Catalog, handle: _Answers) -> VectorSearch:
    build(catalog.folder / "v1", VECTORS[:4], kind="flat")
    folder = catalog.folder / "v1"
    return VectorSearch([RemoteShard(handle, folder, read_manifest(folder), 0, 30)], threads=1)  # type: ignore[arg-type]


GOOD = (np.array([[0.5, 0.25]], np.float32), np.array([[3, 1]]))


@pytest.mark.parametrize(
    ("scores", "rows"),
    [
        ([[1.0, 0.5]], [[0, 4]]),
        ([[1.0, 0.5]], [[0, -2]]),
        ([[1.0, 0.5]], [[2**40, 0]]),
        ([[np.nan, 0.5]], [[0, 1]]),
        ([[np.inf, 0.5]], [[0, 1]]),
        ([[1.0]], [[0]]),
        ([1.0, 0.5], [0, 1]),
    ],
)
def test_what_cannot_be_never_comes_out(catalog: Catalog, scores: list, rows: list) -> None:
    with pytest.raises(IndexDamaged):
        _remote(catalog, _Answers((np.array(scores), np.array(rows)))).search(QUERIES[:1], 2)


def test_a_replica_that_died_is_asked_once_more(catalog: Catalog) -> None:
    handle = _Answers(ActorDiedError(), GOOD)
    assert _remote(catalog, handle).search(QUERIES[:1], 2)[1].tolist() == [[3, 1]]
    assert handle.asked == 2


@pytest.mark.parametrize(
    ("errors", "asked"),
    [([ActorDiedError(), ActorDiedError()], 2), ([TimeoutError()], 1), ([RuntimeError("of FAISS")], 1)],
)
def test_a_shard_that_does_not_answer_is_said_and_left_alone_for_a_moment(
    catalog: Catalog, errors: list[Exception], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    handle = _Answers(*errors, GOOD)
    search = _remote(catalog, handle)
    for _ in range(3):
        with pytest.raises(ApiError, match="Shard 0 of the index version v1 does not answer now") as error:
            search.search(QUERIES[:1], 2)
        assert (error.value.body.code, error.value.body.type) == (503, "shard_unavailable")
        assert error.value.headers == {"Retry-After": "1"}
    assert handle.asked == asked
    now += 1.5
    assert search.search(QUERIES[:1], 2)[1].tolist() == [[3, 1]]


MANY = [*PASSAGES, *(Passage(id=f"p{n}", text=f"The town number {n} has {7 * n} people.") for n in range(46))]


def _server_config(workspace: Workspace, **serve: object) -> Config:
    flags = {f"serve.{name}": value for name, value in {"backend": "torch-fp32", **serve}.items()}
    return load_config(flags={"workspace": workspace.root, **flags})


def _expected(workspace: Workspace, limit: int) -> list[list[str]]:
    """Return what a server finds that has all vectors in its own process."""

    async def main() -> list[list[str]]:
        service, _ = open_service(_server_config(workspace))
        try:
            request = SearchRequest(queries=list(QUESTIONS), limit=limit)
            answer = await service.search(request, Deadline(60))
        finally:
            await service.close()
        return [[hit.id for hit in hits] for hits in answer.results]

    return asyncio.run(main())


@pytest.mark.ray
def test_a_server_with_its_shards_elsewhere(tmp_path: Path, report: Reporter) -> None:
    workspace = small_workspace(tmp_path / "ws", shards=2)
    catalog = Catalog(workspace.local_folder("index"))
    build_small(workspace, "v2", MANY, shards=2)
    build_small(workspace, "v3", MANY)
    expected = {}
    for version in ("v2", "v1"):
        catalog.activate(version)
        expected[version] = _expected(workspace, 10)
    key = keys.add(tmp_path / "keys.json", "tester", "write")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = _server_config(workspace, spread_shards=2, port=port, keys=str(tmp_path / "keys.json"))
    with pytest.raises(UserError, match="version v1 has 2 shards, and the server is for 3"):
        run(_server_config(workspace, spread_shards=3, port=port), workspace, report)
    with (
        serving(config, workspace, report) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60, headers={"X-API-Key": key}) as client,
    ):

        def ask() -> httpx.Response:
            return client.post("/v1/search", json={"queries": list(QUESTIONS), "limit": 10})

        def check(version: str) -> None:
            answer = ask().raise_for_status().json()
            assert answer["index_version"] == version
            assert [[hit["id"] for hit in hits] for hits in answer["results"]] == expected[version]

        check("v1")
        refused = client.post("/v1/index/activate", json={"version": "v3"})
        assert (refused.status_code, refused.json()["type"]) == (409, "not_activated")
        assert "v3 has 1 shards, and the server is for 2" in refused.json()["message"]
        check("v1")
        assert client.post("/v1/index/activate", json={"version": "v2"}).json()["active"] == "v2"
        check("v2")
        assert client.get("/v1/index").json()["replicas"] == {"v2": 1}
        (shard,) = [p for p in psutil.Process().children(recursive=True) if "shard-001" in " ".join(p.cmdline())]
        os.kill(shard.pid, signal.SIGKILL)
        while (answer := ask()).status_code != 200:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            time.sleep(1)
        check("v2")
        assert client.post("/v1/index/rollback").json()["active"] == "v1"
        check("v1")
