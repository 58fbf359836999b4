"""Takes batches of pairs through all steps: each finished step is kept, and the pair that kills the engine is found."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from causalneg.config import GenerateSettings
from causalneg.generation.author import Author
from causalneg.generation.drafts import STEPS, Drafts, Running
from causalneg.generation.engines import EngineDeadError
from causalneg.generation.rows import Pair, Procedure, Step, Usage
from causalneg.generation.select import cases, select
from causalneg.records import Failure, Outcome

MOST_DEATHS = 3  # of an engine or a worker, after which a pair is set aside


def killed(pair: Pair, deaths: int) -> Step:
    """Return the failure of a pair under which the engine died again and again."""
    return Step(
        pair_id=pair.id,
        failure=Failure(
            stage="generate",
            input_id=pair.id,
            kind="engine_killed",
            retryable=False,
            attempts=deaths,
            message=f"the engine or its worker died {deaths} times at this pair; it is set aside",
        ),
    )


def verdict(last: Step) -> dict[str, Any]:
    """Return the fields of an outcome that follow from the verdicts of a pair's last step."""
    accepted = sum(n.verdict == "accepted" for n in last.negatives)
    return {
        "status": "failed" if last.failure else "accepted" if accepted else "rejected",
        "failure": last.failure.kind if last.failure else None,
        "accepted": accepted,
        "rejected": len(last.negatives) - accepted,
    }


def _is_done(made: Step | None) -> bool:
    return made is not None and not made.again


class _Turns:
    """Lets many work at once, or one alone; who wants to work alone is let in before any further others."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = self._waiting = 0
        self._alone = False

    @asynccontextmanager
    async def turn(self, alone: bool) -> AsyncIterator[None]:
        """Wait until there is a turn, and have it."""
        async with self._changed:
            self._waiting += alone
            try:
                await self._changed.wait_for(
                    lambda: not self._alone and (self._inside == 0 if alone else self._waiting == 0)
                )
            finally:
                self._waiting -= alone
            self._inside += 1
            self._alone = alone
        try:
            yield
        finally:
            async with self._changed:
                self._inside -= 1
                self._alone = False
                self._changed.notify_all()


class BatchWorker:
    """Takes batches through all steps, restarts an engine that died, and finds the pair that kills it.

    The pairs that a worker is at are written down. When it dies, as a process or by its engine, each of them has a
    death to its name, and is then worked on alone, so that a further death is certain to be its own.

    Args:
        drafts: where batches and steps are kept.
        make_author: starts an engine and returns an author for it, and a function that stops it.
        settings: thresholds of the provisional outcomes.
    """

    def __init__(
        self,
        drafts: Drafts,
        make_author: Callable[[], Awaitable[tuple[Author, Callable[[], Awaitable[None]]]]],
        settings: GenerateSettings,
    ) -> None:
        self._drafts, self._make_author, self._settings = drafts, make_author, settings
        self._turns, self._starting = _Turns(), asyncio.Lock()
        self._author: Author | None = None
        self._stop: Callable[[], Awaitable[None]] | None = None

    async def _engine(self) -> Author:
        """Return the author of a living engine, starting one where there is none."""
        async with self._starting:
            if self._author is None:
                self._author, self._stop = await self._make_author()
                self._drafts.write_procedure(self._author.procedure)
            return self._author

    async def _bury(self, author: Author) -> None:
        """Give up an engine that died, once."""
        async with self._starting:
            if self._author is author and self._stop:
                self._author, stop = None, self._stop
                await stop()

    async def start(self) -> None:
        """Start the engine before there is work for it."""
        await self._engine()

    async def close(self) -> None:
        """Stop the engine."""
        if self._author:
            await self._bury(self._author)

    async def work(self, batch: str) -> list[Outcome]:
        """Take a batch through all steps, as far as it isn't already; return the outcomes of its pairs."""
        pairs = self._drafts.pairs(batch)
        done = self._drafts.read_outcomes(batch)
        left = [p for p in pairs if p.id not in done]
        running = self._drafts.running(batch).after_death()
        while left:
            suspects = [p for p in left if running.deaths.get(p.id)]
            group = suspects[:1] or left
            running = await self._attempt(batch, group, running, alone=bool(suspects))
            finished = self._drafts.read_step(STEPS[-1], batch)
            left = [p for p in left if not _is_done(finished.get(p.id))]
        steps = [self._drafts.read_step(step, batch) for step in STEPS]
        procedure = self._drafts.procedure()
        rows = [done.get(p.id) or self._outcome(p, [s[p.id] for s in steps if p.id in s], procedure) for p in pairs]
        self._drafts.write_outcomes(batch, rows)
        self._drafts.stop_running(batch)
        return rows

    def _outcome(self, pair: Pair, steps: list[Step], procedure: Procedure | None) -> Outcome:
        """Sum up a pair: what its steps spent, and provisional verdicts, as duplicates are known when all is done."""
        decided = select(cases(steps[-1], procedure), self._settings)
        last = steps[-1].model_copy(update={"negatives": decided})
        usage = sum((s.usage for s in steps), Usage())
        return Outcome(
            input_id=pair.id,
            query_id=pair.query.id,
            positive_id=pair.positive.id,
            **verdict(last),
            **usage.model_dump(),
        )

    async def _attempt(self, batch: str, group: list[Pair], running: Running, alone: bool) -> Running:
        """Take some pairs of a batch through the steps; return who has how many deaths."""
        deaths = running.deaths.get(group[0].id, 0)
        if alone and deaths >= MOST_DEATHS:
            self._keep(STEPS[-1], batch, [killed(group[0], deaths)])
            return running
        async with self._turns.turn(alone):
            author = await self._engine()  # only now: while this batch waited, another may have killed the last one
            running = running.model_copy(update={"now": [p.id for p in group]})
            self._drafts.write_running(batch, running)
            try:
                for before, step in zip((None, *STEPS), STEPS, strict=False):
                    await self._step(author, batch, group, step, before)
            except EngineDeadError:
                await self._bury(author)
                return running.after_death()
            return running.model_copy(update={"now": []})

    async def _step(self, author: Author, batch: str, group: list[Pair], step: str, before: str | None) -> None:
        """Do a step for those of some pairs for which it isn't done, and keep it."""
        known = self._drafts.read_step(step, batch)
        made_before = self._drafts.read_step(before, batch) if before else {}
        todo = [p for p in group if not _is_done(known.get(p.id))]
        if todo:
            calls = (author.step(step, p, made_before.get(p.id), known.get(p.id)) for p in todo)
            made = await asyncio.gather(*calls, return_exceptions=True)
            self._keep(step, batch, [row for row in made if isinstance(row, Step)])  # paid for, whatever befell others
            for row in made:
                if isinstance(row, BaseException):
                    raise row

    def _keep(self, step: str, batch: str, made: Sequence[Step]) -> None:
        rows = self._drafts.read_step(step, batch) | {row.pair_id: row for row in made}
        self._drafts.write_step(step, batch, rows.values())
