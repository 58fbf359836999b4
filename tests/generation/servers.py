"""A server for tests on the loopback address that answers as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

HANG = None  # an answer that never comes


def answer(status: int = 200, body: object = "", **headers: str) -> bytes:
    """Return an HTTP response; a body that is no text is written as JSON."""
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = {"Content-Length": str(len(content)), "Connection": "close"}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Something", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass
class Request:
    """What was asked: `head` holds the request line and the headers."""

    path: str
    head: str
    body: Any


@dataclass
class Endpoint:
    """A server that gives its answers in order, the last one again and again.

    Attributes:
        delay: seconds before an answer.
        refuses: from a request's body to what is answered instead, if anything.
        most_at_once: most requests it has held at once.
    """

    answers: list[bytes | None]
    delay: float = 0
    refuses: Callable[[Any], bytes | None] = lambda _: None
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and hang up."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(line.split(":")[1]) for line in head.lower().split("\r\n") if "content-length" in line), 0
            )
            content = await reader.readexactly(length)
            body = json.loads(content) if content else None
            self.requests.append(Request(head.split()[1], head, body))
            await asyncio.sleep(self.delay)
            given = self.answers[min(len(self.requests), len(self.answers)) - 1]
            given = (self.refuses(body) if body else None) or given
            if given is HANG:
                await reader.read()
            else:
                writer.write(given)
        finally:
            self._at_once -= 1
            writer.close()


@asynccontextmanager
async def endpoint(
    *answers: bytes | None, delay: float = 0, refuses: Callable[[Any], bytes | None] = lambda _: None
) -> AsyncIterator[Endpoint]:
    """Have a server that gives these answers."""
    served = Endpoint(list(answers), delay, refuses)
    server = await asyncio.start_server(served.handle, "127.0.0.1", 0)
    async with server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield served
