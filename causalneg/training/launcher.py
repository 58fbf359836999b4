"""Runs the training workers with Ray Train. The only module of this package that knows Ray."""

import json
import shutil
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalneg.config import TrainSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.models import ResolvedModel, resolve
from causalneg.runtime import cores, ray_session, supports_bf16
from causalneg.training.rows import read_rows, select
from causalneg.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from causalneg.training.encoder import Encoder, Precision

_PROGRESS = "checkpoints/progress.json"
_SUMMARY = "checkpoints/summary.json"
_POLL = 0.5  # seconds
_MAX_FAILURES = 2  # restarts of the workers, each from the newest checkpoint
_MAX_STARTS = 10  # attempts of a minute each to get the workers' resources


@dataclass(frozen=True)
class Job:
    """What a worker is told; it reads everything else from the workspace.

    Attributes:
        root: the workspace, as an absolute path or URL.
        encoder: name of the encoder to start from.
        fingerprint: of that encoder on the driver.
        seed: of the order of rows.
        train: the stage's settings as JSON.
    """

    root: str
    encoder: str
    fingerprint: str
    seed: int
    train: dict[str, Any]


class _Workers:
    """The workers of a Ray Train run."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def add_up(self, tensor: "torch.Tensor") -> None:
        from torch.distributed import all_reduce

        all_reduce(tensor)


def _common_precision(settings: TrainSettings, device: "torch.device", workers: _Workers) -> "Precision":
    """Return the precision that every worker's device is good at, or the one that was set."""
    import torch

    if settings.precision != "auto":
        return settings.precision
    able = torch.tensor([float(supports_bf16(device))], device=device)
    workers.add_up(able)
    return "bf16" if int(able) == workers.size else "fp32"


def _work(config: dict[str, Any]) -> None:
    """Train in one worker; worker 0 writes progress and the model."""
    import ray.train
    import ray.train.torch
    import torch

    from causalneg.training.encoder import Encoder
    from causalneg.training.worker import train

    job = Job(**config)
    settings = TrainSettings.model_validate(job.train)
    workspace = Workspace(job.root)
    context = ray.train.get_context()
    workers = _Workers(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(settings.threads or max(1, cores() // context.get_local_world_size()))
    device = ray.train.torch.get_device()
    model = resolve(job.encoder)
    if model.fingerprint != job.fingerprint:
        raise UserError(
            f"The encoder {job.encoder!r} differs between machines ({model.path}); put the same files on all."
        )
    precision = _common_precision(settings, device, workers)
    encoder = Encoder(model.path, settings.max_length, precision, device)

    def progress(done: int, steps: int, loss: float) -> None:
        workspace.write_bytes(_PROGRESS, json.dumps({"step": done, "steps": steps, "loss": loss}).encode())

    rows = read_rows(workspace, select(workspace, settings))
    checkpoints = workspace.local_folder("checkpoints")
    summary = train(rows, encoder, settings, job.seed, checkpoints, workers, progress)
    if workers.rank == 0:
        _save_model(encoder, workspace.local_folder("model"))
        result = asdict(summary) | {"precision": precision}
        workspace.write_bytes(_SUMMARY, json.dumps(result).encode())


def _save_model(encoder: "Encoder", target: Path) -> None:
    """Write the model folder so that it is there as a whole or not at all."""
    fresh = Path(tempfile.mkdtemp(prefix=".model-", dir=target.parent))
    try:
        encoder.save(fresh)
        fresh.chmod(0o755)  # mkdtemp's folder is for its owner alone
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _require_resources(settings: TrainSettings) -> dict[str, float]:
    """Return what a worker sets aside in Ray.

    Raises:
        UserError: the cluster has less than all workers need, and would wait for ever.
    """
    import ray

    each = {"CPU": float(settings.threads or 1)} | ({"GPU": 1.0} if settings.gpu else {})
    there = ray.cluster_resources()
    for name, amount in each.items():
        if there.get(name, 0) < amount * settings.workers:
            raise UserError(
                f"train.workers = {settings.workers} needs {amount * settings.workers:g} {name}s, "
                f"but Ray has {there.get(name, 0):g}; lower train.workers or train.threads, or add machines."
            )
    return each


def _fit(job: Job, settings: TrainSettings, storage: Path) -> None:
    """Run Ray Train to its end; a user's mistake found by a worker is raised as such."""
    import ray.train
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _work,
        train_loop_config=asdict(job),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.gpu,
            resources_per_worker=_require_resources(settings),
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(
                max_failures=_MAX_FAILURES,
                controller_failure_limit=_MAX_STARTS,  # type: ignore[call-arg]
            ),
        ),
    )
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            cause = getattr(failure, "cause", None) or failure.__cause__ or failure
            if isinstance(cause, UserError):
                raise cause from error
        raise


def launch(
    workspace: Workspace,
    model: ResolvedModel,
    settings: TrainSettings,
    seed: int,
    steps: int,
    report: Reporter,
) -> dict[str, Any]:
    """Train with Ray Train, from the newest checkpoint on, and write `model/`.

    Args:
        workspace: a local one.
        model: encoder to start from.
        settings: of the stage.
        seed: of the order of rows.
        steps: optimiser steps in all, for the progress.
        report: shows the progress.

    Returns:
        `worker.Summary` as a dict, and the `precision` that was used.
    """
    # Workers run in another folder, so what they are told must not be relative.
    root = workspace.root if workspace.is_local else workspace.root_url
    name = str(model.path) if Path(model.name).expanduser().is_dir() else model.name
    job = Job(root, name, model.fingerprint, seed, settings.model_dump(mode="json"))
    from causalneg.training.checkpoint import newest, step_of

    checkpoints = workspace.local_folder("checkpoints")
    workspace.remove(_PROGRESS)
    first = step_of(newest(checkpoints))
    with ray_session(), report.meter("training", steps, "steps", first) as meter:
        # In the main thread Ray Train would put its own handler in place of Ctrl-C's.
        outcome: Future[None] = Future()
        threading.Thread(target=_settle, args=(outcome, job, settings, checkpoints / "ray"), daemon=True).start()
        shown = first
        while not outcome.done():
            time.sleep(_POLL)
            if workspace.exists(_PROGRESS):
                now = json.loads(workspace.read_bytes(_PROGRESS))
                if now["step"] > shown:
                    meter.advance(now["step"] - shown, f"loss {now['loss']:.3f}")
                    shown = now["step"]
        outcome.result()
    return dict(json.loads(workspace.read_bytes(_SUMMARY)))


def _settle(outcome: "Future[None]", job: Job, settings: TrainSettings, storage: Path) -> None:
    try:
        _fit(job, settings, storage)
    except BaseException as error:  # is raised again in the thread that waits
        outcome.set_exception(error)
    else:
        outcome.set_result(None)
