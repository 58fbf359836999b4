"""Looks at the encoder while it is trained: nDCG@10 on dev queries, and diagnostics of rows with their negatives.

The texts are shared out to all workers, so that none waits longer than it must.
"""

import time

import numpy as np
import torch
from torch import Tensor

from causalneg.config import TrainSettings
from causalneg.records import content_id
from causalneg.training.data.batch import make_batch
from causalneg.training.data.order import shares
from causalneg.training.data.store import Data, Kind
from causalneg.training.diagnostics.figures import measure
from causalneg.training.encoder.encoder import Encoder
from causalneg.training.workers import Workers

_DIAGNOSED = 64  # rows whose negatives are looked at
_CUTOFF = 10
MEASURE = f"nDCG@{_CUTOFF}"


def embed_together(encoder: Encoder, data: Data, kind: Kind, numbers: np.ndarray, workers: Workers) -> Tensor:
    """Embed texts with all workers, without gradients and dropout.

    Returns:
        fp32 `[numbers, dim]`, in every worker.

    Raises:
        FloatingPointError: one of them is not finite; every worker raises it.
    """
    vectors = torch.zeros(len(numbers), encoder.dimension, device=encoder.device)
    lengths = data.lengths(kind, numbers)
    own = shares(lengths, workers.size)[workers.rank]
    dropout, encoder.dropout = encoder.dropout, False
    try:
        with torch.no_grad():
            for chunk in encoder.chunks(lengths[own].tolist()):
                places = own[chunk]
                vectors[torch.from_numpy(places).to(encoder.device)] = encoder.embed(
                    data.tokens(kind, numbers[places]), kind
                )
    finally:
        encoder.dropout = dropout
    workers.add_up(vectors)
    if not vectors.isfinite().all():
        raise FloatingPointError(f"a vector of a {kind} is not finite")
    return vectors


class Dev:
    """What is watched: the same queries, passages and rows at each evaluation.

    Args:
        encoder: is trained.
        data: holds the dev queries and the rows; rows held out are diagnosed, train rows where there are none.
        settings: of the stage.
        seed: draws the rows and the confidence interval.
        workers: this worker and how it reaches the others.
    """

    def __init__(self, encoder: Encoder, data: Data, settings: TrainSettings, seed: int, workers: Workers) -> None:
        self._encoder, self._data, self._settings, self._seed, self._workers = encoder, data, settings, seed, workers
        rows = data["rows.held_out"] if len(data["rows.held_out"]) else data["rows.train"]
        draw = np.random.default_rng(int(content_id("diagnosed", seed), 16))
        self._rows = np.sort(draw.choice(np.asarray(rows), min(_DIAGNOSED, len(rows)), replace=False))

    def __call__(self) -> dict[str, float]:
        """Return nDCG@10, if there are dev queries, the diagnostics, and the seconds it took.

        Raises:
            FloatingPointError: a vector is not finite.
        """
        started = time.monotonic()
        found = self._retrieval() | {f"diagnostics/{name}": value for name, value in self._diagnostics().items()}
        return found | {"seconds": time.monotonic() - started}

    def _retrieval(self) -> dict[str, float]:
        from sklearn.metrics import ndcg_score

        queries, passages = self._data["dev.query"], self._data["dev.passage"]
        if not len(queries):
            return {}
        scores = (self._embed("query", queries) @ self._embed("passage", passages).T).cpu()
        relevant = np.zeros(scores.shape)
        pairs = self._data["dev.relevant"].reshape(-1, 2)
        relevant[pairs[:, 0], pairs[:, 1]] = 1
        # Every worker goes by the first one's figure: another machine may round otherwise.
        value = torch.zeros(1, dtype=torch.float64, device=self._encoder.device)
        if self._workers.rank == 0:
            value += float(ndcg_score(relevant, scores.numpy(), k=_CUTOFF))
        self._workers.add_up(value)
        return {MEASURE: float(value)}

    def _diagnostics(self) -> dict[str, float]:
        batch = make_batch(self._data, self._rows)
        queries, passages = self._embed("query", batch.queries), self._embed("passage", batch.passages)
        if self._workers.rank:
            return {}
        figures = measure(
            queries.cpu(),
            passages[batch.positive].cpu(),
            passages[batch.negatives].cpu(),
            torch.from_numpy(batch.mask),
            torch.from_numpy(batch.generated),
            self._settings.loss,
            self._seed,
        )
        return {name: value for name, value in figures.model_dump().items() if value is not None}

    def _embed(self, kind: Kind, numbers: np.ndarray) -> Tensor:
        return embed_together(self._encoder, self._data, kind, numbers, self._workers)
