"""Goes on when an engine dies: starts it again, and finds the row that kills it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from causalneg.generation.engines import EngineDeadError
from causalneg.generation.ledger import Ledger, Running
from causalneg.records import Failure

MOST_DEATHS = 3  # of an engine or a worker, after which a row is set aside

Asking = TypeVar("Asking")
Stop = Callable[[], Awaitable[None]]


def killed(stage: str, row_id: str, deaths: int) -> Failure:
    """Return the failure of a row under which the engine died again and again."""
    return Failure(
        stage=stage,
        input_id=row_id,
        kind="engine_killed",
        retryable=False,
        attempts=deaths,
        message=f"the engine or its worker died {deaths} times at this row; it is set aside",
    )


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


class Survivor(Generic[Asking]):
    """Has rows worked on by what asks an engine.

    The rows that a worker is at are written down. When it dies, as a process or by its engine, each of them has a
    death to its name, and is then worked on alone, so that a further death is certain to be its own.

    Args:
        ledger: where deaths are written down.
        make: starts an engine and returns what asks it, and a function that stops it.
    """

    def __init__(self, ledger: Ledger, make: Callable[[], Awaitable[tuple[Asking, Stop]]]) -> None:
        self._ledger, self._make = ledger, make
        self._turns, self._starting = _Turns(), asyncio.Lock()
        self._living: tuple[Asking, Stop] | None = None

    async def start(self) -> Asking:
        """Return what asks a living engine, starting one where there is none."""
        async with self._starting:
            if self._living is None:
                self._living = await self._make()
            return self._living[0]

    async def _bury(self, asking: Asking) -> None:
        """Give up an engine that died, once."""
        async with self._starting:
            if self._living and self._living[0] is asking:
                (_, stop), self._living = self._living, None
                await stop()

    async def close(self) -> None:
        """Stop the engine."""
        if self._living:
            await self._bury(self._living[0])

    async def work(
        self,
        batch: str,
        left: Callable[[], Sequence[str]],
        do: Callable[[Asking, Sequence[str]], Awaitable[None]],
        set_aside: Callable[[str, int], None],
    ) -> None:
        """Work until no row of a batch is left.

        Args:
            batch: its name.
            left: returns the ids of the rows that are left.
            do: works on some of them; raises EngineDeadError when the engine dies.
            set_aside: takes a row out that died so often.
        """
        running = self._ledger.running(batch).after_death()
        while ids := left():
            suspects = [i for i in ids if running.deaths.get(i)]
            if suspects and running.deaths[suspects[0]] >= MOST_DEATHS:
                set_aside(suspects[0], running.deaths[suspects[0]])
            else:
                running = await self._attempt(batch, suspects[:1] or ids, running, bool(suspects), do)
        self._ledger.stop_running(batch)

    async def _attempt(
        self,
        batch: str,
        ids: Sequence[str],
        running: Running,
        alone: bool,
        do: Callable[[Asking, Sequence[str]], Awaitable[None]],
    ) -> Running:
        """Work on some rows; return which have how many deaths."""
        async with self._turns.turn(alone):
            asking = await self.start()  # only now: while this batch waited, another may have killed the last one
            running = running.model_copy(update={"now": list(ids)})
            self._ledger.write_running(batch, running)
            try:
                await do(asking, ids)
            except EngineDeadError:
                await self._bury(asking)
                return running.after_death()
            return running.model_copy(update={"now": []})
