"""The client that waits for its answers, and the one that awaits them."""

import asyncio
import os
import ssl
import time
from collections.abc import Iterable, Sequence
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import httpx

from causalneg.client.arguments import refusing_unknown
from causalneg.client.conversations import (
    AnyPassage,
    Conversation,
    Conversations,
    Outcome,
    Pause,
    Reply,
    SearchOptions,
    Send,
)
from causalneg.connections import connect
from causalneg.serving.schema import (
    ChangeResponse,
    EmbeddingKind,
    Health,
    IndexList,
    Info,
    MergeResponse,
    PassageResponse,
    SearchHit,
    SearchResponse,
    SwapResponse,
)

if TYPE_CHECKING:
    from typing import Unpack

    import numpy as np

_T = TypeVar("_T")


@cache
def _tls() -> ssl.SSLContext:
    """Return how httpx checks certificates, read once: that takes longer than a search."""
    return httpx.create_ssl_context()


class Client:
    """Asks a server, and waits for the answers; may be used by several threads.

    Connections are kept alive between requests; `with` or `close` ends them, and the next request opens others. So
    does a copy, a pickle that is loaded, or a process that was forked. A pickle holds the key that was given as
    api_key, so keep it as you keep the key; one of the environment is read anew where the pickle is loaded. This
    machine is asked directly, others through the proxies that the environment names. What passes, as a lost connection
    or a busy server (429, 503), is met by repeating the request after a growing pause, or after the one the server
    names.

    Args:
        url: the server's address.
        api_key: the environment variable CAUSALNEG_API_KEY unless given; servers without keys need none.
        timeout: seconds that a request may take in all, repetitions and pauses included.
        retries: how often a request is repeated at most.

    Every method raises a `CausalNegError` when there is no usable answer.

    Raises:
        UserError: the address or the key is none.
    """

    _sleep = staticmethod(time.sleep)

    @refusing_unknown
    def __init__(
        self, url: str = "http://127.0.0.1:8000", api_key: str | None = None, *, timeout: float = 30.0, retries: int = 3
    ) -> None:
        self._with = Conversations(url, api_key, timeout, retries)
        self._connections: dict[int, httpx.Client] = {}  # by process

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connections": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._with.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        if connection := self._connections.pop(os.getpid(), None):
            connection.close()

    @overload
    def search(self, query: str, **options: "Unpack[SearchOptions]") -> list[SearchHit]: ...
    @overload
    def search(self, query: list[str], **options: "Unpack[SearchOptions]") -> list[list[SearchHit]]: ...
    def search(
        self, query: str | list[str], **options: "Unpack[SearchOptions]"
    ) -> list[SearchHit] | list[list[SearchHit]]:
        """Return the hits of a query, best first; those of each query for a list of them."""
        results = self.search_response(query, **options).results
        return results[0] if isinstance(query, str) else results

    def search_response(self, query: str | list[str], **options: "Unpack[SearchOptions]") -> SearchResponse:
        """Search, and return the whole answer: with index version, last change and timings."""
        return self._run(self._with.search(query, options))

    def embed(
        self, texts: str | Sequence[str], kind: EmbeddingKind | None = None, dimensions: int | None = None
    ) -> "np.ndarray":
        """Encode texts, as many requests as it takes.

        Args:
            texts: several, or one.
            kind: "query" or "passage" puts the model's prompt for these before them; None puts nothing.
            dimensions: cut the vectors to so many, of length 1 again.

        Returns:
            float32 [texts, dimensions], or [dimensions] for a string.
        """
        return self._run(self._with.embed(texts, kind, dimensions))

    def upsert(self, passages: "AnyPassage | Iterable[AnyPassage]") -> ChangeResponse:
        """Add passages or put them in place of those with their ids, as many requests as it takes.

        When one of several requests fails, those before it are done; it does no harm to do all of them again.
        """
        return self._run(self._with.upsert(passages))

    def delete(self, ids: str | Iterable[str]) -> ChangeResponse:
        """Take passages away by their ids, as many requests as it takes; those that are not there count as taken."""
        return self._run(self._with.delete(ids))

    def get(self, passage_id: str) -> PassageResponse | None:
        """Return a passage; None if there is none with the id."""
        return self._run(self._with.get(passage_id))

    def versions(self) -> IndexList:
        """Return the index versions, which one answers, and which did before."""
        return self._run(self._with.versions())

    def activate(self, version: str) -> SwapResponse:
        """Let an index version answer; not repeated once it was sent, be the connection lost or not."""
        return self._run(self._with.activate(version))

    def roll_back(self) -> SwapResponse:
        """Let the index version answer that did before; not repeated once it was sent."""
        return self._run(self._with.roll_back())

    def merge(self) -> MergeResponse:
        """Begin to merge the changes into a new index version."""
        return self._run(self._with.merge())

    def info(self) -> Info:
        """Return what is served."""
        return self._run(self._with.info())

    def health(self) -> Health:
        """Return that the process answers."""
        return self._run(self._with.health())

    def ready(self) -> bool:
        """Tell whether queries can be answered now; asks once."""
        return self._run(self._with.ready())

    def _run(self, conversation: Conversation[_T]) -> _T:
        outcome: Outcome = None
        try:
            while True:
                step = conversation.send(outcome)
                outcome = self._sleep(step.seconds) if isinstance(step, Pause) else self._send(step)
        except StopIteration as end:
            return end.value

    def _send(self, send: Send) -> Outcome:
        ends = time.monotonic() + send.seconds
        body = bytearray()
        try:
            with self._connected().stream(send.method, send.url, content=send.body, timeout=send.seconds) as response:
                for piece in response.iter_bytes():
                    body += piece
                    if time.monotonic() > ends:  # httpx itself bounds only the time between two pieces
                        return TimeoutError()
                return Reply(response.status_code, response.headers, bytes(body))
        except httpx.RequestError as error:
            return error

    def _connected(self) -> httpx.Client:
        """Return the connections of this process: those of another answer its requests."""
        process = os.getpid()
        if there := self._connections.get(process):
            return there
        made = connect(httpx.Client, self._with.url, headers=self._with.headers, verify=_tls())
        return self._connections.setdefault(process, made)  # another thread may have been first


class AsyncClient:
    """Asks a server, and awaits the answers; in all else as `Client`. May be used in one event loop after the other."""

    _sleep = staticmethod(asyncio.sleep)

    @refusing_unknown
    def __init__(
        self, url: str = "http://127.0.0.1:8000", api_key: str | None = None, *, timeout: float = 30.0, retries: int = 3
    ) -> None:
        self._with = Conversations(url, api_key, timeout, retries)
        self._connections: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connections": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._with.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connections of this event loop."""
        if connection := self._connections.pop(asyncio.get_running_loop(), None):
            await connection.aclose()

    @overload
    async def search(self, query: str, **options: "Unpack[SearchOptions]") -> list[SearchHit]: ...
    @overload
    async def search(self, query: list[str], **options: "Unpack[SearchOptions]") -> list[list[SearchHit]]: ...
    async def search(
        self, query: str | list[str], **options: "Unpack[SearchOptions]"
    ) -> list[SearchHit] | list[list[SearchHit]]:
        """As `Client.search`."""
        results = (await self.search_response(query, **options)).results
        return results[0] if isinstance(query, str) else results

    async def search_response(self, query: str | list[str], **options: "Unpack[SearchOptions]") -> SearchResponse:
        """As `Client.search_response`."""
        return await self._run(self._with.search(query, options))

    async def embed(
        self, texts: str | Sequence[str], kind: EmbeddingKind | None = None, dimensions: int | None = None
    ) -> "np.ndarray":
        """As `Client.embed`."""
        return await self._run(self._with.embed(texts, kind, dimensions))

    async def upsert(self, passages: "AnyPassage | Iterable[AnyPassage]") -> ChangeResponse:
        """As `Client.upsert`."""
        return await self._run(self._with.upsert(passages))

    async def delete(self, ids: str | Iterable[str]) -> ChangeResponse:
        """As `Client.delete`."""
        return await self._run(self._with.delete(ids))

    async def get(self, passage_id: str) -> PassageResponse | None:
        """As `Client.get`."""
        return await self._run(self._with.get(passage_id))

    async def versions(self) -> IndexList:
        """As `Client.versions`."""
        return await self._run(self._with.versions())

    async def activate(self, version: str) -> SwapResponse:
        """As `Client.activate`."""
        return await self._run(self._with.activate(version))

    async def roll_back(self) -> SwapResponse:
        """As `Client.roll_back`."""
        return await self._run(self._with.roll_back())

    async def merge(self) -> MergeResponse:
        """As `Client.merge`."""
        return await self._run(self._with.merge())

    async def info(self) -> Info:
        """As `Client.info`."""
        return await self._run(self._with.info())

    async def health(self) -> Health:
        """As `Client.health`."""
        return await self._run(self._with.health())

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._run(self._with.ready())

    async def _run(self, conversation: Conversation[_T]) -> _T:
        outcome: Outcome = None
        try:
            while True:
                step = conversation.send(outcome)
                outcome = await (self._sleep(step.seconds) if isinstance(step, Pause) else self._send(step))
        except StopIteration as end:
            return end.value

    async def _send(self, send: Send) -> Outcome:
        try:
            async with asyncio.timeout(send.seconds):
                response = await self._connected().request(
                    send.method, send.url, content=send.body, timeout=send.seconds
                )
        except (httpx.RequestError, TimeoutError) as error:
            return error
        return Reply(response.status_code, response.headers, response.content)

    def _connected(self) -> httpx.AsyncClient:
        """Return the connections of this event loop: those of another can't be used in it."""
        loop = asyncio.get_running_loop()
        if loop not in self._connections:
            # Those of closed loops are lost, and would hold their loops in memory.
            self._connections = {loop: kept for loop, kept in self._connections.items() if not loop.is_closed()}
            self._connections[loop] = connect(
                httpx.AsyncClient, self._with.url, headers=self._with.headers, verify=_tls()
            )
        return self._connections[loop]
