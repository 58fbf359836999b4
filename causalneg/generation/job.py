"""Resolves what a run of generation works with, and what determines its drafts."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Protocol

from causalneg.config import Config, EngineSettings, GenerateSettings
from causalneg.errors import UserError
from causalneg.false_negatives import verdict_stages
from causalneg.generation.engines import Engine
from causalneg.generation.profiles import Profile, load_profile
from causalneg.generation.prompts import prompts_version
from causalneg.models import ResolvedModel, resolve
from causalneg.records import Lineage, content_id
from causalneg.workspace import Stage, Workspace

# Settings that decide on stored scores, or how the work is done: another value makes no other drafts.
DECIDING = {
    "gates",
    "negatives_per_query",
    "selection",
    "max_violation_share",
    "engine",
    "licence",
    "retry_failed",
    "reselect",
    "plan",
}


class AsksEngine(Protocol):
    """A group of settings with those of an engine."""

    @property
    def engine(self) -> EngineSettings:
        """Of the engine."""


class EngineJob(Protocol):
    """What it takes to start an engine."""

    @property
    def llm(self) -> str:
        """The model's name."""

    @property
    def model(self) -> ResolvedModel | None:
        """Its files; None for an endpoint."""

    @property
    def settings(self) -> AsksEngine:
        """With those of the engine."""


@dataclass(frozen=True)
class Job:
    """Everything a worker needs.

    Attributes:
        root: the workspace.
        key: of the drafts.
        llm: the model's name.
        model: its files; None for an endpoint.
        encoder: the base encoder.
        cross: the cross-encoder, if any.
    """

    root: str
    key: str
    settings: GenerateSettings
    profile: Profile
    lineage: Lineage
    llm: str
    model: ResolvedModel | None
    encoder: ResolvedModel
    cross: ResolvedModel | None

    @property
    def capability_file(self) -> str:
        """Where the check of the model is kept in the workspace: by all that it depends on."""
        lineage = self.lineage
        limits = (self.settings.max_tokens, self.settings.engine.max_model_len)
        return f"drafts/capability-{content_id(lineage.model_dump(exclude={'seed'}), limits)}.json"


def determines(job: Job, seed: int) -> dict[str, Any]:
    """Return what determines the drafts beside the stages before."""
    return {
        "generate": job.settings.model_dump(mode="json", exclude=DECIDING),
        "seed": seed,
        "llm": job.lineage.model_fingerprint,
        "encoder": job.encoder.fingerprint,
        "cross_encoder": job.cross.fingerprint if job.cross else None,
        "prompts": job.lineage.prompt_version,
        "profile": job.profile.key,
    }


def prepare(config: Config, workspace: Workspace) -> Job:
    """Resolve models and profile.

    Raises:
        UserError: one of them does not exist, an endpoint can't be reached, or mine is not done.
    """
    settings = config.generate
    profile = load_profile(settings.profile)
    model, fingerprint, longest = resolve_llm(config.llm, settings.engine)
    if longest:  # a server refuses an answer that would not fit behind its prompt; half is left for each
        settings = settings.model_copy(update={"max_tokens": min(settings.max_tokens, longest // 2)})
    lineage = Lineage(
        model=config.llm,
        model_fingerprint=fingerprint,
        prompt_version=prompts_version(),
        profile=profile.key,
        seed=config.seed,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
    )
    cross = resolve(settings.cross_encoder) if settings.cross_encoder else None
    encoder = resolve(config.mining_encoder)
    job = Job(workspace.root_url, "", settings, profile, lineage, config.llm, model, encoder, cross)
    inputs = {name: workspace.require(name).digest for name in inputs_of(workspace)}
    key = content_id(determines(job, config.seed), inputs)
    return replace(job, key=key)


def inputs_of(workspace: Workspace) -> list[Stage]:
    """Return the stages that generate reads: relabel only where it is done."""
    return ["import", "mine", *verdict_stages(workspace, ("relabel",))]


def resolve_llm(llm: str, settings: EngineSettings) -> tuple[ResolvedModel | None, str, int | None]:
    """Find an LLM: its files, if it has any here, its fingerprint, and the longest text that an endpoint names.

    Raises:
        UserError: it does not exist, or an endpoint can't be reached.
    """
    if settings.url:
        return None, *asyncio.run(_describe(llm, settings))
    model = resolve(llm)
    return model, model.fingerprint, None


async def _describe(model: str, settings: EngineSettings) -> tuple[str, int | None]:
    from causalneg.generation.engines.http import HttpEngine

    engine = HttpEngine(model, settings)
    try:
        return await engine.describe(), engine.max_model_len
    finally:
        await engine.close()


def start_engine(job: EngineJob) -> Engine:
    """Start the engine in this process, or connect to the endpoint.

    Raises:
        UserError: there is no engine for the model.
    """
    engine = job.settings.engine
    if engine.url:
        from causalneg.generation.engines.http import HttpEngine

        return HttpEngine(job.llm, engine)
    if job.model is None:
        raise UserError(f"The model {job.llm!r} has no files here; name an endpoint by --engine.url.")
    from causalneg.generation.engines.vllm import VllmEngine

    return VllmEngine(job.model.path, engine)
