"""The relabel stage: an LLM judges every train query's mined negatives, and those that answer it are told apart."""

import time
from collections import Counter
from collections.abc import Sequence

from causalneg.config import Config, RelabelSettings
from causalneg.console import Reporter
from causalneg.generation.relabel.job import RelabelJob, determines, prepare, shown_queries
from causalneg.generation.relabel.judge import decide
from causalneg.generation.relabel.plan import show_plan
from causalneg.generation.relabel.rows import Drafts, Judged, stop_where_all_failed
from causalneg.generation.relabel.worker import RelabelWorker, check_usage, run_check
from causalneg.generation.run import check_memory, disk_full_told
from causalneg.generation.stream import stream_batches
from causalneg.records import Failure, Relabelled
from causalneg.runtime import ray_session
from causalneg.workspace import Counts, Manifest, StageRun, Workspace


class _Progress:
    """Counts what became of queries as it comes, for the note beside the bar."""

    def __init__(self) -> None:
        self._found = self._candidates = self._failed = 0

    def add(self, row: Judged) -> str:
        """Count a query and return the note."""
        self._candidates += len(row.relabelled)
        self._found += sum(r.answering != "no" for r in row.relabelled)
        self._failed += row.failure is not None
        share = self._found / max(1, self._candidates)
        return f"{share:.0%} of the candidates answer" + (f", {self._failed} queries failed" if self._failed else "")


def _prepare_queries(drafts: Drafts, workspace: Workspace, settings: RelabelSettings) -> int:
    """Write the queries as batches, unless they are there; return how many."""
    if drafts.counts() is None:
        drafts.write(shown_queries(workspace, settings.candidates), settings.engine.batch_pairs)
    return (drafts.counts() or {})["queries"]


def _judge(
    job: RelabelJob, drafts: Drafts, batches: Sequence[str], done: Sequence[Judged], total: int, report: Reporter
) -> None:
    """Do batches that are not done."""
    if not batches:
        return
    if done:
        report.line(f"relabel: going on after {len(done)} of {total} queries")
    if not job.settings.engine.url:
        report.line("relabel: starting the LLM engine (about half a minute)", style="dim")
    known = {row.query_id for row in done}
    with ray_session(), report.meter("judging", total, "queries", len(done)) as meter:
        progress, started = _Progress(), time.monotonic()
        try:
            for row in stream_batches(job, batches, RelabelWorker, run_check, Judged):
                if row.query_id not in known:
                    meter.advance(note=progress.add(row))
        finally:
            drafts.add_seconds(time.monotonic() - started)


def _plan(job: RelabelJob, drafts: Drafts, workspace: Workspace, report: Reporter) -> None:
    """Judge a first batch for real, and print what the others will take."""
    total = _prepare_queries(drafts, workspace, job.settings)
    left, done = drafts.unfinished()
    _judge(job, drafts, left[:1], done, total, report)
    stop_where_all_failed(drafts)
    _, done = drafts.unfinished()
    show_plan(job, done, total - len(done), drafts.seconds(), report)


def _finish(stage: StageRun, job: RelabelJob, drafts: Drafts, report: Reporter) -> Manifest:
    """Decide on all answers and write the rows."""
    workspace, spent = stage.workspace, check_usage(job)
    verdicts, answering, failures = Counter[str](), Counter[str](), Counter[str]()
    queries = 0
    for batch, rows in drafts.results():
        decided = [r for row in rows for r in decide(row.relabelled, job.settings)]
        failed = [row for row in rows if row.failure]
        workspace.write_rows("relabelled", f"part-{batch}", Relabelled, decided)
        workspace.write_rows("relabel_failures", f"part-{batch}", Failure, [r.failure for r in failed if r.failure])
        verdicts.update(r.verdict for r in decided)
        answering.update(r.answering.value for r in decided)
        failures.update(row.failure.kind for row in failed if row.failure)
        verdicts["failed"] += sum(row.candidates for row in failed)
        queries += len(rows)
        spent = sum((row.usage for row in rows), spent)
    candidates = (drafts.counts() or {})["candidates"]
    numbers = {name: verdicts[name] for name in ("accepted", "rejected", "failed")}
    counts = Counts(rows_in=candidates, **numbers)
    details = {
        "queries": queries,
        "answering": dict(answering),
        "failed_queries": dict(failures),
        "requests": spent.requests,
        "engine_seconds": round(drafts.seconds(), 1),
    }
    tokens = {"prompt": spent.prompt_tokens, "cached": spent.cached_tokens, "generated": spent.generated_tokens}
    report.line(
        f"relabel: {counts.rejected:,} of {candidates:,} mined negatives of {queries:,} queries are false: "
        f"{answering['answers']:,} answer their query, {answering['partly']:,} in part; {failures.total():,} queries "
        f"failed; {spent.requests:,} requests"
    )
    if failures:
        said = ", ".join(f"{count} {kind}" for kind, count in failures.most_common(3))
        report.line(f"relabel: failed queries: {said}; their negatives stay, see relabel_failures", style="yellow")
    return stage.finish(counts, tokens=tokens, details=details)


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest | None:
    """Judge the mined negatives of every train query; with `plan` show what that takes, and stop.

    Raises:
        UserError: mine is not done, the model does not exist or is no judge, the machine lacks what it needs, or not
            one query could be judged.
    """
    for name in ("import", "mine"):
        workspace.require(name)
    job = prepare(config, workspace)
    for note in job.notes:
        report.line(f"relabel: {note}")
    settings, drafts = job.settings, Drafts(workspace, job.key)

    if settings.plan:
        with disk_full_told():
            check_memory(job.model, settings.engine)
            _plan(job, drafts, workspace, report)
        return None
    stage = workspace.begin(
        "relabel",
        determines(settings, job.fingerprint, config.seed, deciding=True),
        inputs=["import", "mine"],
        check=lambda: check_memory(job.model, settings.engine),
        say=report.line,
        again=settings.retry_failed,
    )
    if stage.done:
        report.line(f"relabel: already done ({stage.done.counts.rejected} false negatives)")
        return stage.done
    with disk_full_told():
        if settings.retry_failed and (again := drafts.forget_failures()):
            report.line(f"relabel: trying {again} failed queries again")
        drafts.stop_running()
        total = _prepare_queries(drafts, workspace, settings)
        _judge(job, drafts, *drafts.unfinished(), total, report)
        stop_where_all_failed(drafts)
        return _finish(stage, job, drafts, report)
