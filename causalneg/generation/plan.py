"""Shows what generation would take: calls, tokens, time and cost, measured on a first batch, and five finished rows."""

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from causalneg.console import Reporter
from causalneg.generation.drafts import STEPS, Drafts, stop_where_all_refused
from causalneg.generation.job import Job, endpoint_of
from causalneg.generation.measured import cost, failure_lines, measure, measured_rows, money, words_of
from causalneg.generation.rows import Usage
from causalneg.generation.select import cases, select
from causalneg.generation.worker import batch_worker, read_capability
from causalneg.records import Negative, Outcome
from causalneg.workspace import Workspace

_ROWS = 5


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
    return Plan(
        pairs=left,
        requests=round(share * sum(o.requests for o in done)),
        prompt_tokens=round(prompt),
        generated_tokens=round(generated),
        seconds=share * seconds / replicas,
        cost=cost(prompt, generated, prompt_price, generated_price),
    )


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
    """Say in one line each which parameters an endpoint refused, and what was done about it."""
    for name, endpoint in (("endpoint", endpoint_of(job)), ("judge's endpoint", job.judge)):
        if endpoint and (words := endpoint.dialect(workspace).words()):
            report.line(f"generate: as the {name} wants it, {'; '.join(words)}", style="dim")


def show_plan(job: Job, drafts: Drafts, total: int, report: Reporter) -> Plan:
    """Do a first batch for real, which the run then needn't do again; print what is measured, and what is left to do.

    What earlier runs have done is measured, too; where nothing is left to do, it is all that is shown.
    """
    engine = job.settings.engine
    left, before = drafts.unfinished()
    batches = left[:1] or drafts.batches()[:1]
    seconds = 0.0
    if left:
        report.line(
            f"plan: {total} pairs; doing the first {engine.batch_pairs} of those that are left, and keeping them"
        )
        seconds = _first(job, batches)
        drafts.add_seconds(seconds)
        stop_where_all_refused(drafts)
    measured = measure(drafts, job.settings)
    done = measured.outcomes
    plan = extrapolate(
        done,
        total - len(done),
        seconds / max(1, len(done) - len(before)) * len(done),
        engine.replicas,
        engine.prompt_price,
        engine.generated_price,
    )
    _show_rows(drafts, job, batches, report)
    report.line("")
    time_so_far = [["time, so far", _duration(drafts.seconds())]] if drafts.seconds() else []
    report.table("What was measured", ["what", "so far"], measured_rows(measured, engine) + time_so_far)
    for line in failure_lines(measured.failures):
        report.line(line, style="yellow")
    report.table("What generation would take", ["what", "estimate"], _estimate_rows(job, drafts, plan, total))
    say_dialect(job, drafts.workspace, report)
    if capability := read_capability(job, drafts.workspace):
        open_ones = {"mode": job.settings.mode, "judge": job.settings.judge}
        for what, why in capability.reasons().items():
            if open_ones[what] == "auto":
                report.line(f"{what}: {why}", style="dim")
    return plan


def _estimate_rows(job: Job, drafts: Drafts, plan: Plan, total: int) -> list[list[str]]:
    """Return with what the work is done, and what is left of it; no more than that nothing is, where it is so."""
    model, engine = job.model, job.settings.engine
    procedure, capability = drafts.procedure(), read_capability(job, drafts.workspace)
    mode, judge = (procedure.mode, procedure.judge) if procedure else (job.settings.mode, job.settings.judge)
    check = words_of(capability.usage if capability else Usage(), engine)
    rows = [
        ["model", f"{job.llm} ({model.weights_gib:.2f} GiB of weights)" if model else f"{job.llm} at {engine.url}"],
        *([["model that judges", str(job.judge)]] if job.judge else []),
        *([["precision", ", ".join(precisions)]] if (precisions := drafts.precisions()) else []),
        ["mode, judge", f"{mode}, {judge}"],
        ["check of the model, done", check],
        ["pairs to do", f"{plan.pairs:,} of {total:,}"],
    ]
    if not plan.pairs:
        return rows
    return [
        *rows,
        ["LLM calls", f"{plan.requests:,}"],
        ["prompt tokens", f"{plan.prompt_tokens:,}"],
        ["generated tokens", f"{plan.generated_tokens:,}"],
        ["time, after the start", f"at most {_duration(plan.seconds)} on {engine.replicas} engine(s)"],
        ["cost", money(plan.cost)],
    ]
