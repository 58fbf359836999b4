"""Puts an author together from a job: engine, mode and judge as the model allows, encoders, the corpus's style."""

import asyncio
import multiprocessing
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack

import numpy as np

from causalneg.embedding import encode, load_cross_encoder, load_encoder
from causalneg.errors import UserError
from causalneg.generation.author import Author, Writer
from causalneg.generation.batches import BatchWorker
from causalneg.generation.capability import Capability, check
from causalneg.generation.completion import complete
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.edit.author import EditAuthor, Encode
from causalneg.generation.engines import Engine
from causalneg.generation.engines.precision import engine_precision
from causalneg.generation.free.author import FreeAuthor
from causalneg.generation.gates.style import CorpusStyle
from causalneg.generation.job import Job, start_engine
from causalneg.generation.rows import Procedure
from causalneg.generation.scoring import Rescore, Scorer
from causalneg.models import ResolvedModel
from causalneg.workspace import Workspace


def style_file(key: str) -> str:
    """Return where the style of the corpus is kept."""
    return f"drafts/{key}/style.json"


def procedure_of(job: Job, capability: Capability) -> Procedure:
    """Return mode and judge: as the settings say, and as the capability check says where they leave it open."""
    settings = job.settings
    return Procedure(
        mode=capability.mode if settings.mode == "auto" else settings.mode,
        judge=capability.judge if settings.judge == "auto" else settings.judge,
        likelihoods=capability.likelihoods,
    )


def read_capability(job: Job, workspace: Workspace) -> Capability | None:
    """Return what an earlier check of the model found, if there was one."""
    name = job.capability_file
    return Capability.model_validate_json(workspace.read_bytes(name)) if workspace.exists(name) else None


async def capability_of(job: Job, engine: Engine, judge: Engine | None, workspace: Workspace) -> Capability:
    """Check the model, and the judge where it is another one: once in a workspace, and no further than is asked for."""
    known = read_capability(job, workspace)
    found = await check(engine, job.settings, job.profile, job.lineage, known, judge)
    if found != known:
        workspace.write_bytes(job.capability_file, found.model_dump_json(indent=1).encode())
    return found


def base_encoder(model: ResolvedModel) -> Encode:
    """Return the base encoder as a function that threads may share; it leaves the other cores to the engine."""
    encoder, lock = load_encoder(model, threads=1), threading.Lock()

    def run(texts: Sequence[str], kind: str) -> np.ndarray:
        with lock:
            return encode(encoder, texts, "query" if kind == "query" else "passage")

    return run


def _rescore(model: ResolvedModel) -> Rescore:
    encoder, lock = load_cross_encoder(model), threading.Lock()

    def run(query: str, texts: Sequence[str]) -> list[float]:
        with lock:
            return encoder.predict([(query, text) for text in texts], show_progress_bar=False).tolist()

    return run


def _start(job: Job, start: Callable[[Job], Engine], opened: AsyncExitStack) -> tuple[Engine, Engine | None]:
    """Start the engine, and connect to the judge where that is another model; both are closed with what is open."""
    judge = job.judge.connect(Workspace(job.root)) if job.judge else None
    if judge:
        opened.push_async_callback(judge.close)
    engine = start(job)
    opened.push_async_callback(engine.close)
    return engine, judge


def batch_worker(job: Job, start: Callable[[Job], Engine] = start_engine) -> BatchWorker:
    """Return a worker for a job's batches; its engine starts with the first batch.

    Args:
        job: what it works with.
        start: starts the engine.
    """
    workspace = Workspace(job.root)
    drafts = Drafts(workspace, job.key)
    run_encoder = base_encoder(job.encoder)
    run_cross = _rescore(job.cross) if job.cross else None
    style = _style(job, workspace)

    async def make() -> tuple[Author, Callable[[], Awaitable[None]]]:
        async with AsyncExitStack() as opened:
            engine, judge = _start(job, start, opened)
            if not job.settings.engine.url:
                drafts.note_precision(engine_precision(job.settings.engine))
            procedure = drafts.procedure() or procedure_of(job, await capability_of(job, engine, judge, workspace))
            stop = opened.pop_all().aclose
        writer: Writer = (
            FreeAuthor(job.settings, job.profile, job.lineage)
            if procedure.mode == "rewrite"
            else EditAuthor(run_encoder, job.settings, job.lineage, procedure.likelihoods)
        )
        author = Author(
            engine, writer, procedure.judge, run_encoder, style, job.settings, procedure.likelihoods, run_cross, judge
        )
        return author, stop

    return BatchWorker(drafts, make, job.settings)


def _style(job: Job, workspace: Workspace) -> CorpusStyle:
    return CorpusStyle.model_validate_json(workspace.read_bytes(style_file(job.key)))


def complete_drafts(job: Job, drafts: Drafts) -> int:
    """Complete the scores of drafts by `complete`, with this job's encoders.

    Returns:
        Number of pairs that lack scores of the LLM; they are opened, unless it may not be asked.

    Raises:
        UserError: the LLM would have to be checked first, and may not be asked.
    """
    if not any(step.negatives for _, steps in drafts.steps(STEPS[-1]) for step in steps):
        return 0
    procedure = drafts.procedure()
    if procedure is None:  # an earlier version did not write it
        procedure = procedure_of(job, read_capability(job, drafts.workspace) or _check_apart(job, drafts.workspace))
        drafts.write_procedure(procedure)

    def scorer() -> Scorer:
        rescore = _rescore(job.cross) if job.cross else None
        return Scorer(base_encoder(job.encoder), _style(job, drafts.workspace), rescore)

    return complete(drafts, procedure, job.settings.gates, scorer, may_open=not job.settings.reselect)


def _check_apart(job: Job, workspace: Workspace) -> Capability:
    """Check the model in a process of its own, which ends with its engine.

    Raises:
        UserError: nothing may be asked.
    """
    if not job.settings.reselect:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            process.submit(run_check, job).result()
    capability = read_capability(job, workspace)
    if capability is None:
        raise UserError(
            "--reselect asks no LLM, and nothing says any more how these negatives were judged; run `causalneg "
            "generate` once without it."
        )
    return capability


async def check_first(job: Job) -> None:
    """Check the model before several workers would each do so."""
    async with AsyncExitStack() as opened:
        engine, judge = _start(job, start_engine, opened)
        await capability_of(job, engine, judge, Workspace(job.root))


def run_check(job: Job) -> None:
    """Check the model in a process of its own."""
    asyncio.run(check_first(job))
