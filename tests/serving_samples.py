"""Services in memory for the HTTP interface in front of them: what they share, and one that repeats what is asked."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Literal

import numpy as np

from causalneg.serving.api import Embedded
from causalneg.serving.deadline import Deadline
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


MOST_WORDS = 1000  # of a passage that is not cut


class InMemory(ABC):
    """Passages and index versions in memory; who extends it says what is served, and searches and encodes."""

    def __init__(self, passages: Iterable[PassageBody], active: str, previous: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.passages = {passage.id: passage for passage in passages}
        self.change, self.waiting = 0, 0
        self.active, self.previous = active, previous
        self.not_ready: str | None = None
        self.wrong: str | None = None

    def ready(self) -> str | None:
        return self.not_ready

    async def problem(self) -> str | None:
        return self.wrong

    @abstractmethod
    def info(self) -> Info: ...

    async def upsert(self, passages: list[PassageBody], deadline: Deadline) -> ChangeResponse:
        self.calls.append(("upsert", [passage.id for passage in passages]))
        self.passages |= {passage.id: passage for passage in passages}
        cut = [passage.id for passage in passages if len(passage.text.split()) > MOST_WORDS]
        return self._changed(len(passages)).model_copy(update={"truncated": cut})

    async def delete(self, ids: list[str]) -> ChangeResponse:
        self.calls.append(("delete", ids))
        self.passages = {name: passage for name, passage in self.passages.items() if name not in ids}
        return self._changed(len(ids))

    def _changed(self, count: int) -> ChangeResponse:
        self.change += count
        return ChangeResponse(changed=count, change=self.change, index_version=self.active)

    async def passage(self, passage_id: str) -> PassageResponse | None:
        found = self.passages.get(passage_id)
        return PassageResponse(**found.model_dump()) if found else None

    async def versions(self) -> IndexList:
        info = self.info()
        there = [
            IndexVersion(
                version=version,
                kind=info.index_kind,
                rows=info.rows,
                dimension=info.dimension,
                shards=1,
                megabytes=0.1,
                model=info.model_id,
                model_fingerprint=info.model_sha,
                recall=1.0,
                lexical=info.hybrid,
                change=0,
                created="2025-01-01T00:00:00Z",
            )
            for version in sorted((self.active, self.previous), reverse=True)
        ]
        return IndexList(active=self.active, previous=self.previous, change=self.change, versions=there)

    async def activate(self, version: str) -> SwapResponse:
        if version not in (self.active, self.previous):
            raise ApiError(HTTPStatus.NOT_FOUND, "no_such_version", f"There is no version {version}.")
        if version != self.active:
            self.active, self.previous = version, self.active
        return SwapResponse(active=self.active, previous=self.previous, replicas=1, seconds=0.1)

    async def roll_back(self) -> SwapResponse:
        return await self.activate(self.previous)

    async def merge(self) -> MergeResponse:
        return MergeResponse(state="started", change=self.change)


class Echo(InMemory):
    """Finds for each query passages that say what the query was."""

    def __init__(self) -> None:
        super().__init__([], "v2", "v1")
        self.cancelled = 0

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

    async def search(self, request: SearchRequest, deadline: Deadline) -> SearchResponse:
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
        inputs: list[str],
        prompt_name: str | None,
        deadline: Deadline,
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


def _hit(rank: int, query: str, with_payload: bool) -> SearchHit:
    payload = Payload(title="", text=query, metadata={"rank": rank}) if with_payload else None
    return SearchHit(id=f"p{rank}", score=1 / (rank + 1), payload=payload)
