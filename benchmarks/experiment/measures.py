"""What is measured of an encoder: retrieval, pairs of a contrast set, planted counterfactuals, and its diagnostics."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import BaseModel

from benchmarks.experiment.arms import COUNTERFACTUAL
from benchmarks.experiment.examples import Example
from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.evaluation.contrast import ContrastPair, score_pairs
from causalneg.evaluation.metrics import compute
from causalneg.evaluation.search import exact_search
from causalneg.models import ResolvedModel
from causalneg.records import Qrel, Query
from causalneg.training.diagnostics.figures import Figures, measure
from causalneg.vectors import embed_corpus
from causalneg.workspace import Workspace


class Measured(BaseModel):
    """What an encoder reaches.

    Attributes:
        retrieval: measure to query to value, on the test split.
        contrast: by pair, by how much the positive's cosine is above the counterfactual's.
        planted: by held-out query, how many of its own counterfactuals are above its positive.
        figures: of held-out queries with their mined and counterfactual negatives.
        seconds: what measuring took.
    """

    retrieval: dict[str, dict[str, float]]
    contrast: list[float]
    planted: dict[str, int]
    figures: Figures
    seconds: float


class Held(NamedTuple):
    """Texts of the held-out pairs."""

    query_ids: list[str]
    queries: list[str]
    positives: list[str]
    mined: list[list[str]]
    generated: list[list[str]]


def held_texts(workspace: Workspace, examples: Sequence[Example], mined: int) -> Held:
    """Look up the texts of held-out pairs, with so many mined negatives of each and all its counterfactuals."""
    wanted = {e.query_id for e in examples}
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query) if q.id in wanted}
    ids = {e.positive_id for e in examples} | {m.passage_id for e in examples for m in e.mined[:mined]}
    passages = {number: passage.full_text for number, passage in workspace.passages(ids).items()}
    return Held(
        [e.query_id for e in examples],
        [queries[e.query_id] for e in examples],
        [passages[e.positive_id] for e in examples],
        [[passages[m.passage_id] for m in e.mined[:mined]] for e in examples],
        [[n.full_text for n in e.generated[COUNTERFACTUAL]] for e in examples],
    )


def _retrieval(
    model: ResolvedModel, workspace: Workspace, config: Config, report: Reporter
) -> dict[str, dict[str, float]]:
    qrels: dict[str, dict[str, int]] = {}
    for qrel in workspace.read_rows("qrels", Qrel):
        if qrel.split == config.evaluate.split:
            qrels.setdefault(qrel.query_id, {})[qrel.passage_id] = qrel.score
    queries = {q.id: q.text for q in workspace.read_rows("queries", Query) if q.id in qrels}
    corpus = embed_corpus(workspace, model, config.encode, report)
    vectors = encode(load_encoder(model), list(queries.values()), "query", config.encode.batch_size)
    hits = exact_search(vectors, corpus, workspace.column("corpus", "id"), config.evaluate.depth, report)
    return compute(config.evaluate.measures, qrels, dict(zip(queries, hits, strict=True))).per_query


def _embedded(model: ResolvedModel, texts: Sequence[Sequence[str]], batch_size: int) -> list[np.ndarray]:
    """Encode lists of passages together; return an array for each list."""
    flat = [text for own in texts for text in own]
    vectors = encode(load_encoder(model), flat, "passage", batch_size, "fp32")
    return np.split(vectors, np.cumsum([len(own) for own in texts])[:-1])


def _held(model: ResolvedModel, held: Held, config: Config) -> tuple[dict[str, int], Figures]:
    """Measure planted counterfactuals and the diagnostics."""
    queries = encode(load_encoder(model), held.queries, "query", config.encode.batch_size)
    positives = np.concatenate(_embedded(model, [[p] for p in held.positives], config.encode.batch_size))
    negatives = [m + g for m, g in zip(held.mined, held.generated, strict=True)]
    vectors = _embedded(model, negatives, config.encode.batch_size)
    width = max(map(len, negatives))
    padded = np.zeros((len(queries), width, queries.shape[1]), np.float32)
    mask, generated = (np.zeros((len(queries), width), bool) for _ in range(2))
    for at, (own, mined) in enumerate(zip(vectors, held.mined, strict=True)):
        padded[at, : len(own)] = own
        mask[at, : len(own)] = True
        generated[at, len(mined) : len(own)] = True
    of_positive = (queries * positives).sum(axis=1)
    above = (np.einsum("rd,rnd->rn", queries, padded) >= of_positive[:, None]) & generated
    planted = dict(zip(held.query_ids, above.sum(axis=1).tolist(), strict=True))
    q, p, n, m, g = (torch.from_numpy(a) for a in (queries, positives, padded, mask, generated))
    return planted, measure(q, p, n, m, g, config.train.loss, config.seed)


def measure_encoder(
    model: ResolvedModel,
    workspace: Workspace,
    held: Held,
    contrast: Sequence[ContrastPair],
    config: Config,
    report: Reporter,
) -> Measured:
    """Measure an encoder; the corpus's vectors under it lie in the workspace afterwards."""
    started = time.monotonic()
    retrieval = _retrieval(model, workspace, config, report)
    planted, figures = _held(model, held, config)
    margins: list[float] = []
    if contrast:
        scores = score_pairs(load_encoder(model), contrast, config.encode.batch_size)
        margins = (scores[:, 0] - scores[:, 1]).astype(float).tolist()
    return Measured(
        retrieval=retrieval, contrast=margins, planted=planted, figures=figures, seconds=time.monotonic() - started
    )
