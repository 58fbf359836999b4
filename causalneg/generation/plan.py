"""Shows what generation would take: calls, tokens, time and cost, measured on a first batch, and five finished rows."""

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from causalneg.console import Reporter
from causalneg.generation.drafts import STEPS, Drafts, stop_where_all_refused
from causalneg.generation.job import Job, read_dialect
from causalneg.generation.rows import Usage
from causalneg.generation.select import cases, select
from causalneg.generation.worker import batch_worker, read_capability
from causalneg.records import Negative, Outcome
from causalneg.workspace import Workspace

_ROWS = 5
_MILLION = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What is still to be done, extrapolated from pairs that were done.

    Attributes:
        pairs: pairs to do.
        requests: LLM calls.
        prompt_tokens: of them.
        generated_tokens: of them.
        seconds: with this many engines, after their start.
        cost: in the currency of the prices; None without prices.
    """

    pairs: int
    requests: int
    prompt_tokens: int
    generated_tokens: int
    seconds: float
    cost: float | None


def extrapolate(
    done: Sequence[Outcome | Usage],
    left: int,
    seconds: float,
    replicas: int = 1,
    prompt_price: float | None = None,
    generated_price: float | None = None,
) -> Plan:
    """Return what `left` pairs take if they are like those that were done.

    Args:
        done: outcomes of the pairs that were done, or what they used.
        left: pairs to do.
        seconds: what the pairs that were done took on one engine.
        replicas: engines that will share the work.
        prompt_price: of a million prompt tokens.
        generated_price: of a million generated tokens.
    """
    share = left / max(1, len(done))
    prompt = share * sum(o.prompt_tokens for o in done)
    generated = share * sum(o.generated_tokens for o in done)
    priced = prompt_price is not None or generated_price is not None
    cost = ((prompt_price or 0) * prompt + (generated_price or 0) * generated) / _MILLION
    return Plan(
        pairs=left,
        requests=round(share * sum(o.requests for o in done)),
        prompt_tokens=round(prompt),
        generated_tokens=round(generated),
        seconds=share * seconds / replicas,
        cost=cost if priced else None,
    )


def _spent(usage: Usage) -> str:
    tokens = usage.prompt_tokens + usage.generated_tokens
    return f"{usage.requests:,} calls, {tokens:,} tokens"


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _first(job: Job, batches: Sequence[str]) -> float:
    """Do some batches in a process of its own, which ends with its engine; return the seconds without the start."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_do, job, batches).result()


def _do(job: Job, batches: Sequence[str]) -> float:
    return asyncio.run(_work(job, batches))


async def _work(job: Job, batches: Sequence[str]) -> float:
    worker = batch_worker(job)
    try:
        await worker.start()
        started = time.monotonic()
        await asyncio.gather(*(worker.work(batch) for batch in batches))
        return time.monotonic() - started
    finally:
        await worker.close()


def _show_rows(drafts: Drafts, job: Job, batches: Sequence[str], report: Reporter) -> None:
    procedure = drafts.procedure()
    shown: list[tuple[str, Negative]] = []
    for batch in batches:
        queries = {p.id: p.query.text for p in drafts.pairs(batch)}
        for step in drafts.read_step(STEPS[-1], batch).values():
            rows = sorted(select(cases(step, procedure), job.settings), key=lambda n: n.verdict)
            shown += [(queries[step.pair_id], n) for n in rows[:1]]
    for query, negative in shown[:_ROWS]:
        report.line(f"\nquery        {query}")
        report.line(f"broken       {negative.requirement} ({negative.violation})")
        report.line(f"negative     {negative.full_text}")
        report.line(f"verdict      {negative.verdict}" + (f": {negative.reason}" if negative.reason else ""))


def say_dialect(job: Job, workspace: Workspace, report: Reporter) -> None:
    """Say in one line which parameters the endpoint refused, and what was done about it."""
    if words := read_dialect(job, workspace).words():
        report.line(f"generate: as the endpoint wants it, {'; '.join(words)}", style="dim")


def show_plan(job: Job, drafts: Drafts, total: int, report: Reporter) -> Plan:
    """Do a first batch for real, which the run then needn't do again, and print what the others will take."""
    engine = job.settings.engine
    left, _ = drafts.unfinished()
    batches = left[:1] or drafts.batches()[:1]
    report.line(f"plan: {total} pairs; doing the first {engine.batch_pairs} of those that are left, and keeping them")
    seconds = _first(job, batches) if left else 0.0
    stop_where_all_refused(drafts)
    capability = read_capability(job, drafts.workspace)
    outcomes = [o for batch in batches for o in drafts.read_outcomes(batch).values()]
    _, done = drafts.unfinished()
    plan = extrapolate(
        outcomes, total - len(done), seconds, engine.replicas, engine.prompt_price, engine.generated_price
    )
    _show_rows(drafts, job, batches, report)
    model = job.model
    procedure = drafts.procedure()
    mode, judge = (procedure.mode, procedure.judge) if procedure else (job.settings.mode, job.settings.judge)
    rows = [
        ["model", f"{job.llm} ({model.weights_gib:.2f} GiB of weights)" if model else f"{job.llm} at {engine.url}"],
        *([["precision", ", ".join(precisions)]] if (precisions := drafts.precisions()) else []),
        ["mode, judge", f"{mode}, {judge}"],
        ["check of the model, done", _spent(capability.usage if capability else Usage())],
        ["pairs to do", f"{plan.pairs:,} of {total:,}"],
        ["LLM calls", f"{plan.requests:,}"],
        ["prompt tokens", f"{plan.prompt_tokens:,}"],
        ["generated tokens", f"{plan.generated_tokens:,}"],
        ["time, after the start", f"at most {_duration(plan.seconds)} on {engine.replicas} engine(s)"],
        ["cost", "no prices are set" if plan.cost is None else f"{plan.cost:.2f}"],
    ]
    report.line("")
    report.table("What generation would take", ["what", "estimate"], rows)
    say_dialect(job, drafts.workspace, report)
    if capability:
        for what, why in capability.reasons().items():
            report.line(f"{what}: {why}", style="dim")
    return plan
