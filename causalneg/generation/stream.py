"""Runs batches of rows on Ray: one worker per engine, a bounded number of batches at each."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from causalneg.errors import UserError
from causalneg.generation.batches import BatchWorker
from causalneg.generation.job import EngineJob, Job
from causalneg.generation.worker import batch_worker, run_check
from causalneg.records import Outcome, Row

_LOOK_AGAIN = 5.0  # seconds between looks at what the cluster has

AJob = TypeVar("AJob", bound=EngineJob)


class Works(Protocol):
    """What works on batches."""

    async def work(self, batch: str) -> Sequence[Any]:
        """Do what is left of a batch, and return what became of its rows."""


class _Worker:
    """Ray Data actor: names of batches in, what became of their rows out."""

    def __init__(self, job: AJob, make_worker: Callable[[AJob], Works]) -> None:
        self._worker = make_worker(job)

    async def __call__(self, batch: dict[str, Any]) -> Any:  # noqa: ANN401 - an asynchronous generator of batches
        for name in batch["batch"]:
            # As a row: an exception loses its type on its way through Ray Data.
            try:
                rows, mistake = await self._worker.work(str(name)), None
            except UserError as error:
                rows, mistake = [], str(error)
            yield {
                "outcome": [row.model_dump_json() for row in rows] or [None],
                "mistake": [None] * len(rows) or [mistake],
            }


def check_resources(job: EngineJob) -> None:
    """Make sure that the cluster has what the engines need, so that none waits for what does not exist.

    Raises:
        UserError: it has not, and does not get it within the time that may be waited for an autoscaler.
    """
    import ray

    engine = job.settings.engine
    wanted = {"CPU": engine.cpus * engine.replicas, "GPU": engine.gpus * engine.replicas}
    deadline = time.monotonic() + engine.wait_seconds
    while True:
        has = ray.cluster_resources()
        short = {name: amount for name, amount in wanted.items() if amount > has.get(name, 0)}
        if not short:
            return
        if time.monotonic() >= deadline:
            name, amount = next(iter(short.items()))
            raise UserError(
                f"{engine.replicas} engines need {amount:g} {name}s and the cluster has {has.get(name, 0):g}; "
                f"set --engine.replicas, --engine.{name.lower()}s, or --engine.wait-seconds where nodes will come."
            )
        time.sleep(_LOOK_AGAIN)


def run_batches(
    job: Job, batches: Sequence[str], make_worker: Callable[[Job], BatchWorker] = batch_worker
) -> Iterator[Outcome]:
    """Run batches of pairs and yield their outcomes as they come; see `stream_batches`."""
    return stream_batches(job, batches, make_worker, run_check, Outcome)


def stream_batches(
    job: AJob,
    batches: Sequence[str],
    make_worker: Callable[[AJob], Works],
    check: Callable[[AJob], None],
    record: type[Row],
) -> Iterator[Row]:
    """Run batches and yield what became of their rows as it comes.

    Args:
        job: what the workers need.
        batches: names of the batches.
        make_worker: makes the worker of each engine.
        check: checks the model in a process of its own, before several workers would each do so.
        record: of what the workers return.

    Raises:
        UserError: no row could be done, as with a wrong key or too little memory.
    """
    import ray

    engine = job.settings.engine
    check_resources(job)
    if engine.replicas > 1 and not engine.url:
        options: dict[str, Any] = {"num_cpus": engine.cpus, "num_gpus": engine.gpus, "max_retries": 0}
        try:
            ray.get(ray.remote(**options)(check).remote(job))
        except UserError as error:  # Ray's own kind of it, with a traceback for a message
            raise UserError(str(getattr(error, "cause", error))) from error
    dataset = ray.data.from_items([{"batch": name} for name in batches], override_num_blocks=len(batches))
    results = dataset.map_batches(
        _Worker,
        fn_constructor_args=(job, make_worker),
        batch_size=1,
        num_cpus=engine.cpus,
        num_gpus=engine.gpus,
        compute=ray.data.ActorPoolStrategy(
            size=engine.replicas, max_tasks_in_flight_per_actor=engine.batches_in_flight
        ),
        max_concurrency=engine.batches_in_flight,
    )
    for row in results.iter_rows():
        if row["mistake"]:
            raise UserError(row["mistake"])
        yield record.model_validate_json(row["outcome"])
