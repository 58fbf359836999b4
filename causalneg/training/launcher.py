"""Runs the training workers with Ray Train. The only module of this package that knows Ray."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalneg.config import TrainSettings
from causalneg.console import Meter, Reporter
from causalneg.errors import UserError
from causalneg.files import whole_folder
from causalneg.models import ResolvedModel, resolve
from causalneg.runtime import cores, ray_session, supports_bf16
from causalneg.training.data.store import Data, is_whole
from causalneg.training.log import Log
from causalneg.training.trackers import Trackers
from causalneg.workspace import Workspace

if TYPE_CHECKING:
    import torch
    from ray.train import UserCallback

    from causalneg.training.encoder.encoder import Encoder, Precision
    from causalneg.training.workers import Workers

DATA = "checkpoints/data"
_PROGRESS = "checkpoints/progress.json"
_SUMMARY = "checkpoints/summary.json"
_STARTS = "checkpoints/starts.json"  # the steps from which workers started
_GIVEN_UP = "checkpoints/given_up.json"
_POLL = 0.5  # seconds
_SAME_STEP = 3  # starts of the workers from one and the same step: then it is no use
_MAX_STARTS = 10  # attempts of a minute each to get the workers' resources


def training_log(workspace: Workspace) -> Log:
    """Return the training log of a workspace."""
    return Log(workspace.local_folder("training") / "log.jsonl")


@dataclass(frozen=True)
class Job:
    """What a worker is told; it reads everything else from the workspace.

    Attributes:
        root: the workspace, as an absolute path or URL.
        encoder: name of the encoder to start from.
        fingerprint: of that encoder on the driver.
        seed: of all that is drawn.
        train: the stage's settings as JSON.
    """

    root: str
    encoder: str
    fingerprint: str
    seed: int
    train: dict[str, Any]


class _Together:
    """The workers of a Ray Train run."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def add_up(self, tensor: "torch.Tensor") -> None:
        from torch.distributed import all_reduce

        all_reduce(tensor)


def _common_precision(settings: TrainSettings, device: "torch.device", workers: "Workers") -> "Precision":
    """Return the precision that every worker's device is good at, or the one that was set."""
    import torch

    if settings.precision != "auto":
        return settings.precision
    able = torch.tensor([float(supports_bf16(device))], device=device)
    workers.add_up(able)
    return "bf16" if int(able) == workers.size else "fp32"


def _work(config: dict[str, Any]) -> None:
    """Train in one worker.

    Ray starts all workers anew after whatever one of them raises. What would come again is written down first: then
    `_stop_for_good` ends the run, and the driver says it.
    """
    import ray.train

    job = Job(**config)
    workspace = Workspace(job.root, building="train")
    try:
        if ray.train.get_context().get_world_rank() == 0:
            _note_start(workspace)
        _train(job, workspace)
    except UserError as error:
        workspace.write_bytes(_GIVEN_UP, json.dumps(str(error)).encode())
        raise


def _note_start(workspace: Workspace) -> None:
    """Write down from which step the workers start.

    Raises:
        UserError: they died too often without getting any further.
    """
    from causalneg.training.checkpoint import newest, step_of

    starts = json.loads(workspace.read_bytes(_STARTS)) if workspace.exists(_STARTS) else []
    step = step_of(newest(workspace.local_folder("checkpoints")))
    if starts.count(step) >= _SAME_STEP:
        raise UserError(
            f"The workers died {_SAME_STEP} times after step {step} without reaching another checkpoint; the newest "
            f"file in {workspace.path('logs')} says why. If memory ran out, lower train.held_gib."
        )
    workspace.write_bytes(_STARTS, json.dumps([*starts, step]).encode())


def _train(job: Job, workspace: Workspace) -> None:
    """Train in one worker; worker 0 prepares the data and writes progress and the model."""
    import ray.train
    import ray.train.torch
    import torch

    from causalneg.training.encoder.card import model_facts
    from causalneg.training.encoder.encoder import Encoder
    from causalneg.training.worker import Run

    settings = TrainSettings.model_validate(job.train)
    context = ray.train.get_context()
    workers = _Together(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(settings.threads or max(1, cores() // context.get_local_world_size()))
    device = ray.train.torch.get_device()
    model = resolve(job.encoder)
    if model.fingerprint != job.fingerprint:
        raise UserError(
            f"The encoder {job.encoder!r} differs between machines ({model.path}); put the same files on all."
        )
    precision = _common_precision(settings, device, workers)
    encoder = Encoder(model.path, settings.encoder, precision, device, settings.chunk_tokens)

    def progress(phase: str, done: int, total: int, record: dict[str, float]) -> None:
        content = {"phase": phase, "done": done, "total": total, "record": record}
        workspace.write_bytes(_PROGRESS, json.dumps(content).encode())

    data = _data(workspace, settings, job.seed, encoder, workers, lambda d, t: progress("tokenising", d, t, {}))
    checkpoints = workspace.local_folder("checkpoints")
    run = Run(
        data,
        encoder,
        settings,
        job.seed,
        checkpoints,
        training_log(workspace),
        workers,
        lambda done, total, record: progress("training", done, total, record),
    )
    summary = run()
    if workers.rank == 0:
        with whole_folder(workspace.local_folder("model")) as folder:
            encoder.save(folder)
        model_is = model_facts(encoder.model).model_dump()
        result = asdict(summary) | {"precision": precision, "workers": workers.size, "model": model_is}
        workspace.write_bytes(_SUMMARY, json.dumps(result).encode())


def _data(
    workspace: Workspace,
    settings: TrainSettings,
    seed: int,
    encoder: "Encoder",
    workers: "Workers",
    progress: Callable[[int, int], None],
) -> Data:
    """Have worker 0 write the store; the others wait until it is there, however long that takes.

    Raises:
        UserError: there is nothing to train on.
    """
    from causalneg.training.data.prepare import prepare

    folder = workspace.local_folder(DATA)
    if workers.rank == 0:
        data = prepare(workspace, folder, encoder, settings, seed, progress)
    else:
        while not is_whole(folder):
            time.sleep(_POLL)
        data = Data(folder)
    if not len(data["rows.train"]):
        raise UserError(
            f"None of the {data.facts['pairs']} train pairs of {workspace.root_url} can be trained on: they have no "
            "accepted negative that differs from the positive; look at the thresholds of mine and generate."
        )
    return data


def _require_resources(settings: TrainSettings) -> dict[str, float]:
    """Return what a worker sets aside in Ray.

    Raises:
        UserError: the cluster has less than the fewest workers need, and would wait for ever.
    """
    import ray

    each = {"CPU": float(settings.threads or 1)} | ({"GPU": 1.0} if settings.gpu else {})
    there = ray.cluster_resources()
    fewest = settings.min_workers or settings.workers
    name_of_setting = "train.min_workers" if settings.min_workers else "train.workers"
    for name, amount in each.items():
        if there.get(name, 0) < amount * fewest:
            raise UserError(
                f"{name_of_setting} = {fewest} needs {amount * fewest:g} {name}s, "
                f"but Ray has {there.get(name, 0):g}; lower train.workers or train.threads, or add machines."
            )
    return each


def _stop_for_good(root: str) -> "UserCallback":
    """Return what keeps Ray from starting workers anew after a mistake of the user: no other node mends it."""
    from ray.train import UserCallback

    class StopForGood(UserCallback):
        def after_exception(self, run_context: object, worker_exceptions: object) -> None:
            workspace = Workspace(root, building="train")
            if workspace.exists(_GIVEN_UP):  # an error raised here ends the run, and with it the other workers
                raise UserError(json.loads(workspace.read_bytes(_GIVEN_UP)))

    return StopForGood()


def _fit(job: Job, settings: TrainSettings, storage: Path) -> None:
    """Run Ray Train to its end."""
    import ray.train
    from ray.train.torch import TorchTrainer

    number = (settings.min_workers, settings.workers) if settings.min_workers else settings.workers
    trainer = TorchTrainer(
        _work,
        train_loop_config=asdict(job),
        scaling_config=ray.train.ScalingConfig(
            num_workers=number,  # type: ignore[arg-type] # Ray's words for it leave the pair out
            use_gpu=settings.gpu,
            resources_per_worker=_require_resources(settings),
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(storage),
            callbacks=[_stop_for_good(job.root)],  # type: ignore[list-item] # Ray's words know only its older ones
            failure_config=ray.train.FailureConfig(
                max_failures=-1,  # `_note_start` gives up
                controller_failure_limit=_MAX_STARTS,  # type: ignore[call-arg]
            ),
        ),
    )
    trainer.fit()


class _Watcher:
    """Shows what worker 0 writes of its progress, and hands the log to the trackers."""

    def __init__(self, workspace: Workspace, settings: TrainSettings, report: Reporter, trackers: Trackers) -> None:
        self._workspace, self._settings, self._report, self._trackers = workspace, settings, report, trackers
        self._log = training_log(workspace)
        self._told = 0
        self._phase = ""
        self._done = 0
        self._meter: Meter | None = None

    def look(self) -> None:
        """Show what is new."""
        if self._workspace.exists(_PROGRESS):
            now = json.loads(self._workspace.read_bytes(_PROGRESS))
            if now["phase"] != self._phase:
                self._begin(now)
            if self._meter and now["done"] > self._done:
                self._meter.advance(now["done"] - self._done, _note(now["record"]))
                self._done = now["done"]
        for record in self._log.read()[self._told :] if self._settings.trackers else ():
            self._trackers.log(record)
            self._told += 1

    def _begin(self, now: dict[str, Any]) -> None:
        self.close()
        self._phase = now["phase"]
        unit = "texts" if self._phase == "tokenising" else "steps"
        if self._phase == "training":
            _say(Data(self._workspace.local_folder(DATA)), now["total"], self._report)
        self._done = now["done"]
        self._meter = Meter(self._report.console, self._phase, now["total"], unit, now["done"])

    def close(self) -> None:
        if self._meter:
            self._meter.close()
            self._meter = None


def _say(data: Data, steps: int, report: Reporter) -> None:
    facts = data.facts
    report.line(
        f"train: {facts['rows']:,} of {facts['pairs']:,} pairs with {facts['mined']:,} mined and "
        f"{facts['generated']:,} generated negatives, {steps:,} steps"
    )
    if alone := facts.get("without_negative", 0):  # a store that is resumed may be older than this count
        left_out = facts["rows"] < facts["pairs"]
        report.line(
            f"train: {alone:,} pairs have no negative of their own"
            + (
                ", and are left out; train.loss.candidates in_batch or global trains on them, too"
                if left_out
                else "; the other passages of their batch are their candidates"
            )
        )
    if facts["dev_query"]:
        report.line(f"train: watched on {facts['dev_query']:,} dev queries and {facts['dev_passage']:,} passages")
    if facts.get("false_negatives"):
        report.line(
            f"train: {facts['false_negatives']:,} mined passages left out: they were found to answer their query"
        )
    if facts["same_as_positive"]:
        report.line(
            f"train: {facts['same_as_positive']:,} negatives left out: up to train.encoder.passage_length their tokens "
            "are the positive's",
            style="yellow",
        )


_SHOWN = ("loss/total", "loss/info_nce", "loss/entropy", "loss/balance", "loss/distillation")


def _note(record: dict[str, float]) -> str:
    """Return what is said beside the progress."""
    if not record:
        return ""
    parts = [f"{name.removeprefix('loss/')} {value:.3f}" for name, value in record.items() if name in _SHOWN]
    rates = f"rate {record['learning_rate']:.1e}, {record['rows_per_second']:.1f} rows/s"
    return ", ".join([*parts, rates, f"{record['tokens_per_second']:,.0f} tokens/s"])


def launch(
    workspace: Workspace,
    model: ResolvedModel,
    settings: TrainSettings,
    seed: int,
    report: Reporter,
    trackers: Trackers,
) -> dict[str, Any]:
    """Train with Ray Train, from the newest checkpoint on, and write `model/`.

    Args:
        workspace: a local one, as the stage sees it.
        model: encoder to start from.
        settings: of the stage.
        seed: of all that is drawn.
        report: shows the progress.
        trackers: get the log's records.

    Returns:
        `worker.Summary` as a dict, the `precision` that was used, the `workers` that finished, and what the `model` is.

    Raises:
        UserError: a worker found a mistake of the user, or workers died again and again at the same step.
    """
    # Workers run in another folder, so what they are told must not be relative.
    root = str(Path(workspace.root).absolute()) if workspace.is_local else workspace.root_url
    name = str(model.path) if Path(model.name).expanduser().is_dir() else model.name
    job = Job(root, name, model.fingerprint, seed, settings.model_dump(mode="json"))
    checkpoints = workspace.local_folder("checkpoints")
    for left in (_PROGRESS, _STARTS, _GIVEN_UP):
        workspace.remove(left)
    watcher = _Watcher(workspace, settings, report, trackers)
    with ray_session():
        # In the main thread Ray Train would put its own handler in place of Ctrl-C's.
        outcome: Future[None] = Future()
        threading.Thread(target=_settle, args=(outcome, job, settings, checkpoints / "ray"), daemon=True).start()
        try:
            while not outcome.done():
                time.sleep(_POLL)
                watcher.look()
            if workspace.exists(_GIVEN_UP):
                raise UserError(json.loads(workspace.read_bytes(_GIVEN_UP)))
            outcome.result()
            watcher.look()
        finally:
            watcher.close()
    return dict(json.loads(workspace.read_bytes(_SUMMARY)))


def _settle(outcome: "Future[None]", job: Job, settings: TrainSettings, storage: Path) -> None:
    try:
        _fit(job, settings, storage)
    except BaseException as error:  # is raised again in the thread that waits
        outcome.set_exception(error)
    else:
        outcome.set_result(None)
