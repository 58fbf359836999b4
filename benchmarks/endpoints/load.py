"""A closed loop of HTTP clients: each sends a request over its own kept connection as soon as it has its answer."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

_OK = 200
_PAUSE = 0.005  # seconds after a refusal; asking again at once would only measure refusals


@dataclass
class Load:
    """What came of a load.

    Attributes:
        seconds: it lasted.
        milliseconds: of each answered request, by status.
        failures: requests without an answer, by what was in the way.
        answers: bodies, where they were kept.
    """

    seconds: float = 0.0
    milliseconds: dict[int, list[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def pace(self) -> float:
        """Requests per second that were answered with 200."""
        return len(self.milliseconds.get(200, [])) / self.seconds

    def percentile(self, q: float, status: int = 200) -> float:
        """Return the time that `q` percent of the answers with a status stayed below, milliseconds."""
        return float(np.percentile(self.milliseconds[status], q))

    @property
    def statuses(self) -> dict[int, int]:
        """Answers by status."""
        return {status: len(times) for status, times in sorted(self.milliseconds.items())}


def request_bytes(url: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Return a POST request with a JSON body as it goes over the wire."""
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Read an answer: its status, its body, and whether the connection stays open.

    Raises:
        asyncio.IncompleteReadError: the connection was closed within it.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status, stays = int(head[9:12]), b"connection: close" not in head
    if b"transfer-encoding: chunked" in head:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return status, body, stays
    length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]) if b"content-length:" in head else 0
    return status, await reader.readexactly(length), stays


class _Client:
    """A client with a connection that it keeps as long as the server does."""

    def __init__(self, url: str, load: Load) -> None:
        parts = urlsplit(url)
        self._address, self._load = (parts.hostname, parts.port), load
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes] | None:
        """Return status and body of the answer, and count it; None where there was none."""
        began = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            self._streams[1].write(request)
            status, body, stays = await read_answer(self._streams[0])
        except (OSError, asyncio.IncompleteReadError) as error:
            self._load.failures[type(error).__name__] += 1
            self.close()
            return None
        self._load.milliseconds.setdefault(status, []).append((time.perf_counter() - began) * 1000)
        if not stays:
            self.close()
        return status, body

    def close(self) -> None:
        """Let go of the connection."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None

    async def go_on(
        self, requests: list[tuple[int, bytes]], going: Callable[[], bool], keep: bool, leave: bool
    ) -> None:
        """Ask one after the other, from the first again after the last, as long as it is to go on."""
        for number, request in itertools.cycle(requests):
            if not going():
                break
            status, body = await self.ask(request) or (0, b"")
            if keep and status == _OK:
                self._load.answers.append((number, body))
            if status != _OK:
                if leave:
                    break
                await asyncio.sleep(_PAUSE)
        self.close()


async def closed_loop(
    url: str,
    bodies: list[bytes],
    clients: int,
    seconds: float = float("inf"),
    *,
    stop: asyncio.Event | None = None,
    headers: dict[str, str] | None = None,
    keep: bool = False,
    leave: bool = False,
) -> Load:
    """Have `clients` clients ask, for `seconds` or until they are to stop, each its share of the bodies in turn.

    Args:
        url: what is asked.
        bodies: JSON, taken in turn.
        clients: connections.
        seconds: to go on for.
        stop: set when they are to stop.
        headers: sent with each request.
        keep: keep the bodies of the answers, with the number of what was asked.
        leave: each client stops asking when it is refused once.
    """
    requests = [(number, request_bytes(url, body, headers)) for number, body in enumerate(bodies)]
    load = Load()
    began = time.perf_counter()

    def going() -> bool:
        return time.perf_counter() - began < seconds and not (stop and stop.is_set())

    shares = [(requests[n % len(requests) :: clients] or requests) for n in range(clients)]
    await asyncio.gather(*(_Client(url, load).go_on(share, going, keep, leave) for share in shares))
    load.seconds = time.perf_counter() - began
    return load
