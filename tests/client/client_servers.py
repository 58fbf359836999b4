"""Two real servers: the served application over passages in memory, and one that does what a script says."""

import re
import socket
import socketserver
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import uvicorn
from serving_samples import InMemory

from causalneg.config import ServeSettings
from causalneg.filters import Condition, FieldCondition, Filter, HasId
from causalneg.records import full_text
from causalneg.serving.api.app import create_app
from causalneg.serving.api.call import too_large
from causalneg.serving.api.service import Embedded
from causalneg.serving.deadline import Deadline
from causalneg.serving.keys import Keys
from causalneg.serving.metrics import Metrics
from causalneg.serving.schema import (
    Info,
    PassageBody,
    Payload,
    SearchHit,
    SearchRequest,
    SearchResponse,
    Timings,
)

DIMENSION = 512
MAX_WORDS = 100
PASSAGES = [
    PassageBody(id="rome", title="Rome", text="Rome is the capital of Italy.", metadata={"kind": "city", "size": 2.8}),
    PassageBody(id="paris", title="Paris", text="Paris is a city.", metadata={"kind": "city", "size": 2.1}),
    PassageBody(id="po", title="Po", text="The longest river of Italy.", metadata={"kind": "river", "size": 652}),
    PassageBody(id="bare", text="A text without a title."),
]

Ask = Callable[..., Any]  # the fixture `ask`


def matches(condition: Condition, passage_id: str, metadata: dict[str, Any]) -> bool:
    """Tell whether a condition holds for a passage, read off the words that describe filters."""
    if isinstance(condition, HasId):
        return passage_id in condition.has_id
    if isinstance(condition, Filter):
        must, should, must_not = (
            [matches(part, passage_id, metadata) for part in parts]
            for parts in (condition.must, condition.should, condition.must_not)
        )
        return all(must) and (any(should) or not should) and not any(must_not)
    return _field_matches(condition, metadata)


def _field_matches(condition: FieldCondition, metadata: dict[str, Any]) -> bool:
    found: Any = metadata
    for name in condition.key.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    values = found if isinstance(found, list) else [] if found is None else [found]
    if condition.match:
        if condition.match.except_ is not None:
            return any(value not in condition.match.except_ for value in values)
        wanted = condition.match.any if condition.match.any is not None else [condition.match.value]
        return any(value in wanted for value in values)
    bounds = condition.range
    assert bounds
    return any(
        (bounds.gt is None or value > bounds.gt)
        and (bounds.gte is None or value >= bounds.gte)
        and (bounds.lt is None or value < bounds.lt)
        and (bounds.lte is None or value <= bounds.lte)
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool)
    )


def encoded(text: str) -> np.ndarray:
    """Return a text as the numbers of its words, by their hashes, of length 1."""
    vector = np.zeros(DIMENSION, np.float32)
    for word in re.findall(r"\w+", text.lower()):
        vector[zlib.crc32(word.encode()) % DIMENSION] += 1
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


class MemoryService(InMemory):
    """Answers from passages in memory; `calls` has what was asked of it."""

    def __init__(self, passages: Sequence[PassageBody]) -> None:
        super().__init__(passages, "2", "1")

    def info(self) -> Info:
        return Info(
            model_id="words",
            model_sha="0",
            model_dtype="float32",
            backend="memory",
            max_input_length=MAX_WORDS,
            max_client_batch_size=8,
            max_batch_tokens=4096,
            prompts={"query": "query: "},
            dimension=DIMENSION,
            index_version=self.active,
            index_kind="flat",
            rows=len(self.passages),
            change=self.change,
            hybrid=True,
            rerank=True,
            version="0",
        )

    async def search(self, request: SearchRequest, deadline: Deadline) -> SearchResponse:
        self.calls.append(("search", request))
        results = [self._found(text, request) for text in request.texts]
        return SearchResponse(
            index_version=self.active,
            change=self.change,
            results=results,
            truncated=[False] * len(results),
            timings=Timings(),
        )

    def _found(self, text: str, request: SearchRequest) -> list[SearchHit]:
        query = encoded(text)
        kept = [p for p in self.passages.values() if not request.filter or matches(request.filter, p.id, p.metadata)]
        hits = [
            SearchHit(
                id=passage.id,
                score=float(query @ encoded(full_text(passage.title, passage.text))),
                payload=Payload(title=passage.title, text=passage.text, metadata=passage.metadata)
                if request.with_payload
                else None,
            )
            for passage in kept
        ]
        lowest = -1 if request.score_threshold is None else request.score_threshold
        ranked = sorted((hit for hit in hits if hit.score >= lowest), key=lambda hit: -hit.score)
        return ranked[request.offset : request.offset + request.limit]

    async def embed(
        self,
        inputs: list[str],
        prompt_name: str | None,
        deadline: Deadline,
        *,
        dimensions: int | None,
        normalise: bool,
        cut: str | None,
    ) -> Embedded:
        self.calls.append(("embed", inputs))
        prompt = self.info().prompts.get(prompt_name or "", "")
        texts = [prompt + text for text in inputs]
        if any(len(text.split()) > MAX_WORDS for text in texts):
            raise too_large("An input has too many tokens.")
        vectors = np.stack([encoded(text) for text in texts])[:, :dimensions]
        return Embedded(vectors, [1] * len(texts), [False] * len(texts), Timings())


@contextmanager
def serving(service: MemoryService, settings: ServeSettings, keys: Keys | None = None) -> Iterator[str]:
    """Serve the application in a thread, and give its address."""
    app = create_app(service, settings, Metrics(), keys or Keys())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # who connects before it runs waits in the queue
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


Deed = Callable[[socket.socket], None]


def answer(status: int, body: str | bytes = "", **headers: str) -> Deed:
    """Answer with a status, a body and headers (`Retry_After` for Retry-After)."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close", **headers}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    head = "\r\n".join([*lines, "", ""]).encode()
    return lambda connection: connection.sendall(head + content)


def found(*ids: str) -> Deed:
    """Answer a search for one query."""
    hits = [SearchHit(id=name, score=1, payload=Payload(title="", text="text")) for name in ids]
    response = SearchResponse(index_version="1", change=0, results=[hits], truncated=[False], timings=Timings())
    return answer(200, response.model_dump_json())


def reset(connection: socket.socket) -> None:
    """Break the connection off."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half(connection: socket.socket) -> None:
    """Break the connection off in the middle of the answer."""
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"index_ver')
    reset(connection)


def silence(connection: socket.socket) -> None:
    """Say nothing until the client has left."""
    connection.settimeout(10)
    with suppress(OSError):
        connection.recv(1)


def trickle(connection: socket.socket) -> None:
    """Send a byte now and then until the client has left, at most for ten seconds."""
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(500):
            connection.sendall(b" ")
            time.sleep(0.02)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, block_on_close = True, True, False


@contextmanager
def scripted(*deeds: Deed, port: int = 0, listener: socket.socket | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """Do one thing after the other to the connections that come, the last one for ever.

    Gives the address and the requests, which grow. Connections come to the listener instead, if one is given.
    """
    left, requests = list(deeds), list[bytes]()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            requests.append(_read_request(self.request))
            (left.pop(0) if len(left) > 1 else left[0])(self.request)

    with _Server(("127.0.0.1", port), Handler) as server:
        if listener is not None:
            server.socket.close()
            server.socket = listener
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join(10)


def _read_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    while length and len(body) < int(length[1]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
