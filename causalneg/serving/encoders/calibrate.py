"""Compares backends on this machine: how near their vectors are to the model's own, and how fast they come."""

import time
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from causalneg.serving.encoders.encoder import DType, Encoder
from causalneg.serving.encoders.samples import PASSAGES, QUERIES

COSINE_GATE = 0.999  # a backend with a lower one finds other passages
_BATCH = 16  # queries
_ROUNDS = 7
_SECONDS = 30.0  # after which slow models get no further round

# The texts of each kind by the name of their prompt.
TEXTS: dict[str, tuple[str, ...]] = {"query": QUERIES, "document": PASSAGES}


class Figures(BaseModel):
    """What was measured of a backend.

    Attributes:
        backend: its name.
        dtype: of its products.
        cosine: smallest one between a text's vector and the model's own.
        query_ms: time of one query alone, median.
        batch_ms: time of 16 queries together, median.
    """

    model_config = ConfigDict(frozen=True)

    backend: str
    dtype: DType
    cosine: float
    query_ms: float
    batch_ms: float

    @property
    def queries_per_second(self) -> float:
        """Pace of 16 queries together."""
        return 1000 * _BATCH / self.batch_ms

    @property
    def latency(self) -> float:
        """What decides: milliseconds of a query alone and of one among 16, half each."""
        return (self.query_ms + self.batch_ms / _BATCH) / 2


def embed_samples(encoder: Encoder) -> np.ndarray:
    """Encode the sample with its prompts.

    Some texts are encoded alone, the others together: a conversion may hold for one shape only.

    Returns:
        float32 `[samples, dimension]`, rows of length 1, in the order of `TEXTS`.
    """
    parts = []
    for kind, texts in TEXTS.items():
        tokens = [found.ids for found in encoder.tokenise(texts, encoder.prompts[kind])]
        alone = len(tokens) // 4
        parts += [*(encoder.encode([ids]) for ids in tokens[:alone]), encoder.encode(tokens[alone:])]
    return np.concatenate(parts)


def agreement(encoder: Encoder, own: np.ndarray) -> float:
    """Return the smallest cosine between a sample's vectors by an encoder and by the model itself.

    Raises:
        EncoderFailed: the encoder gives NaN, infinity or zeros.
    """
    return float(np.einsum("ij,ij->i", embed_samples(encoder).astype(np.float64), own.astype(np.float64)).min())


def measure(cosines: Mapping[Encoder, float]) -> list[Figures]:
    """Time encoders that agree so far with the model.

    They take turns in each round, so that a busy machine is busy for all of them.
    """
    tokens = [[found.ids for found in e.tokenise(QUERIES, e.prompts["query"])] for e in cosines]
    times: list[list[tuple[float, float]]] = [[] for _ in cosines]
    started = time.monotonic()
    for number in range(_ROUNDS):
        for encoder, queries, own in zip(cosines, tokens, times, strict=True):
            alone, first = queries[number + 2], number % 2 * _BATCH
            encoder.encode([alone])  # a shape met for the first time takes longer
            own.append((_seconds(encoder, [alone]), _seconds(encoder, queries[first : first + _BATCH])))
        if time.monotonic() - started > _SECONDS:
            break
    medians = [np.median(own, axis=0) * 1000 for own in times]
    return [
        Figures(backend=e.name, dtype=e.dtype, cosine=cosine, query_ms=float(alone), batch_ms=float(batch))
        for (e, cosine), (alone, batch) in zip(cosines.items(), medians, strict=True)
    ]


def _seconds(encoder: Encoder, ids: list[list[int]]) -> float:
    started = time.perf_counter()
    encoder.encode(ids)
    return time.perf_counter() - started


def summary(chosen: Figures, fp32: Figures) -> str:
    """Return what was chosen, and why, for people."""
    pace = f"{chosen.query_ms:.1f} ms a query, {chosen.queries_per_second:,.0f} queries/s"
    beside = "" if chosen == fp32 else f"; {fp32.backend} {fp32.query_ms:.1f} ms"
    return f"{chosen.backend} ({pace}{beside}; cosine {chosen.cosine:.5f})"
