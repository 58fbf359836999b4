"""Shows what relabel would take, extrapolated from queries that were judged, which the run then needn't do again."""

from collections.abc import Sequence

from causalneg.console import Reporter
from causalneg.generation.plan import extrapolate
from causalneg.generation.relabel.job import RelabelJob
from causalneg.generation.relabel.rows import Judged


def show_plan(job: RelabelJob, done: Sequence[Judged], left: int, seconds: float, report: Reporter) -> None:
    """Print what the queries that are left will take, if they are like those that are done.

    Args:
        job: with the prices.
        done: what became of queries so far.
        left: queries to do.
        seconds: that those took.
        report: prints it.
    """
    engine = job.settings.engine
    plan = extrapolate(
        [row.usage for row in done], left, seconds, engine.replicas, engine.prompt_price, engine.generated_price
    )
    candidates = sum(len(row.relabelled) for row in done)
    found = sum(r.answering != "no" for row in done for r in row.relabelled)
    failed = sum(row.failure is not None for row in done)
    rows = [
        ["judge", job.llm if job.model else f"{job.llm} at {engine.url}"],
        ["queries to do", f"{plan.pairs:,} of {left + len(done):,}"],
        ["LLM calls", f"{plan.requests:,}"],
        ["prompt tokens", f"{plan.prompt_tokens:,}"],
        ["generated tokens", f"{plan.generated_tokens:,}"],
        ["time", f"at most {plan.seconds / 60:,.1f} min on {engine.replicas} engine(s)"],
        ["cost", "no prices are set" if plan.cost is None else f"{plan.cost:.2f}"],
        ["candidates that answer, so far", f"{found:,} of {candidates:,}; {failed:,} queries failed"],
    ]
    report.table("What relabel would take", ["what", "estimate"], rows)
