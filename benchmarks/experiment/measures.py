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
from causalneg.evaluation.judged import read_judged
from causalneg.evaluation.metrics import compute
from causalneg.evaluation.planted import planted_above
from causalneg.evaluation.run import retrieve
from causalneg.models import ResolvedModel
from causalneg.records import Query
from causalneg.training.diagnostics.figures import Figures, measure
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
    passage_ids = workspace.column("corpus", "id")
    judged = read_judged(workspace, config.evaluate.split, passage_ids, "evaluate.split")
    run = retrieve(config, workspace, report, model, judged.texts, passage_ids)
    return compute(config.evaluate.measures, judged.qrels, run).per_query


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
    of_positives = dict(zip(held.query_ids, (queries * positives).sum(axis=1).tolist(), strict=True))
    cosines = np.einsum("rd,rnd->rn", queries, padded)
    planted = {q: cosines[at, generated[at]].tolist() for at, q in enumerate(held.query_ids)}
    q, p, n, m, g = (torch.from_numpy(a) for a in (queries, positives, padded, mask, generated))
    return planted_above(of_positives, planted).per_query, measure(q, p, n, m, g, config.train.loss, config.seed)


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
