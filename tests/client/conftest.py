"""Servers for the tests of the clients."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks  # noqa: F401 - before any test imports what it switches off
import pytest
from client_servers import PASSAGES, Ask, MemoryService, serving

from causalneg.client import AsyncClient, Client
from causalneg.config import ServeSettings
from causalneg.serving import keys

SETTINGS = ServeSettings(max_queries=8, max_body_mb=0.02)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the key of whoever runs the tests."""
    monkeypatch.delenv("CAUSALNEG_API_KEY", raising=False)


@pytest.fixture
def service() -> MemoryService:
    """What answers behind `url`."""
    return MemoryService(PASSAGES)


@pytest.fixture
def url(service: MemoryService) -> Iterator[str]:
    """The address of a server whom everybody may read."""
    with serving(service, SETTINGS) as url:
        yield url


@pytest.fixture
def guarded(service: MemoryService, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of a server with keys, and a key that may write."""
    path = tmp_path / "keys.json"
    key = keys.add(path, "tests", "write")
    with serving(service, SETTINGS, keys.Keys.read(path)) as url:
        yield url, key


@pytest.fixture(params=[Client, AsyncClient])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A function that makes a client, waiting or awaiting, and calls one of its methods."""

    def waiting(url: str, method: str, *args: object, client: dict[str, Any] | None = None, **options: object) -> Any:  # noqa: ANN401
        with Client(url, **client or {}) as made:
            return getattr(made, method)(*args, **options)

    def awaiting(url: str, method: str, *args: object, client: dict[str, Any] | None = None, **options: object) -> Any:  # noqa: ANN401
        async def run() -> Any:  # noqa: ANN401
            async with AsyncClient(url, **client or {}) as made:
                return await getattr(made, method)(*args, **options)

        return asyncio.run(run())

    return waiting if request.param is Client else awaiting


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients would have waited for, which they do not."""
    taken: list[float] = []

    async def awaited(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(Client, "_sleep", staticmethod(taken.append))
    monkeypatch.setattr(AsyncClient, "_sleep", staticmethod(awaited))
    return taken


@pytest.fixture
def real_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients have waited for."""
    taken: list[float] = []

    def waited(seconds: float) -> None:
        taken.append(seconds)
        time.sleep(seconds)

    async def awaited(seconds: float) -> None:
        taken.append(seconds)
        await asyncio.sleep(seconds)

    monkeypatch.setattr(Client, "_sleep", staticmethod(waited))
    monkeypatch.setattr(AsyncClient, "_sleep", staticmethod(awaited))
    return taken
