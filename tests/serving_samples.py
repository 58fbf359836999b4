"""A service that only repeats what it was asked, for the HTTP interface in front of it."""

import asyncio
from http import HTTPStatus
from typing import Any, Literal

import numpy as np

from causalneg.serving.api import Embedded
from causalneg.serving.errors import ApiError
from causalneg.serving.schema import (
    ChangeResponse,
    IndexList,
    IndexVersion,
    Info,
    MergeResponse,
    PassageBody,
    PassageResponse,
    Payload,
    SearchHit,
    SearchRequest,
    SearchResponse,
    SwapResponse,
    Timings,
)

DIMENSION = 4
MAX_TOKENS = 8  # characters of a text count as tokens
VOCABULARY = 1000


class Echo:
    """Finds for each query passages that say what the query was; keeps passages in memory."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.passages: dict[str, PassageBody] = {}
        self.change = 0
        self.active, self.previous = "v2", "v1"
        self.not_ready: str | None = None
        self.cancelled = 0
        self.waiting = 0

    def ready(self) -> str | None:
        return self.not_ready

    def info(self) -> Info:
        return Info(
            model_id="m",
            model_sha="f",
            model_dtype="float32",
            backend="torch-fp32",
            max_input_length=MAX_TOKENS,
            max_client_batch_size=3,
            max_batch_tokens=64,
            prompts={"query": "q: "},
            dimension=DIMENSION,
            index_version=self.active,
            index_kind="flat",
            rows=3,
            change=self.change,
            hybrid=True,
            rerank=False,
            version="0",
        )

    async def search(self, request: SearchRequest, deadline: float) -> SearchResponse:
        """Repeat each query; "break" fails, "overload" is refused, "wait" takes ten seconds."""
        self.calls.append(("search", request, deadline))
        if "break" in request.texts:
            raise RuntimeError("secret detail")
        if "overload" in request.texts:
            raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, "overloaded", "Too much waits.", retry_after=2)
        if "wait" in request.texts:
            await self._wait()
        return SearchResponse(
            index_version=self.active,
            change=self.change,
            results=[[_hit(n, q, request.with_payload) for n in range(request.limit)] for q in request.texts],
            truncated=[len(q) > MAX_TOKENS for q in request.texts],
            timings=Timings(queue=1, encode=2, total=3),
        )

    async def embed(
        self,
        inputs: list[str] | list[list[int]],
        prompt_name: str | None,
        deadline: float,
        *,
        dimensions: int | None,
        normalise: bool,
        cut: Literal["right", "left"] | None,
    ) -> Embedded:
        """Give each input a vector of its own length; "wait" takes ten seconds."""
        self.calls.append(("embed", inputs, prompt_name, dimensions, normalise, cut))
        if "wait" in inputs:
            await self._wait()
        if (dimensions or 1) > DIMENSION or prompt_name not in (None, "query", "passage"):
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", "dimensions or prompt_name: not here.")
        if any(token >= VOCABULARY for i in inputs if isinstance(i, list) for token in i):
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", "input: no such token.")
        truncated = [len(i) > MAX_TOKENS for i in inputs]
        if cut is None and any(truncated):
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", "An input is too long.")
        vectors = np.array([[len(i), 1 / 3, -1, 0] for i in inputs], np.float32)[:, : dimensions or DIMENSION]
        return Embedded(vectors, [min(len(i), MAX_TOKENS) for i in inputs], truncated, Timings(total=1))

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def upsert(self, passages: list[PassageBody], deadline: float) -> ChangeResponse:
        self.passages |= {p.id: p for p in passages}
        return self._changed(len(passages))

    async def delete(self, ids: list[str]) -> ChangeResponse:
        for passage in ids:
            self.passages.pop(passage, None)
        return self._changed(len(ids))

    def _changed(self, count: int) -> ChangeResponse:
        self.change += count
        return ChangeResponse(changed=count, change=self.change, index_version=self.active)

    async def passage(self, passage_id: str) -> PassageResponse | None:
        found = self.passages.get(passage_id)
        return found and PassageResponse(**found.model_dump())

    async def versions(self) -> IndexList:
        shared = {"kind": "flat", "rows": 3, "dimension": DIMENSION, "shards": 1, "megabytes": 0.1, "model": "m"}
        shared |= {"model_fingerprint": "f", "recall": 1.0, "lexical": False, "change": 0, "created": "2025"}
        versions = [IndexVersion(version=v, **shared) for v in ("v2", "v1")]
        return IndexList(active=self.active, previous=self.previous, change=self.change, versions=versions)

    async def activate(self, version: str) -> SwapResponse:
        if version not in ("v1", "v2"):
            raise ApiError(HTTPStatus.NOT_FOUND, "no_such_version", "There is no such version.")
        self.active, self.previous = version, self.active
        return SwapResponse(active=self.active, previous=self.previous, replicas=1, seconds=0.1)

    async def roll_back(self) -> SwapResponse:
        return await self.activate(self.previous)

    async def merge(self) -> MergeResponse:
        return MergeResponse(state="started", change=self.change)


def _hit(rank: int, query: str, with_payload: bool) -> SearchHit:
    payload = Payload(title="", text=query, metadata={"rank": rank}) if with_payload else None
    return SearchHit(id=f"p{rank}", score=1 / (rank + 1), payload=payload)
