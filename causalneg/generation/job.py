"""Resolves what a run of generation works with, and what determines its drafts."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

from causalneg import former
from causalneg.config import Config, EngineSettings, GenerateSettings
from causalneg.errors import UserError
from causalneg.false_negatives import verdict_stages
from causalneg.generation.endpoint import Endpoint, describe
from causalneg.generation.engines import Engine
from causalneg.generation.profiles import Profile, load_profile
from causalneg.generation.prompts import prompts_version
from causalneg.models import ResolvedModel, resolve
from causalneg.records import Lineage, content_id
from causalneg.stages import Stage, determining, revision
from causalneg.workspace import Workspace

# Settings that name the judge: drafts depend on what its endpoint tells of it instead.
JUDGE = {"judge_llm", "judge_url", "judge_api_key_env"}
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
    *JUDGE,
}


class AsksEngine(Protocol):
    """A group of settings with those of an engine."""

    @property
    def engine(self) -> EngineSettings:
        """Of the engine."""


class EngineJob(Protocol):
    """What it takes to start an engine."""

    @property
    def root(self) -> str:
        """The workspace."""

    @property
    def llm(self) -> str:
        """The model's name."""

    @property
    def model(self) -> ResolvedModel | None:
        """Its files; None for an endpoint."""

    @property
    def settings(self) -> AsksEngine:
        """With those of the engine."""

    @property
    def fingerprint(self) -> str:
        """Hash of its files, or what an endpoint tells of its revision."""


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
        prompts: version of the prompts.
        notes: what the user is to know about the endpoints.
        judge: the model that judges, where it is another one than the writer.
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
    prompts: str = ""
    notes: tuple[str, ...] = ()
    judge: Endpoint | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the model's files, or what an endpoint tells of its revision."""
        return self.lineage.model_fingerprint

    @property
    def capability_file(self) -> str:
        """Where the check of the model is kept in the workspace: by all that it depends on."""
        lineage, engine = self.lineage, self.settings.engine
        limits: tuple[object, ...] = (self.settings.max_tokens, engine.max_model_len)
        if engine.extra_body or engine.reasoning_tokens:
            limits += (engine.extra_body, engine.reasoning_tokens)
        if self.judge:
            limits += ("judge", self.judge.llm, self.judge.fingerprint)
        return f"drafts/capability-{content_id(lineage.model_dump(exclude={'seed'}), limits)}.json"


def determines(job: Job, seed: int) -> dict[str, Any]:
    """Return what determines the drafts beside the stages before."""
    judge = {"judge_llm": job.judge.fingerprint} if job.judge else {}  # not even named where there is none
    return judge | {
        "generate": job.settings.model_dump(mode="json", exclude=DECIDING),
        "seed": seed,
        "llm": job.lineage.model_fingerprint,
        "encoder": job.encoder.fingerprint,
        "cross_encoder": job.cross.fingerprint if job.cross else None,
        "prompts": job.prompts,
        "profile": job.profile.key,
    }


def prepare(config: Config, workspace: Workspace) -> Job:
    """Resolve models and profile.

    Raises:
        UserError: one of them does not exist, an endpoint can't be reached, or mine is not done.
    """
    settings = config.generate
    profile = load_profile(settings.profile)
    found = resolve_llm(config.llm, settings.engine)
    judge, judge_notes = _resolve_judge(config.llm, settings)
    if found.longest:  # a server refuses an answer that would not fit behind its prompt; half is left for each
        settings = settings.model_copy(update={"max_tokens": min(settings.max_tokens, found.longest // 2)})
    lineage = Lineage(
        model=config.llm,
        model_fingerprint=found.fingerprint,
        prompt_version=prompts_version(),
        profile=profile.key,
        seed=config.seed,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
    )
    cross = resolve(settings.cross_encoder) if settings.cross_encoder else None
    encoder = resolve(config.mining_encoder)
    prompts = lineage.prompt_version
    job = Job(
        workspace.root_url,
        "",
        settings,
        profile,
        lineage,
        found.name,
        found.model,
        encoder,
        cross,
        prompts,
        (*found.notes, *judge_notes),
        judge,
    )
    return _with_key(job, config.seed, workspace)


def _resolve_judge(llm: str, settings: GenerateSettings) -> tuple[Endpoint | None, list[str]]:
    """Find the model that judges; None where it is the writer itself. Return what is to be said of it, too.

    Raises:
        UserError: its endpoint can't be reached, or has no such model.
    """
    engine, name, url = settings.engine, settings.judge_llm or llm, settings.judge_url or settings.engine.url
    if (name, url) == (llm, engine.url):
        return None, []
    usual = engine.api_key_env if url == engine.url else EngineSettings().api_key_env
    own = engine.model_copy(update={"url": url, "api_key_env": settings.judge_api_key_env or usual})
    found = resolve_llm(name, own)
    judge = Endpoint(found.name, found.fingerprint, own)
    return judge, [*(f"of the judge, {note}" for note in found.notes), f"{judge} judges"]


def _with_key(job: Job, seed: int, workspace: Workspace) -> Job:
    """Give a job the key of its drafts: that of 0.1.0 where it kept some, so that nothing is paid again.

    Its prompts were others. What they gave stays, and what is left to do is done with those of now; every row says by
    which prompts it was made.
    """
    made = {name: workspace.require(name) for name in inputs_of(workspace)}
    then = replace(job, prompts=former.PROMPTS)
    key = former.drafts_key(determines(then, seed), {name: m.former_digest for name, m in made.items()})
    if key and workspace.exists(f"drafts/{key}") and revision("generate/pairs") == 1:
        return replace(then, key=key)
    inputs = {name: manifest.digest for name, manifest in made.items()}
    key = content_id(revision("generate/pairs"), determining(determines(job, seed)), inputs)
    return replace(job, key=key)


def inputs_of(workspace: Workspace) -> list[Stage]:
    """Return the stages that generate reads: relabel only where it found something."""
    return ["import", "mine", *verdict_stages(workspace, ("relabel",))]


@dataclass(frozen=True)
class FoundLlm:
    """An LLM that is there.

    Attributes:
        name: to ask for it by.
        model: its files; None for an endpoint.
        fingerprint: hash of its files, or what an endpoint tells of its revision.
        longest: prompt and answer together, where an endpoint says so.
        notes: what is to be said of it.
    """

    name: str
    model: ResolvedModel | None
    fingerprint: str
    longest: int | None = None
    notes: tuple[str, ...] = ()


def resolve_llm(llm: str, settings: EngineSettings) -> FoundLlm:
    """Find an LLM: its files here, or what the endpoint tells of it.

    Raises:
        UserError: it does not exist, or the endpoint can't be reached.
    """
    if not settings.url:
        model = resolve(llm)
        return FoundLlm(llm, model, model.fingerprint)
    told, notes = describe(llm, settings), list[str]()
    if not told.listed:
        notes.append(f"the endpoint lists no models; {told.name!r} is taken by its name, whatever stands behind it")
    elif told.name != llm:
        notes.append(f"the endpoint calls the model {told.name!r}")
    return FoundLlm(told.name, None, told.revision, told.max_model_len, tuple(notes))


def endpoint_of(job: EngineJob) -> Endpoint | None:
    """Return where a job's model is asked; None where its files are here."""
    engine = job.settings.engine
    return Endpoint(job.llm, job.fingerprint, engine) if engine.url else None


def start_engine(job: EngineJob) -> Engine:
    """Start the engine in this process, or connect to the endpoint.

    Raises:
        UserError: there is no engine for the model.
    """
    if endpoint := endpoint_of(job):
        return endpoint.connect(Workspace(job.root))
    if job.model is None:
        raise UserError(f"The model {job.llm!r} has no files here; name an endpoint by --engine.url.")
    from causalneg.generation.engines.vllm import VllmEngine

    return VllmEngine(job.model.path, job.settings.engine)
