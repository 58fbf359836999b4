"""Puts an author together from a job: engine, mode and judge as the model allows, encoders, the corpus's style."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from causalneg.embedding import encode, load_cross_encoder, load_encoder
from causalneg.generation.author import Author, Rescore, Writer
from causalneg.generation.batches import BatchWorker
from causalneg.generation.capability import Capability, Mode, check
from causalneg.generation.drafts import Drafts
from causalneg.generation.edit.author import EditAuthor, Encode
from causalneg.generation.engines import Engine
from causalneg.generation.engines.precision import engine_precision
from causalneg.generation.free.author import FreeAuthor
from causalneg.generation.gates.style import CorpusStyle
from causalneg.generation.job import Job, start_engine
from causalneg.generation.judge import Method
from causalneg.models import ResolvedModel
from causalneg.workspace import Workspace


def style_file(key: str) -> str:
    """Return where the style of the corpus is kept."""
    return f"drafts/{key}/style.json"


def modes(job: Job, capability: Capability) -> tuple[Mode, Method]:
    """Return mode and judge: as the settings say, and as the capability check says where they leave it open."""
    settings = job.settings
    return (
        capability.mode if settings.mode == "auto" else settings.mode,
        capability.judge if settings.judge == "auto" else settings.judge,
    )


def read_capability(job: Job, workspace: Workspace) -> Capability | None:
    """Return what an earlier check of the model found, if there was one."""
    name = job.capability_file
    return Capability.model_validate_json(workspace.read_bytes(name)) if workspace.exists(name) else None


async def capability_of(job: Job, engine: Engine, workspace: Workspace) -> Capability:
    """Check the model, once in a workspace."""
    known = read_capability(job, workspace)
    if known is None:
        known = await check(engine, job.settings, job.profile, job.lineage)
        workspace.write_bytes(job.capability_file, known.model_dump_json(indent=1).encode())
    return known


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


def batch_worker(job: Job, start: Callable[[Job], Engine] = start_engine) -> BatchWorker:
    """Return a worker for a job's batches; its engine starts with the first batch.

    Args:
        job: what it works with.
        start: starts the engine.
    """
    workspace = Workspace(job.root)
    run_encoder = base_encoder(job.encoder)
    run_cross = _rescore(job.cross) if job.cross else None
    style = CorpusStyle.model_validate_json(workspace.read_bytes(style_file(job.key)))
    drafts = Drafts(workspace, job.key)

    async def make() -> tuple[Author, Callable[[], Awaitable[None]]]:
        engine = start(job)
        if not job.settings.engine.url:
            drafts.note_precision(engine_precision(job.settings.engine))
        capability = await capability_of(job, engine, workspace)
        mode, method = modes(job, capability)
        writer: Writer = (
            FreeAuthor(job.settings, job.profile, job.lineage)
            if mode == "rewrite"
            else EditAuthor(run_encoder, job.settings, job.lineage, capability.likelihoods)
        )
        author = Author(engine, writer, method, run_encoder, style, job.settings, capability.likelihoods, run_cross)
        return author, engine.close

    return BatchWorker(drafts, make, job.settings)


async def check_first(job: Job) -> None:
    """Check the model before several workers would each do so."""
    engine = start_engine(job)
    try:
        await capability_of(job, engine, Workspace(job.root))
    finally:
        await engine.close()


def run_check(job: Job) -> None:
    """Check the model in a process of its own."""
    asyncio.run(check_first(job))
