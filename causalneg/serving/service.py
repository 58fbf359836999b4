"""What the HTTP interface stands on: searches, encodes and changes, in one process. Knows no Ray and no HTTP."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

import numpy as np

from causalneg import __version__
from causalneg.config import ServeSettings
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.changes import Change
from causalneg.indexing.view import Hit, View
from causalneg.records import Passage, metadata_text
from causalneg.serving.api.service import Embedded
from causalneg.serving.deadline import Deadline
from causalneg.serving.encoders import Tokens
from causalneg.serving.errors import ApiError, shutting_down, too_late
from causalneg.serving.forms import described, metadata_of, search_hit
from causalneg.serving.holder import Holder, Served
from causalneg.serving.queue import Closed, DeadlinePassed, Overloaded, Submitted, WorkQueue
from causalneg.serving.rerank import Reranker
from causalneg.serving.schema import (
    ChangeResponse,
    Cut,
    IndexList,
    Info,
    MergeResponse,
    PassageBody,
    PassageResponse,
    SearchRequest,
    SearchResponse,
    SwapResponse,
    Timings,
)
from causalneg.serving.swap import Swapper
from causalneg.serving.work import Done, Task, Wanted, padded_tokens, work
from causalneg.serving.writes import Writer

_INLINE_CHARACTERS = 4096  # more text than that is tokenised beside the event loop
_RERANKS_WAITING = 8
_PATIENCE = 0.02  # seconds after which a request of several parts asks again for its next one


class LocalService:
    """Answers for one process.

    Args:
        holder: what answers.
        catalog: versions and changes of the workspace.
        swapper: changes which version answers.
        settings: limits.
        reranker: for `rerank`, if there is one.
    """

    def __init__(
        self,
        holder: Holder,
        catalog: Catalog,
        swapper: Swapper,
        settings: ServeSettings,
        reranker: Reranker | None = None,
    ) -> None:
        self._holder, self._catalog, self._settings, self._reranker = holder, catalog, settings, reranker
        self.swapper = swapper
        self._queue: WorkQueue[Task, Done] = WorkQueue(
            work, padded_tokens, settings.batch_tokens, settings.max_waiting_tokens
        )
        self._queue.start()
        self._writer = Writer(catalog.changes)
        self._refreshing = asyncio.Lock()
        self._reranking = asyncio.Semaphore(1)
        self._reranks_waiting = 0
        self._closed = False
        self._in_flight = 0

    # What the HTTP interface asks

    def ready(self) -> str | None:
        """Return None when queries can be answered, otherwise why not."""
        return str(shutting_down()) if self._closed else None

    async def problem(self) -> str | None:
        """Return what does not work though queries are answered, if something does not."""
        served = await self._current()
        found = (self._holder.problem, await self._writer.problem(), self.swapper.problem(served.view.version))
        return " ".join(dict.fromkeys(filter(None, found))) or None

    @property
    def waiting(self) -> int:
        """Padded tokens that wait for the encoder."""
        return self._queue.waiting

    def info(self) -> Info:
        """Return what is served."""
        view, encoder = self._holder.served.view, self._holder.served.encoder
        return Info(
            model_id=encoder.model.name,
            model_sha=encoder.model.fingerprint,
            model_dtype=encoder.backend.dtype,
            backend=encoder.backend.name,
            max_input_length=encoder.backend.max_length,
            max_client_batch_size=self._settings.max_queries,
            max_batch_tokens=self._settings.batch_tokens,
            prompts=encoder.backend.prompts,
            dimension=view.dimension,
            index_version=view.version,
            index_kind=view.index.manifest.kind,
            rows=view.rows,
            change=view.change,
            hybrid=view.has_lexical,
            rerank=self._reranker is not None,
            version=__version__,
        )

    async def search(self, request: SearchRequest, deadline: Deadline) -> SearchResponse:
        """Answer a search, all its queries from one version."""
        began = time.perf_counter()
        served = await self._current()
        self._refuse_what_is_not_there(request, served.view)
        tokens, tokenising = await self._tokenise(served, request.texts, served.encoder.prompt("query"), None)
        shown = request.offset + request.limit
        depth = max(shown, self._settings.rerank_depth) if request.rerank else shown
        wanted = Wanted(depth, request.hybrid, request.filter)
        tasks = [Task(served, t.ids, text=text, wanted=wanted) for t, text in zip(tokens, request.texts, strict=True)]
        done, timings = await self._run(tasks, deadline)
        timings.tokenise = tokenising
        found = [d.hits or [] for d in done]
        if request.rerank:
            found, timings.rerank = await self._rerank(served.view, request.texts, found, deadline)
        lowest = -np.inf if request.score_threshold is None else request.score_threshold
        results = [
            [
                search_hit(served.view, hit, request.with_payload)
                for hit in hits[request.offset : shown]
                if hit.score >= lowest
            ]
            for hits in found
        ]
        timings.total = (time.perf_counter() - began) * 1000
        return SearchResponse(
            index_version=served.view.version,
            change=served.view.change,
            results=results,
            truncated=[t.truncated for t in tokens],
            timings=timings,
        )

    async def embed(
        self,
        inputs: list[str],
        prompt_name: str | None,
        deadline: Deadline,
        *,
        dimensions: int | None,
        normalise: bool,
        cut: Cut | None,
    ) -> Embedded:
        """Encode texts; `cut` None refuses what is too long."""
        began = time.perf_counter()
        served = await self._current()
        backend = served.encoder.backend
        if dimensions is not None and dimensions > backend.dimension:
            raise ApiError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "invalid_request",
                f"dimensions is {dimensions}; the model has {backend.dimension}.",
                param="dimensions",
            )
        prompt = self._prompt(served, prompt_name)
        tokens, tokenising = await self._tokenise(served, inputs, prompt, cut)
        if cut is None and (long := next((n for n, t in enumerate(tokens) if t.truncated), None)) is not None:
            raise ApiError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "too_large",
                f"Input {long} has more than the {backend.max_length} tokens that the model reads; shorten it, or have "
                "it cut with `truncate`: true.",
            )
        done, timings = await self._run([Task(served, t.ids, normalise) for t in tokens], deadline)
        vectors = np.stack([d.vector for d in done])
        if dimensions is not None:
            vectors = _shortened(vectors, dimensions, normalise)
        timings.tokenise, timings.total = tokenising, (time.perf_counter() - began) * 1000
        return Embedded(vectors, [len(t.ids) for t in tokens], [t.truncated for t in tokens], timings)

    async def upsert(self, passages: list[PassageBody], deadline: Deadline) -> ChangeResponse:
        """Add passages, or put them in place of those with their ids."""
        served = await self._current()
        rows = [Passage(id=p.id, title=p.title, text=p.text, metadata=metadata_text(p.metadata)) for p in passages]
        tokens, _ = await self._tokenise(served, [r.full_text for r in rows], served.encoder.prompt("passage"), None)
        done, _ = await self._run([Task(served, t.ids) for t in tokens], deadline)
        model = served.encoder.model.fingerprint
        changes = [Change.upsert(r, model, d.vector) for r, d in zip(rows, done, strict=True)]
        cut = [row.id for row, t in zip(rows, tokens, strict=True) if t.truncated]
        return await self._change(changes, list(dict.fromkeys(cut)))

    async def delete(self, ids: list[str]) -> ChangeResponse:
        """Take passages away."""
        return await self._change([Change.delete(passage) for passage in ids])

    async def passage(self, passage_id: str) -> PassageResponse | None:
        """Return a passage by its id, if it is there."""
        served = await self._current()
        found = await asyncio.to_thread(served.view.passage, passage_id)
        if found is None:
            return None
        return PassageResponse(id=found.id, title=found.title, text=found.text, metadata=metadata_of(found.metadata))

    async def versions(self) -> IndexList:
        """Return the versions that are there."""
        served = await self._current()
        pointer = await asyncio.to_thread(self._catalog.active)
        manifests = await asyncio.to_thread(self._catalog.versions)
        return IndexList(
            active=served.view.version,
            previous=pointer.previous if pointer else None,
            change=self._holder.change,
            replicas=await self.swapper.replicas(),
            problem=await self.problem(),
            versions=[described(m) for m in manifests],
        )

    async def activate(self, version: str) -> SwapResponse:
        """Have another version answer."""
        with self._working():
            return await self.swapper.activate(version)

    async def roll_back(self) -> SwapResponse:
        """Have the version answer that did before."""
        with self._working():
            return await self.swapper.roll_back()

    async def merge(self) -> MergeResponse:
        """Begin to build a version that holds the changes; it is activated when it is there."""
        started = self.swapper.merge()
        return MergeResponse(state="started" if started else "running", change=self._holder.change)

    async def drain(self) -> None:
        """Take nothing more, and return once all that was taken is answered."""
        self._closed = True
        while self._in_flight:
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Take nothing more, finish what waits, and end."""
        self._closed = True
        await self.swapper.close()
        await self._queue.close()

    def check(self) -> None:
        """Make sure that this process can answer.

        Raises:
            RuntimeError: it cannot any more; it is to be replaced.
        """
        if not self._closed and not self._queue.is_alive:
            raise RuntimeError("the thread that encodes and searches has ended")

    # Parts

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Count a request as in flight, unless the server shuts down."""
        if self._closed:
            raise shutting_down()
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _current(self) -> Served:
        if self._holder.is_stale():
            async with self._refreshing:
                if self._holder.is_stale():
                    return await asyncio.to_thread(self._holder.refresh)
        return self._holder.served

    def _refuse_what_is_not_there(self, request: SearchRequest, view: View) -> None:
        if request.hybrid and not view.has_lexical:
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                "no_lexical_index",
                "This index has no BM25 part for hybrid search; build one with `causalneg index --lexical true`.",
            )
        if request.rerank and self._reranker is None:
            raise ApiError(
                HTTPStatus.BAD_REQUEST,
                "no_reranker",
                "This server has no cross-encoder for rerank; start it with `causalneg serve --reranker MODEL`.",
            )

    def _prompt(self, served: Served, name: str | None) -> str:
        if name is None:
            return ""
        prompts = served.encoder.backend.prompts
        if name in prompts:
            return prompts[name]
        if name == "passage":
            return served.encoder.prompt(name)
        known = ", ".join(sorted(prompts)) or "query and passage"
        raise ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", f"There is no prompt {name[:50]!r}; there are {known}."
        )

    async def _tokenise(
        self, served: Served, texts: Sequence[str], prompt: str, cut: Cut | None
    ) -> tuple[list[Tokens], float]:
        began = time.perf_counter()
        tokenise = served.encoder.backend.tokenise
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            tokens = tokenise(texts, prompt, cut)
        else:
            tokens = await asyncio.to_thread(tokenise, texts, prompt, cut)
        return tokens, (time.perf_counter() - began) * 1000

    async def _run(self, tasks: list[Task], deadline: Deadline) -> tuple[list[Done], Timings]:
        """Have tasks done, part by part, and say in milliseconds how long they waited and took."""
        finished: list[Done] = []
        timings = Timings()
        with self._working():
            for part in _parts(tasks, self._settings.batch_tokens):
                if finished:
                    deadline.begin_part()
                submitted = await self._submit(part, deadline, patient=bool(finished))
                done = submitted.results
                timings.queue += submitted.waited * 1000
                timings.encode += max(d.encode for d in done) * 1000
                timings.search += max(d.search for d in done) * 1000
                finished += done
        return finished, timings

    async def _submit(self, tasks: list[Task], deadline: Deadline, *, patient: bool) -> Submitted[Done]:
        """Have tasks done; a patient one waits where there is too much to do, since a part of its request is done."""
        while True:
            try:
                return await self._queue.submit(tasks, deadline.at)
            except Overloaded as error:
                if not patient:
                    raise ApiError(
                        HTTPStatus.TOO_MANY_REQUESTS,
                        "overloaded",
                        "The server has more to do than it can; try again later.",
                        retry_after=error.retry_after,
                    ) from error
            except DeadlinePassed as error:
                raise too_late() from error
            except Closed as error:
                raise shutting_down() from error
            if time.monotonic() > deadline.at:
                raise too_late()
            await asyncio.sleep(_PATIENCE)

    async def _rerank(
        self, view: View, texts: list[str], found: list[list[Hit]], deadline: Deadline
    ) -> tuple[list[list[Hit]], float]:
        assert self._reranker is not None
        if self._reranks_waiting >= _RERANKS_WAITING:
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "overloaded",
                "Too many requests wait for the cross-encoder.",
                retry_after=1,
            )
        began = time.perf_counter()
        self._reranks_waiting += 1
        try:
            async with self._reranking:
                ranked: list[list[Hit]] = []
                for text, hits in zip(texts, found, strict=True):
                    if time.monotonic() > deadline.at:
                        raise too_late()
                    if ranked:
                        deadline.begin_part()
                    ranked.append(await asyncio.to_thread(_reranked, self._reranker, view, text, hits))
        finally:
            self._reranks_waiting -= 1
        return ranked, (time.perf_counter() - began) * 1000

    async def _change(self, changes: Sequence[Change], truncated: Sequence[str] = ()) -> ChangeResponse:
        with self._working():
            number = await self._writer.append(changes)
        served = await self._current()
        waiting = served.view.change - served.view.index.manifest.change
        if self._settings.merge_at and waiting >= self._settings.merge_at:
            self.swapper.merge()
        return ChangeResponse(
            changed=len(changes), change=number, index_version=served.view.version, truncated=list(truncated)
        )


def _parts(tasks: list[Task], budget: int) -> Iterator[list[Task]]:
    """Cut what one request asks for into parts that the encoder can take at once, so that others come in between."""
    part: list[Task] = []
    spent = 0
    for task in tasks:
        cost = padded_tokens([task])
        if part and spent + cost > budget:
            yield part
            part, spent = [], 0
        part.append(task)
        spent += cost
    yield part


def _reranked(reranker: Reranker, view: View, text: str, hits: list[Hit]) -> list[Hit]:
    if not hits:
        return hits
    scores = reranker.score(text, [view.payload(hit).full_text for hit in hits])
    scored = [hit._replace(score=float(score)) for hit, score in zip(hits, scores, strict=True)]
    return sorted(scored, key=lambda hit: (-hit.score, hit.id))


def _shortened(vectors: np.ndarray, dimensions: int, normalise: bool) -> np.ndarray:
    short = vectors[:, :dimensions]
    if not normalise:
        return np.ascontiguousarray(short)
    return short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
