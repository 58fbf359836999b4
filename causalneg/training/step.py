"""One training step: a batch's loss and its gradients.

The loss is a sum over rows divided by counts of the whole batch, which every worker knows; so gradients of parts add
up to the whole's, and neither the loss nor λ depends on how many workers there are.

- `own` candidates: a row needs no other, so a worker's rows are taken in runs that fit into memory.
- `in_batch`: the rows of a worker compete with one another.
- `global`: the texts of the whole batch are shared out; every worker gets all vectors, computes the whole loss from
  them, which costs next to nothing beside embedding, and passes on the gradient of the vectors it made.
"""

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from causalneg.config import TrainSettings
from causalneg.training.data.batch import Batch, make_batch, row_tokens
from causalneg.training.data.order import groups, shares
from causalneg.training.data.store import Data, Kind
from causalneg.training.encoder.encoder import Encoder
from causalneg.training.objective.loss import Counts, LossSums, Shared, count, loss
from causalneg.training.objective.weights import log_weights, rule_weights
from causalneg.training.passes import Passes
from causalneg.training.workers import Alone, Workers

_HELD_GIB = 2.0  # on a processor


def held_tokens(encoder: Encoder, gib: float | None) -> int:
    """Return how many padded tokens' activations fit into so much memory, at least one.

    It follows from the encoder, the settings and the kind of device alone, not from what memory is free: so a run that
    is resumed elsewhere takes the same parts.
    """
    if gib is None and encoder.device.type == "cuda":
        gib = torch.cuda.get_device_properties(encoder.device).total_memory / 2 / 1024**3
    return max(1, int((_HELD_GIB if gib is None else gib) * 1024**3 / encoder.bytes_per_token()))


def weighted(data: Data, rows: np.ndarray, settings: TrainSettings, progress: float) -> tuple[Batch, np.ndarray]:
    """Return rows as a batch, without negatives of weight 0, and the logarithms of the weights `[rows, width]`.

    Args:
        data: holds the rows.
        rows: their numbers.
        settings: hold the rules.
        progress: share of training done.
    """
    zero = np.flatnonzero(rule_weights(settings.weights, progress) == 0)
    batch = make_batch(data, rows, sum(1 << int(rule) for rule in zero))
    return batch, np.where(batch.mask, log_weights(batch.rules, settings.weights, progress), 0).astype(np.float32)


def _shared(batch: Batch, log_weight: np.ndarray, settings: TrainSettings, vectors: Tensor) -> Shared:
    """Return every passage of the batch as a candidate of every row but those it belongs to."""
    device, rows, passages = vectors.device, len(batch), len(batch.passages)
    mask = np.ones((rows, passages), bool)
    mask[np.arange(rows), batch.positive] = False
    row, place = np.nonzero(batch.mask)
    mask[row, batch.negatives[row, place]] = False
    mask[batch.known[0], batch.known[1]] = False
    generated = np.zeros(passages, bool)
    row, place = np.nonzero(batch.generated)
    generated[batch.negatives[row, place]] = True
    if not settings.loss.share_generated:
        mask &= ~generated
    # A passage that is a negative of several rows, or a positive, has the largest of its weights.
    logs = np.full(passages, -np.inf, np.float32)
    np.maximum.at(logs, batch.positive, 0)
    row, place = np.nonzero(batch.mask)
    np.maximum.at(logs, batch.negatives[row, place], log_weight[row, place])
    return Shared(
        vectors,
        torch.from_numpy(mask).to(device),
        torch.from_numpy(generated).to(device),
        torch.from_numpy(logs).to(device),
    )


class Step:
    """Computes the loss of batches and adds its gradients to the parameters'.

    Args:
        encoder: is trained.
        data: holds rows and tokens.
        settings: of the stage.
        seed: of the random numbers, if dropout is on.
        workers: this worker and how it reaches the others.

    Attributes:
        waited: seconds of the last call in which batches were put together and the encoder waited.
    """

    def __init__(self, encoder: Encoder, data: Data, settings: TrainSettings, seed: int, workers: Workers) -> None:
        self._encoder, self._data, self._settings = encoder, data, settings
        self._seed, self._workers = seed, workers
        self._held_tokens = held_tokens(encoder, settings.held_gib)
        self.waited = 0.0

    def __call__(self, step: int, rows: np.ndarray, progress: float, scale: float | Tensor = 1.0) -> Tensor:
        """Add the gradients of this worker's part of a batch.

        Args:
            step: its number.
            rows: numbers of the whole batch's rows.
            progress: share of training done, for the weights.
            scale: the loss is multiplied by it before gradients are taken.

        Returns:
            this worker's part of `LossSums.stacked()`; over all workers the parts add up.
        """
        started = time.monotonic()
        batch, logs = weighted(self._data, rows, self._settings, progress)
        counts = count(batch.mask, batch.generated, batch.teacher)
        parts = list(self._own(rows))
        self.waited = time.monotonic() - started
        sums = torch.zeros(len(LossSums._fields), device=self._encoder.device)
        if self._settings.loss.candidates == "global":
            found = self._part(batch, logs, counts, self._workers, (self._seed, step, self._workers.rank), scale)
            return found if self._workers.rank == 0 else sums  # each has computed the whole
        for number, part in enumerate(parts):
            started = time.monotonic()
            batch, logs = weighted(self._data, part, self._settings, progress)
            self.waited += time.monotonic() - started
            sums += self._part(batch, logs, counts, Alone(), (self._seed, step, self._workers.rank, number), scale)
        return sums

    def _own(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Give this worker's rows, those that compete with one another together."""
        tokens = row_tokens(self._data, rows)
        own = shares(tokens, self._workers.size)[self._workers.rank]
        if not len(own):
            return
        if self._settings.loss.candidates == "in_batch":
            yield rows[own]
            return
        for run in groups(tokens[own], self._held_tokens):
            yield rows[own[run]]

    def _part(
        self, batch: Batch, logs: np.ndarray, counts: Counts, workers: Workers, seed: object, scale: float | Tensor
    ) -> Tensor:
        """Add the gradients of rows whose texts are embedded by `workers` together."""
        device, settings = self._encoder.device, self._settings
        all_texts: dict[Kind, np.ndarray] = {"query": batch.queries, "passage": batch.passages}
        own = {k: shares(self._data.lengths(k, n), workers.size)[workers.rank] for k, n in all_texts.items()}
        passes = Passes(
            self._encoder, self._data, {k: n[own[k]] for k, n in all_texts.items()}, self._held_tokens, seed
        )
        places = {k: torch.from_numpy(p).to(device) for k, p in own.items()}
        vectors: dict[Kind, Tensor] = {}
        for kind, made in passes.forward().items():
            vectors[kind] = torch.zeros(len(all_texts[kind]), made.shape[1], device=device)
            vectors[kind][places[kind]] = made
            workers.add_up(vectors[kind])
            vectors[kind].requires_grad_()
        passages = vectors["passage"]
        total, sums = loss(
            vectors["query"],
            passages[torch.from_numpy(batch.positive).to(device)],
            passages[torch.from_numpy(batch.negatives).to(device)],
            torch.from_numpy(batch.mask).to(device),
            torch.from_numpy(batch.generated).to(device),
            settings.loss,
            log_weight=torch.from_numpy(logs).to(device) if settings.weights else None,
            teacher=torch.from_numpy(batch.teacher).to(device) if settings.loss.distillation != "none" else None,
            shared=None if settings.loss.candidates == "own" else _shared(batch, logs, settings, passages),
            counts=counts,
        )
        (total * scale).backward()
        passes.backward({k: _gradient(v)[places[k]] for k, v in vectors.items()})
        return sums.stacked()


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
