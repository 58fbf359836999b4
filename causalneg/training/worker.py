"""The loop of one training worker. It knows its rank and how to add up a tensor over workers, and no Ray."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from causalneg.config import TrainSettings
from causalneg.records import Source
from causalneg.training import checkpoint
from causalneg.training.data.batch import row_tokens
from causalneg.training.data.order import row_order, steps_per_epoch
from causalneg.training.data.store import Data
from causalneg.training.dev import MEASURE, Dev
from causalneg.training.early import Best
from causalneg.training.encoder.encoder import Encoder
from causalneg.training.finite import Finite
from causalneg.training.log import Log
from causalneg.training.objective.loss import Counts, LossSums
from causalneg.training.objective.weights import matching, rule_weights
from causalneg.training.optimizer import FlatGradients, adamw, learning_rate
from causalneg.training.step import Step
from causalneg.training.workers import Workers

_REPORT_EVERY = 0.5  # seconds
_FIRST_SCALE = 1024.0  # of the loss with fp16; a low temperature makes gradients large, and it grows by itself


@dataclass(frozen=True)
class Summary:
    """What came of training.

    Attributes:
        steps: optimiser steps done.
        epochs: means per query of each epoch: `loss`, `info_nce`, and over the queries that have what they are about
            `entropy`, `balance`, `generated_mass`, `expected_mass`, `distillation`.
        rows_per_second: queries with their passages, over all workers.
        tokens_per_second: of their texts, over all workers.
        waiting: share of the steps' time in which the encoder waited for data.
        evaluating: share of the time that evaluations took.
        peak_memory_gib: largest memory of the first worker, GiB: of its GPU, or of its process.
        dev: nDCG@10 on the dev queries before training and at its best, and the step of the best.
        stopped_early: whether training stopped before its last step.
    """

    steps: int
    epochs: list[dict[str, float]]
    rows_per_second: float
    tokens_per_second: float
    waiting: float
    evaluating: float
    peak_memory_gib: float
    dev: dict[str, float]
    stopped_early: bool


@dataclass
class State:
    """Where training stands; what of it is not the weights' and moments'.

    Attributes:
        step: steps done.
        seconds: of steps.
        waited: seconds of steps in which the encoder waited for data.
        evaluated: seconds of evaluations.
        tokens: of the rows trained on.
        rows: trained on.
        history: sums of each epoch, as `LossSums`.
        window: sums since the last record of the log.
        best: state of `Best`.
        base: nDCG@10 before training.
        scaler: state of the loss scaler, with fp16.
        stopped: whether it was stopped early.
    """

    step: int
    seconds: float
    waited: float
    evaluated: float
    tokens: int
    rows: int
    history: list[list[float]]
    window: list[float]
    best: dict[str, float | int | None]
    base: float | None
    scaler: dict[str, float]
    stopped: bool


Progress = Callable[[int, int, dict[str, float]], None]
"""Called by worker 0 with the steps done, all steps, and the last record of the log."""


def means(sums: Sequence[float], settings: TrainSettings) -> dict[str, float]:
    """Turn summed `LossSums` into means per query; none of a part that no query had."""
    s = LossSums(*(torch.tensor(value, dtype=torch.float64) for value in sums))
    rows, generated_rows, teacher_rows = int(s.rows), int(s.generated_rows), int(s.teacher_rows)
    result = {"loss": float(s.total(Counts(rows, generated_rows, teacher_rows), settings.loss))}
    if rows:
        result["info_nce"] = float(s.info_nce) / rows
        if settings.loss.false_negative_margin is not None:
            result["false_negatives"] = float(s.false_negatives) / rows
    if generated_rows:
        for name in ("entropy", "balance", "generated_mass", "expected_mass"):
            result[name] = float(getattr(s, name)) / generated_rows
    if teacher_rows and settings.loss.distillation != "none":
        result["distillation"] = float(s.distillation) / teacher_rows
    return result


def _peak_memory(device: torch.device) -> int:
    """Return the largest memory so far, bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def source_weights(settings: TrainSettings, progress: float) -> dict[str, float]:
    """Return the weight of a negative of each source about which nothing else is known; nothing without rules."""
    if not settings.weights:
        return {}
    weights = rule_weights(settings.weights, progress)
    masks = {source.value: matching(settings.weights, source, None, {}) for source in Source}
    return {name: float(np.prod([w for r, w in enumerate(weights) if mask >> r & 1])) for name, mask in masks.items()}


class _Pace:
    """Rows and tokens per second since they were last asked for."""

    def __init__(self) -> None:
        self._since, self._rows, self._tokens = time.monotonic(), 0, 0

    def add(self, rows: int, tokens: int) -> None:
        """Count a step."""
        self._rows, self._tokens = self._rows + rows, self._tokens + tokens

    def leave_out(self, seconds: float) -> None:
        """Leave time out that no step took."""
        self._since += seconds

    def take(self) -> dict[str, float]:
        """Return both and begin anew."""
        took = max(time.monotonic() - self._since, 1e-9)
        found = {"rows_per_second": self._rows / took, "tokens_per_second": self._tokens / took}
        self._since, self._rows, self._tokens = time.monotonic(), 0, 0
        return found


class Run:
    """A training run as one worker does it.

    Every worker reads the same rows and takes its part of each batch; gradients are summed over workers once per
    step. So the result is the same for any number of workers, up to rounding; with `in_batch` candidates it is not,
    since these are a worker's.

    Args:
        data: rows and tokens.
        encoder: is changed.
        settings: of the stage.
        seed: of the order of rows, dropout and what is watched.
        checkpoints: folder of the training state, the same for all workers.
        log: written by worker 0.
        workers: this worker and how it reaches the others.
        progress: called by worker 0.
    """

    def __init__(
        self,
        data: Data,
        encoder: Encoder,
        settings: TrainSettings,
        seed: int,
        checkpoints: Path,
        log: Log,
        workers: Workers,
        progress: Progress,
    ) -> None:
        self._data, self._encoder, self._settings, self._seed = data, encoder, settings, seed
        self._checkpoints, self._log, self._workers, self._progress = checkpoints, log, workers, progress
        self._rows = np.asarray(data["rows.train"])
        self._per_epoch = steps_per_epoch(len(self._rows), settings.batch_size)
        self.steps = settings.epochs * self._per_epoch
        parameters = encoder.parameters()
        self._optimizer = adamw(parameters, settings.learning_rate, settings.weight_decay)
        self._scaler = torch.amp.GradScaler(
            encoder.device.type, init_scale=_FIRST_SCALE, enabled=encoder.precision == "fp16"
        )
        self._step = Step(encoder, data, settings, seed, workers)
        self._dev = Dev(encoder, data, settings, seed, workers)
        self._best = Best(settings.dev.patience)
        self._finite = Finite(encoder, settings, checkpoints)
        none = [0.0] * len(LossSums._fields)
        self._state = State(0, 0.0, 0.0, 0.0, 0, 0, [none] * settings.epochs, none, {}, None, {}, stopped=False)
        if found := checkpoint.newest(checkpoints):
            weights, state = checkpoint.load(found, self._optimizer)
            encoder.load_trained_state(weights)
            self._state = State(**state["run"])
            self._best = Best.from_state(self._state.best)
            self._scaler.load_state_dict(self._state.scaler)
        self._flat = FlatGradients(parameters, len(LossSums._fields))
        self._history = torch.tensor(self._state.history, dtype=torch.float64, device=encoder.device)
        self._window = torch.tensor(self._state.window, dtype=torch.float64, device=encoder.device)
        if workers.rank == 0:
            log.truncate(self._state.step if found else -1)

    def __call__(self) -> Summary:
        """Train from the newest checkpoint on, or from the start, and leave the best weights in the encoder.

        Raises:
            UserError: the loss, a gradient, a weight or a vector is not finite any more.
        """
        state = self._state
        if not state.step and not state.stopped:
            state.base = self._evaluate().get(MEASURE)
        record: dict[str, float] = {}
        said, pace = time.monotonic(), _Pace()
        order, order_of = np.empty(0, np.int64), -1
        while state.step < self.steps and not state.stopped:
            started = time.monotonic()
            epoch, number = divmod(state.step, self._per_epoch)
            if order_of != epoch:
                order, order_of = row_order(len(self._rows), self._seed, epoch), epoch
            batch = self._rows[order[number * self._settings.batch_size : (number + 1) * self._settings.batch_size]]
            norm = self._train(batch)
            self._history[epoch] += self._flat.sums
            self._window += self._flat.sums
            state.step += 1
            done, last = state.step, state.step == self.steps
            tokens = int(row_tokens(self._data, batch).sum())
            state.rows, state.tokens = state.rows + len(batch), state.tokens + tokens
            pace.add(len(batch), tokens)
            if done % self._settings.log_every == 0 or last:
                record = self._record(norm, pace.take())
            if self._workers.rank == 0 and (time.monotonic() - said >= _REPORT_EVERY or last):
                said = time.monotonic()
                self._progress(done, self.steps, record)
            state.seconds += time.monotonic() - started
            if done % (self._settings.dev.every or self._per_epoch) == 0 or last:
                found = self._evaluate()
                self._judge(found)
                pace.leave_out(found["seconds"])
            if done % self._settings.checkpoint_every == 0 or last or state.stopped:
                self._finite.require(done)  # every worker, so that all of them stop
                if self._workers.rank == 0:
                    self._save()
        return self._finish()

    def _train(self, batch: np.ndarray) -> Tensor:
        """Do one step; return the norm of the gradient."""
        settings, state = self._settings, self._state
        self._flat.flat.zero_()
        scale = self._scaler.scale(torch.ones((), device=self._encoder.device))
        self._flat.sums += self._step(state.step, batch, state.step / self.steps, scale)
        state.waited += self._step.waited
        self._workers.add_up(self._flat.flat)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(state.step)
        self._scaler.unscale_(self._optimizer)
        norm = self._flat.clip(settings.max_grad_norm)
        self._finite.note(state.step + 1, self._flat.sums, norm, scale)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return norm

    def _rate(self, step: int) -> float:
        settings = self._settings
        return learning_rate(step, self.steps, settings.warmup, settings.learning_rate, settings.schedule)

    def _record(self, norm: Tensor, pace: dict[str, float]) -> dict[str, float]:
        """Log the mean loss since the last record, and how the last step was made."""
        state, settings = self._state, self._settings
        self._finite.require(state.step)
        parts = means(self._window.tolist(), settings)
        self._window.zero_()
        record = {
            "step": state.step,
            "epoch": state.step / self._per_epoch,
            "loss/total": parts.pop("loss"),
            **{f"loss/{name}": value for name, value in parts.items()},
            "learning_rate": self._rate(state.step - 1),
            "gradient_norm": float(norm),
            **pace,
            **{f"weight/{k}": v for k, v in source_weights(settings, (state.step - 1) / self.steps).items()},
        }
        if self._workers.rank == 0:
            self._log.append({"kind": "train", **record})
        return record

    def _evaluate(self) -> dict[str, float]:
        self._finite.require(self._state.step)
        try:
            found = self._dev()
        except FloatingPointError as error:
            raise self._finite.refusal("Vectors of the encoder are", self._state.step) from error
        self._state.evaluated += found["seconds"]
        if self._workers.rank == 0:
            place = {"step": self._state.step, "epoch": self._state.step / self._per_epoch}
            self._log.append({"kind": "dev", **place, **found})
        return found

    def _judge(self, found: dict[str, float]) -> None:
        """Keep the weights if they are the best so far, and decide whether to stop."""
        if MEASURE not in found:
            return
        if self._best.update(self._state.step, found[MEASURE]) and self._workers.rank == 0:
            checkpoint.save_best(self._checkpoints, self._encoder.trained_state())
        self._state.stopped = self._best.should_stop and self._state.step < self.steps

    def _save(self) -> None:
        state = self._state
        state.history, state.window = self._history.tolist(), self._window.tolist()
        state.best, state.scaler = self._best.state(), dict(self._scaler.state_dict())
        weights = self._encoder.trained_state()
        kept = {"run": vars(state), "settings": self._settings.model_dump(mode="json")}
        checkpoint.save(self._checkpoints, state.step, weights, self._optimizer, kept)

    def _finish(self) -> Summary:
        state, best = self._state, self._best
        dev: dict[str, float] = {}
        if best.step is not None and best.value is not None:
            if self._workers.rank == 0 and best.step != state.step:
                self._encoder.load_trained_state(checkpoint.load_best(self._checkpoints))
            dev = {"before": float(state.base or 0.0), "best": best.value, "best_step": best.step}
        reached = self._history.tolist()[: -(-state.step // self._per_epoch)]
        return Summary(
            state.step,
            [means(sums, self._settings) for sums in reached],
            state.rows / max(state.seconds, 1e-9),
            state.tokens / max(state.seconds, 1e-9),
            state.waited / max(state.seconds, 1e-9),
            state.evaluated / max(state.evaluated + state.seconds, 1e-9),
            _peak_memory(self._encoder.device) / 1024**3,
            dev,
            state.stopped,
        )
