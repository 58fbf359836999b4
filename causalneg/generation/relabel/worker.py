"""Has a judge answer batches of queries: each answer is kept as it comes, and what fails is a row."""

import asyncio
from collections.abc import Callable, Sequence

from causalneg.errors import UserError
from causalneg.generation.ask import Asker
from causalneg.generation.capability import LEAST_JUDGED, Capability, check_judge
from causalneg.generation.engines import Engine, EngineDeadError, EngineError
from causalneg.generation.job import start_engine
from causalneg.generation.relabel.job import RelabelJob
from causalneg.generation.relabel.judge import read_relabelled, relabel_chat, relabel_schema
from causalneg.generation.relabel.rows import Drafts, Judged, Shown
from causalneg.generation.rows import Usage
from causalneg.generation.survival import Stop, Survivor, killed
from causalneg.records import Failure
from causalneg.workspace import Workspace

_TOP_PROBABILITIES = 10


async def judge(shown: Shown, engine: Engine, max_tokens: int, attempts: int) -> Judged:
    """Have the candidates of a query judged; what goes wrong becomes a failure row, never an exception.

    Raises:
        EngineDeadError: the engine is gone.
        UserError: no query could be judged, as with a wrong key.
    """
    asker = Asker(engine, attempts, f"relabel {shown.id}")
    made = Judged(query_id=shown.id, candidates=len(shown.candidates))
    try:
        rows = await asker.ask(
            lambda _: relabel_chat(shown),
            lambda done, _: read_relabelled(done, shown),
            "relabel",
            relabel_schema(len(shown.candidates)),
            max_tokens,
            top_probabilities=_TOP_PROBABILITIES,
        )
    except (EngineDeadError, UserError):
        raise
    except Exception as error:
        failure = Failure(
            stage="relabel",
            input_id=shown.id,
            kind=error.kind if isinstance(error, EngineError) else type(error).__name__,
            retryable=isinstance(error, EngineError) and error.retryable,
            attempts=max(1, asker.attempts),
            message=_told(error),
        )
        return made.model_copy(update={"failure": failure, "usage": asker.usage})
    return made.model_copy(update={"relabelled": rows, "usage": asker.usage})


def _told(error: Exception) -> str:
    if isinstance(error, EngineError) and error.kind == "too_long":
        return f"{error}; set a smaller --candidates, or a larger --engine.max-model-len"
    return str(error)


class RelabelWorker:
    """Judges batches, and goes on when an engine dies.

    Args:
        job: what it works with.
        start: starts the engine.
    """

    def __init__(self, job: RelabelJob, start: Callable[[RelabelJob], Engine] = start_engine) -> None:
        self._job, self._start = job, start
        self._drafts = Drafts(Workspace(job.root), job.key)
        self._survivor: Survivor[Engine] = Survivor(self._drafts, self._engine)

    async def _engine(self) -> tuple[Engine, Stop]:
        engine = self._start(self._job)
        try:
            await require_judge(self._job, engine)
        except BaseException:
            await engine.close()
            raise
        return engine, engine.close

    async def close(self) -> None:
        """Stop the engine."""
        await self._survivor.close()

    async def work(self, batch: str) -> list[Judged]:
        """Judge what is left of a batch; return what became of its queries."""
        queries = {row.id: row for row in self._drafts.queries(batch)}
        known = self._drafts.judged(batch)

        def keep(row: Judged) -> None:
            known[row.query_id] = row
            self._drafts.keep(batch, known.values())

        async def one(engine: Engine, shown: Shown) -> None:
            settings = self._job.settings
            keep(await judge(shown, engine, settings.max_tokens, settings.engine.max_attempts))

        async def do(engine: Engine, ids: Sequence[str]) -> None:
            ended = await asyncio.gather(*(one(engine, queries[i]) for i in ids), return_exceptions=True)
            for end in ended:  # only now, when what the others have paid for is kept
                if end is not None:
                    raise end

        def set_aside(query_id: str, deaths: int) -> None:
            failure = killed("relabel", query_id, deaths)
            keep(Judged(query_id=query_id, candidates=len(queries[query_id].candidates), failure=failure))

        await self._survivor.work(batch, lambda: [i for i in queries if i not in known], do, set_aside)
        return [known[i] for i in queries]


async def require_judge(job: RelabelJob, engine: Engine) -> None:
    """Refuse a model that judges too many of the built-in requirements wrongly; it is checked once in a workspace.

    Raises:
        UserError: it does, and the settings don't say that it may.
    """
    if not job.settings.check:
        return
    workspace, known = Workspace(job.root), _read_check(job)
    found = await check_judge(engine, known)
    if found != known:
        workspace.write_bytes(job.check_file, found.model_dump_json(indent=1).encode())
    if not found.can_judge:
        raise UserError(
            f"{job.llm} judges {found.judged:.0%} of the built-in requirements rightly, and {LEAST_JUDGED:.0%} are "
            "asked of a judge: it would take good negatives for false ones. Name a more capable model by --judge-llm, "
            "or set --check false to use this one all the same."
        )


def _read_check(job: RelabelJob) -> Capability | None:
    workspace = Workspace(job.root)
    exists = workspace.exists(job.check_file)
    return Capability.model_validate_json(workspace.read_bytes(job.check_file)) if exists else None


def check_usage(job: RelabelJob) -> Usage:
    """Return what the check of the model took; nothing where there was none."""
    known = _read_check(job) if job.settings.check else None
    return known.usage if known else Usage()


def run_check(job: RelabelJob) -> None:
    """Check the model in a process of its own."""

    async def check() -> None:
        engine = start_engine(job)
        try:
            await require_judge(job, engine)
        finally:
            await engine.close()

    asyncio.run(check())
