"""Takes batches of pairs through all steps: each finished step is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from causalneg.config import GenerateSettings
from causalneg.generation.author import Author
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.rows import Pair, Procedure, Step, Usage
from causalneg.generation.select import cases, select
from causalneg.generation.survival import Stop, Survivor, killed
from causalneg.records import Outcome


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


class BatchWorker:
    """Takes batches through all steps, and goes on when an engine dies.

    Args:
        drafts: where batches and steps are kept.
        make_author: starts an engine and returns an author for it, and a function that stops it.
        settings: thresholds of the provisional outcomes.
    """

    def __init__(
        self, drafts: Drafts, make_author: Callable[[], Awaitable[tuple[Author, Stop]]], settings: GenerateSettings
    ) -> None:
        self._drafts, self._make_author, self._settings = drafts, make_author, settings
        self._survivor = Survivor(drafts, self._engine)

    async def _engine(self) -> tuple[Author, Stop]:
        author, stop = await self._make_author()
        self._drafts.write_procedure(author.procedure)
        return author, stop

    async def start(self) -> None:
        """Start the engine before there is work for it."""
        await self._survivor.start()

    async def close(self) -> None:
        """Stop the engine."""
        await self._survivor.close()

    async def work(self, batch: str) -> list[Outcome]:
        """Take a batch through all steps, as far as it isn't already; return the outcomes of its pairs."""
        pairs = {p.id: p for p in self._drafts.pairs(batch)}
        done = self._drafts.read_outcomes(batch)

        def left() -> list[str]:
            finished = self._drafts.read_step(STEPS[-1], batch)
            return [i for i in pairs if not (i in done or _is_done(finished.get(i)))]

        async def do(author: Author, ids: Sequence[str]) -> None:
            for before, step in zip((None, *STEPS), STEPS, strict=False):
                await self._step(author, batch, [pairs[i] for i in ids], step, before)

        def set_aside(pair_id: str, deaths: int) -> None:
            self._keep(STEPS[-1], batch, [Step(pair_id=pair_id, failure=killed("generate", pair_id, deaths))])

        await self._survivor.work(batch, left, do, set_aside)
        steps, procedure = [self._drafts.read_step(step, batch) for step in STEPS], self._drafts.procedure()
        rows = [
            done.get(p.id) or self._outcome(p, [s[p.id] for s in steps if p.id in s], procedure) for p in pairs.values()
        ]
        self._drafts.write_outcomes(batch, rows)
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
