"""The generate stage: pairs through decompose, perturb and judge, then selection, and a report."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice

import psutil

from causalneg.config import Config, EngineSettings, GenerateSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.features import corpus_files, read_texts
from causalneg.generation.drafts import REFUSED, Drafts, stop_where_all_refused
from causalneg.generation.engines.precision import engine_precision, expected_precision, reason
from causalneg.generation.finish import decided, write_batch
from causalneg.generation.gates.style import SAMPLE, corpus_style
from causalneg.generation.job import JUDGE, Job, determines, inputs_of, prepare
from causalneg.generation.pairs import train_pairs
from causalneg.generation.plan import say_dialect, show_plan
from causalneg.generation.reporting.summary import REPORT, Summary
from causalneg.generation.rows import Usage
from causalneg.generation.select import ACCEPTED
from causalneg.generation.stream import run_batches
from causalneg.generation.worker import complete_drafts, read_capability, style_file
from causalneg.models import ResolvedModel
from causalneg.records import Outcome
from causalneg.runtime import ray_session
from causalneg.workspace import Counts, Manifest, StageRun, Workspace

_REFUSED_ENOUGH = 32  # pairs, and no other: then nothing else is to be expected of the others
_FP32_GROWTH = 2.0  # of weights that lie in 16 bits on the disk, as those of language models do
_ENGINE_OVERHEAD_GIB = 2.0  # of vLLM beside weights and cache: libraries, activations


def check_memory(model: ResolvedModel | None, engine: EngineSettings) -> None:
    """Refuse to start an engine on this machine that its memory cannot hold.

    Raises:
        UserError: too little memory is free.
    """
    if model is None or engine.gpus:
        return
    weights = model.weights_gib * (_FP32_GROWTH if engine_precision(engine) == "fp32" else 1)
    needed = engine.replicas * (weights + engine.kv_cache_gib + _ENGINE_OVERHEAD_GIB)
    free = psutil.virtual_memory().available / 1024**3
    if free < needed:
        raise UserError(
            f"The engine for {model.name} needs about {needed:.1f} GiB of memory and {free:.1f} GiB are free; "
            "close other programs, or set a smaller model or a smaller --engine.kv-cache-gib."
        )


def _sample_texts(workspace: Workspace) -> Iterator[str]:
    for name in corpus_files(workspace):
        yield from read_texts(workspace, name)


def prepare_pairs(drafts: Drafts, settings: GenerateSettings, seed: int) -> int:
    """Write the pairs as batches and the style of the corpus, unless they are there; return how many pairs."""
    total = drafts.total()
    if total is None:
        workspace = drafts.workspace
        workspace.remove(f"{drafts.folder}/pairs")
        style = corpus_style(list(islice(_sample_texts(workspace), 10 * SAMPLE)), seed)
        workspace.write_bytes(style_file(drafts.key), style.model_dump_json().encode())
        drafts.write_pairs(train_pairs(workspace), settings.engine.batch_pairs)
        total = drafts.total() or 0
    return total


Unfinished = Callable[[], tuple[list[str], list[Outcome]]]  # batches with pairs to do, and outcomes of those done


def _check_drafts(job: Job, drafts: Drafts, unfinished: Unfinished, report: Reporter) -> None:
    """Refuse what can't be done before anything is written: selection without scores, an engine without memory.

    Raises:
        UserError: either.
    """
    total = drafts.total()
    lacking = complete_drafts(job, drafts) if total is not None else 0
    if total is not None and not lacking and not unfinished()[0] and not job.settings.retry_failed:
        return
    if job.settings.reselect:
        short = f"{lacking} of {total} pairs lack" if lacking else "not all pairs have"
        raise UserError(
            f"--reselect asks no LLM, and {short} its scores under these settings; run `causalneg generate` "
            "without it. Only gates, negatives_per_query, selection and max_violation_share change no scores."
        )
    if lacking:
        report.line(f"generate: {lacking} pairs lack scores that gates look at now, and are judged again")
    check_memory(job.model, job.settings.engine)


class _Progress:
    """Counts outcomes as they come, for the note beside the bar."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._tokens = 0
        self._started = time.monotonic()

    def add(self, outcome: Outcome) -> str:
        """Count an outcome and return the note."""
        self._statuses[outcome.status] += 1
        self._tokens += outcome.prompt_tokens + outcome.generated_tokens
        if outcome.failure:
            self._failures[outcome.failure] += 1
        accepted = self._statuses["accepted"] / self._statuses.total()
        pace = self._tokens / max(1e-9, time.monotonic() - self._started)
        failed = "".join(f", {count} {kind}" for kind, count in self._failures.most_common(3))
        return f"{accepted:.0%} accepted, {pace:,.0f} tokens/s{failed}"

    def all_refused(self, least: int) -> bool:
        """Whether there were so many outcomes, and all of them refusals."""
        return least <= self._statuses.total() == self._failures[REFUSED]


@contextmanager
def disk_full_told() -> Iterator[None]:
    """Turn a full disk into a sentence; what is written is whole, and the same command goes on from there."""
    try:
        yield
    except Exception as error:
        if "[Errno 28]" in str(error):
            raise UserError(
                "The disk is full: nothing that was finished is lost; free some space and run the same command again."
            ) from error
        raise


def _in_precision(job: Job) -> str:
    """Return in which precision the engine will compute, and why; nothing where machines of a cluster decide."""
    engine = job.settings.engine
    precision = expected_precision(engine)
    return f" in {precision}, {reason(engine, precision)}" if precision else ""


def _generate(
    job: Job, drafts: Drafts, left: Sequence[str], done: Sequence[Outcome], total: int, report: Reporter
) -> None:
    """Do the batches that are not done."""
    if not left:
        return
    if done:
        report.line(f"generate: going on after {len(done)} of {total} pairs")
    if not job.settings.engine.url:
        report.line(f"generate: starting the LLM engine{_in_precision(job)} (about half a minute)", style="dim")
    known = {o.input_id for o in done}
    with ray_session(), report.meter("generating", total, "pairs", len(done)) as meter:
        progress, started = _Progress(), time.monotonic()
        try:
            for outcome in run_batches(job, left):
                if outcome.input_id not in known:
                    meter.advance(note=progress.add(outcome))
                if progress.all_refused(_REFUSED_ENOUGH) and not done:
                    break
        finally:
            drafts.add_seconds(time.monotonic() - started)
    stop_where_all_refused(drafts)


def _say_procedure(job: Job, drafts: Drafts, report: Reporter) -> None:
    """Say which mode and judge were picked, and why."""
    procedure, capability = drafts.procedure(), read_capability(job, drafts.workspace)
    if procedure is None:
        return
    settings, reasons = job.settings, capability.reasons() if capability else {}
    for name, value, wanted in (
        ("mode", procedure.mode, settings.mode),
        ("judge", procedure.judge, settings.judge),
    ):
        why = reasons.get(name, "as before") if wanted == "auto" else "as the settings say"
        report.line(f"generate: {name} {value}: {why}", style="dim")


def _finish(stage: StageRun, job: Job, drafts: Drafts, total: int, config: Config, report: Reporter) -> Manifest:
    """Decide on all negatives, write the rows and the report."""
    workspace = stage.workspace
    procedure, capability = drafts.procedure(), read_capability(job, workspace)
    summary = Summary(workspace, job, config.seed)
    with report.meter("selecting", total, "pairs") as meter:
        for batch, steps in decided(drafts, job.settings):
            outcomes = write_batch(workspace, drafts, batch, steps)
            summary.add(outcomes, steps)
            meter.advance(len(outcomes))
    result = summary.write(drafts.seconds(), procedure, capability, report)
    counts = Counts(
        rows_in=total,
        accepted=result.pairs.get("accepted", 0),
        rejected=result.pairs.get("rejected", 0),
        failed=result.pairs.get("failed", 0),
    )
    report.line(
        f"generate: {result.accepted} negatives accepted for {counts.accepted} of {total} pairs, "
        f"{result.rejected} rejected, {counts.failed} pairs failed; {REPORT}.html shows them"
    )
    reasons = {name: count for name, count in result.verdicts.items() if name != ACCEPTED}
    spent = capability.usage if capability else Usage()
    details = {
        "negatives_accepted": result.accepted,
        "negatives_rejected": reasons,
        "engine_precision": drafts.precisions(),
        "check": spent.model_dump(),
        **({"judge_llm": job.judge.llm, "judge_fingerprint": job.judge.fingerprint} if job.judge else {}),
    }
    tokens = {
        "prompt": result.tokens.prompt + spent.prompt_tokens,
        "cached": result.tokens.cached + spent.cached_tokens,
        "generated": result.tokens.generated + spent.generated_tokens,
    }
    return stage.finish(counts, tokens=tokens, details=details)


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest | None:
    """Generate, check and select negatives for every train pair; with `plan` show what that takes, and stop.

    Raises:
        UserError: mine is not done, a model does not exist, or the machine lacks what the engine needs.
    """
    for name in ("import", "mine"):
        workspace.require(name)
    job = prepare(config, workspace)
    for note in job.notes:
        report.line(f"generate: {note}")
    settings = job.settings
    drafts = Drafts(workspace, job.key)
    if settings.plan:
        with disk_full_told():
            check_memory(job.model, settings.engine)
            total = prepare_pairs(drafts, settings, config.seed)
            complete_drafts(job, drafts)
            show_plan(job, drafts, total, report)
        return None
    working = {"engine", "retry_failed", "reselect", "plan", *JUDGE}
    deciding = {"select": settings.model_dump(mode="json", exclude=working)}
    unfinished = cache(drafts.unfinished)  # looks at every batch: once, and not where the stage is done
    stage = workspace.begin(
        "generate",
        determines(job, config.seed) | deciding,
        inputs=inputs_of(workspace),
        check=partial(_check_drafts, job, drafts, unfinished, report),
        say=report.line,
        again=settings.retry_failed,
    )
    if stage.done:
        report.line(f"generate: already done ({stage.done.details['negatives_accepted']} negatives)")
        return stage.done
    with disk_full_told():
        if settings.retry_failed and (again := drafts.forget_failures()):
            report.line(f"generate: trying {again} failed pairs again")
            unfinished.cache_clear()
        drafts.stop_running()
        total = prepare_pairs(drafts, settings, config.seed)
        _generate(job, drafts, *unfinished(), total, report)
        _say_procedure(job, drafts, report)
        say_dialect(job, workspace, report)
        return _finish(stage, job, drafts, total, config, report)
