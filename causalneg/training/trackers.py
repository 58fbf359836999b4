"""Sends the training log to TensorBoard, MLflow or Weights & Biases, through accelerate's trackers.

These need no Accelerator, but they log through accelerate's logger, which refuses to work before there is a
PartialState. So one is made, as an Accelerator would: this belongs in the process that drives the training, where no
process group is set up.
"""

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalneg.errors import UserError
from causalneg.training.log import flat

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

_PROJECT = "causalneg"  # MLflow calls it an experiment
_NOT_SHOWN = {"step", "kind"}
_NOT_ALLOWED = re.compile(r"[^\w./ -]")  # in the names of MLflow, and of TensorBoard as tensorboardX writes them


def _tensorboard(run_name: str, folder: Path, undo: ExitStack) -> "GeneralTracker":
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(run_name, folder)


def _mlflow(run_name: str, folder: Path, undo: ExitStack) -> "GeneralTracker":
    import mlflow
    from accelerate.tracking import MLflowTracker

    artifacts = None
    if not mlflow.is_tracking_uri_set():
        mlflow.set_tracking_uri(f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        undo.callback(mlflow.set_tracking_uri, None)  # it holds for the process, and the next run has its own folder
        artifacts = (folder.absolute() / "mlflow").as_uri()
    return MLflowTracker(_PROJECT, logging_dir=artifacts, run_name=run_name)


def _wandb(run_name: str, folder: Path, undo: ExitStack) -> "GeneralTracker":
    from accelerate.tracking import WandBTracker

    return WandBTracker(_PROJECT, name=run_name, dir=str(folder))


_TRACKERS: dict[str, Callable[[str, Path, ExitStack], "GeneralTracker"]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}


def _missing(name: str) -> str | None:
    """Return the package that a tracker lacks, if any."""
    if name == "tensorboard":
        return None if find_spec("tensorboard") or find_spec("tensorboardX") else "tensorboardX"
    if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
        # mlflow-skinny lacks the database that a store on this machine is kept in; a server has its own.
        return None if find_spec("mlflow") and find_spec("sqlalchemy") else "mlflow"
    return None if find_spec(name) else name


class Trackers:
    """The trackers of a run. One that fails is warned about and dropped; nothing is raised.

    Args:
        trackers: started ones.
        warn: is told about those that fail.
        undo: closed with them.
    """

    def __init__(self, trackers: Sequence["GeneralTracker"], warn: Callable[[str], None], undo: ExitStack) -> None:
        self._open, self._warn, self._undo = list(trackers), warn, undo

    def log(self, record: Mapping[str, Any]) -> None:
        """Send the numbers of a record of the training log, under its kind: `dev/nDCG_10`, `train/loss/total`."""
        values = {
            _NOT_ALLOWED.sub("_", f"{record['kind']}/{name}"): float(value)
            for name, value in record.items()
            if name not in _NOT_SHOWN and isinstance(value, Real)
        }
        for tracker in list(self._open):
            self._try(tracker, lambda to: to.log(values, step=record["step"]))

    def start(self, settings: Mapping[str, Any]) -> None:
        """Begin the run of each and show it the settings, by dotted names."""
        shown = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in flat(settings, ".").items()
        }
        for tracker in list(self._open):
            if self._try(tracker, lambda to: to.start()):
                self._try(tracker, lambda to: to.store_init_configuration(shown))

    def close(self) -> None:
        """End the runs."""
        for tracker in list(self._open):
            self._try(tracker, lambda to: to.finish())
        self._open.clear()
        self._undo.close()

    def _try(self, tracker: "GeneralTracker", do: Callable[["GeneralTracker"], None]) -> bool:
        try:
            do(tracker)
        except Exception as error:  # whatever a tracker's network or disk may raise, training goes on
            self._open.remove(tracker)
            self._warn(f"{tracker.name} failed and gets no more of the log: {type(error).__name__}: {error}")
            return False
        return True


def open_trackers(
    names: Sequence[str],
    run_name: str,
    folder: Path,
    settings: Mapping[str, Any],
    warn: Callable[[str], None] = warnings.warn,
) -> Trackers:
    """Start trackers for a run; a second run of the same name and folder goes on in TensorBoard, and is new elsewhere.

    Args:
        names: any of tensorboard, mlflow and wandb.
        run_name: what the run is called there.
        folder: where what they write goes: TensorBoard's in a folder of the run's name, MLflow's in `mlflow.db` unless
            MLFLOW_TRACKING_URI names another place, that of Weights & Biases in `wandb`.
        settings: shown with the run; nested ones by dotted names.
        warn: is told, once each, about trackers that fail.

    Raises:
        UserError: a tracker's package is missing.
    """
    for name in names:
        package = _missing(name)
        if package:
            raise UserError(
                f"train.trackers has {name}, which needs the package {package}: "
                f"run `pip install {package}`, or leave {name} out."
            )
    if names:
        from accelerate import PartialState

        PartialState()
        folder.mkdir(parents=True, exist_ok=True)
    undo = ExitStack()
    trackers = Trackers([_TRACKERS[name](run_name, folder, undo) for name in names], warn, undo)
    trackers.start(settings)
    return trackers
