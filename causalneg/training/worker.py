"""The loop of one training worker. It knows its rank and how to add up a tensor over workers, and no Ray."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from causalneg.config import TrainSettings
from causalneg.records import Source
from causalneg.training import checkpoint
from causalneg.training.batch import (
    TrainingRow,
    micro_batches,
    pad,
    row_order,
    steps_per_epoch,
    worker_slice,
)
from causalneg.training.encoder import Encoder
from causalneg.training.loss import LossSums, loss_sums

_MICRO_TOKENS = 16_384  # tokens at most, padded, whose activations are held at once
_REPORT_EVERY = 0.5  # seconds


class Workers(Protocol):
    """The workers that train together, as one of them sees them."""

    rank: int
    size: int

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all workers; each of them must call this."""


class Alone:
    """The only worker."""

    rank, size = 0, 1

    def add_up(self, tensor: Tensor) -> None:
        """Leave the tensor as it is."""


@dataclass(frozen=True)
class Summary:
    """What came of training.

    Attributes:
        steps: optimiser steps.
        epochs: means per query of each epoch: `loss`, `info_nce`, and over queries with generated negatives
            `entropy`, `balance`, `generated_mass`, `expected_mass`.
        rows_per_second: queries with their passages, over all workers.
    """

    steps: int
    epochs: list[dict[str, float]]
    rows_per_second: float


Progress = Callable[[int, int, float], None]
"""Called by worker 0 with the steps done, all steps, and the last step's loss."""


def learning_rate(step: int, steps: int, warmup: float, peak: float) -> float:
    """Return the rate of a step (from 0): a linear rise over the first `warmup` share, then a linear fall."""
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (steps - step) / (steps - rising)


def means(sums: Sequence[float], entropy_weight: float) -> dict[str, float]:
    """Turn summed `LossSums` into means per query; none of a part that no query had."""
    s = LossSums(*(torch.tensor(value, dtype=torch.float64) for value in sums))
    rows, generated_rows = int(s.rows), int(s.generated_rows)
    result = {"loss": float(s.total(rows, generated_rows, entropy_weight))}
    if rows:
        result["info_nce"] = float(s.info_nce) / rows
    if generated_rows:
        for name in ("entropy", "balance", "generated_mass", "expected_mass"):
            result[name] = float(getattr(s, name)) / generated_rows
    return result


def row_loss(encoder: Encoder, rows: Sequence[TrainingRow], settings: TrainSettings) -> LossSums:
    """Embed rows and compute the sums of their loss, with gradients."""
    batch = pad(rows)
    device = encoder.device
    queries, passages = encoder.embed(batch.queries, "query"), encoder.embed(batch.passages, "passage")
    return loss_sums(
        queries,
        passages[torch.from_numpy(batch.positive).to(device)],
        passages[torch.from_numpy(batch.negatives).to(device)],
        torch.from_numpy(batch.mask).to(device),
        torch.from_numpy(batch.generated).to(device),
        settings.temperature,
        settings.entropy_temperature,
    )


class FlatGradients:
    """All gradients, and behind them the loss sums, in one tensor: one exchange between workers per step."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        total = sum(p.numel() for p in parameters)
        self.flat = torch.zeros(total + len(LossSums._fields), device=parameters[0].device)
        self.gradients, self.sums = self.flat[:total], self.flat[total:]
        start = 0
        for parameter in parameters:
            parameter.grad = self.gradients[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def clip(self, max_norm: float) -> None:
        """Scale the gradients down to a norm, without waiting for the device."""
        self.gradients.mul_((max_norm / (self.gradients.norm() + 1e-6)).clamp(max=1.0))


def _optimizer(encoder: Encoder, settings: TrainSettings) -> torch.optim.Optimizer:
    parameters = [p for p in encoder.model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},  # biases and norms
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, fused=True)


def train(
    rows: Sequence[TrainingRow],
    encoder: Encoder,
    settings: TrainSettings,
    seed: int,
    checkpoints: Path,
    workers: Workers,
    progress: Progress,
) -> Summary:
    """Train the encoder from the newest checkpoint on, or from the start.

    Every worker holds all rows and takes its part of each batch; gradients are summed over workers once per
    step. Knowing the whole batch, each divides by the counts of the whole batch with no exchange.

    Args:
        rows: all rows, the same in every worker.
        encoder: is changed.
        settings: of the stage.
        seed: of the order of rows.
        checkpoints: folder of the training state, the same for all workers.
        workers: this worker and how it reaches the others.
        progress: called by worker 0.
    """
    per_epoch = steps_per_epoch(len(rows), settings.batch_size)
    steps = settings.epochs * per_epoch
    optimizer = _optimizer(encoder, settings)
    history = torch.zeros(settings.epochs, len(LossSums._fields), dtype=torch.float64, device=encoder.device)
    seconds, first = 0.0, 0
    if found := checkpoint.newest(checkpoints):
        state = checkpoint.load(found, encoder.model, optimizer)
        first, seconds = state["step"], state["seconds"]
        history.copy_(torch.tensor(state["history"], dtype=torch.float64))
    flat = FlatGradients([p for g in optimizer.param_groups for p in g["params"]])
    max_texts = _MICRO_TOKENS // settings.max_length

    started, said = time.monotonic(), 0.0
    for step in range(first, steps):
        epoch, number = divmod(step, per_epoch)
        if step == first or number == 0:
            order = row_order(len(rows), seed, epoch).tolist()
        batch = order[number * settings.batch_size : (number + 1) * settings.batch_size]
        generated_rows = sum(any(n.source is Source.GENERATED for n in rows[i].negatives) for i in batch)
        flat.flat.zero_()
        own = [rows[i] for i in worker_slice(batch, workers.rank, workers.size)]
        for part in micro_batches(own, max_texts):
            sums = row_loss(encoder, part, settings)
            sums.total(len(batch), generated_rows, settings.entropy_weight).backward()
            flat.sums += sums.stacked()
        workers.add_up(flat.flat)
        flat.clip(settings.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, settings.warmup, settings.learning_rate)
        optimizer.step()
        history[epoch] += flat.sums

        done, now = step + 1, time.monotonic()
        if workers.rank == 0 and (done % settings.checkpoint_every == 0 or done == steps):
            state = {
                "step": done,
                "epoch": epoch,
                "seconds": seconds + now - started,
                "history": history.tolist(),
            }
            checkpoint.save(checkpoints, done, encoder.model, optimizer, state)
        if workers.rank == 0 and (now - said >= _REPORT_EVERY or done == steps):
            said = now
            progress(done, steps, means(flat.sums.tolist(), settings.entropy_weight)["loss"])

    seconds += time.monotonic() - started
    epochs = [means(sums, settings.entropy_weight) for sums in history.tolist()]
    return Summary(steps, epochs, settings.epochs * len(rows) / max(seconds, 1e-9))
