"""The mine stage: BM25 and dense candidates of every train query, filtered."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from causalneg.config import Config
from causalneg.console import Reporter
from causalneg.embedding import embed_corpus, encode, flat_index, load_encoder, load_vectors
from causalneg.errors import UserError
from causalneg.mining.candidates import Hits, search_bm25, search_dense
from causalneg.mining.filters import Candidate, decide
from causalneg.models import resolve
from causalneg.records import Mined, Passage, Query
from causalneg.workspace import PART_ROWS, Counts, Manifest, Workspace

if TYPE_CHECKING:
    import faiss


def _candidates(
    ids: list[str],
    index: "faiss.IndexFlatIP",
    query: np.ndarray,
    bm25: tuple[np.ndarray, np.ndarray],
    dense: np.ndarray,
) -> list[Candidate]:
    """Join one query's BM25 and dense hits; a passage that only BM25 found gets its cosine, too."""
    bm25_at = {
        int(row): (rank, float(score)) for rank, (row, score) in enumerate(zip(*bm25, strict=True), 1) if score > 0
    }
    dense_at = {int(row): rank for rank, row in enumerate(dense, 1)}
    rows = sorted(bm25_at.keys() | dense_at.keys())
    cosines = index.reconstruct_batch(np.asarray(rows, dtype=np.int64)) @ query
    found = []
    for row, cosine in zip(rows, cosines, strict=True):
        rank, score = bm25_at.get(row, (None, None))
        found.append(Candidate(ids[row], rank, score, dense_at.get(row), float(cosine)))
    return found


def run(config: Config, workspace: Workspace, report: Reporter) -> Manifest:
    """Mine negatives for every train query into `mined`.

    Raises:
        UserError: import is not done, the encoder does not exist, or there is nothing to train on.
    """
    workspace.require("import")
    model = resolve(config.encoder)
    determines = {"mine": config.mine, "encoder": model.fingerprint}
    stage = workspace.begin("mine", determines, inputs=["import"])
    if stage.done:
        report.line(f"mine: already done ({stage.done.counts.accepted} negatives)")
        return stage.done
    settings = config.mine
    positives = workspace.positives("train")
    if not positives:
        raise UserError("No train query has a positive; import data with relevance judgements of a split named train.")
    queries = [q for q in workspace.read_rows("queries", Query) if q.id in positives]
    texts = [q.text for q in queries]
    index = flat_index(load_vectors(workspace, embed_corpus(workspace, model, config.embed_batch_size, report)))
    corpus = list(workspace.read_rows("corpus", Passage))
    ids = [p.id for p in corpus]
    row_of = {passage_id: row for row, passage_id in enumerate(ids)}
    bm25 = search_bm25([p.full_text for p in corpus], texts, settings.depth)
    vectors = encode(load_encoder(model), texts, "query", config.embed_batch_size)
    dense: Hits = search_dense(index, vectors, settings.depth)

    verdicts: Counter[str] = Counter()
    with report.meter("mining", len(queries), "queries") as meter:
        rows: list[Mined] = []
        parts = 0
        for at, query in enumerate(queries):
            own = positives[query.id]
            own_vectors = index.reconstruct_batch(np.asarray([row_of[p] for p in own], dtype=np.int64))
            positive_score = float((own_vectors @ vectors[at]).min())
            found = _candidates(ids, index, vectors[at], (bm25.rows[at], bm25.scores[at]), dense.rows[at])
            rows += decide(query.id, found, own, positive_score, settings.relative_margin, settings.num_negatives)
            meter.advance()
            if len(rows) >= PART_ROWS or at == len(queries) - 1:
                verdicts.update(r.rejected_by or "accepted" for r in rows)
                workspace.write_rows("mined", f"part-{parts:06d}", Mined, rows)
                rows, parts = [], parts + 1
    total, accepted = verdicts.total(), verdicts["accepted"]
    report.line(f"mine: {accepted} negatives for {len(queries)} queries, out of {total} candidates")
    counts = Counts(rows_in=total, accepted=accepted, rejected=total - accepted)
    return stage.finish(counts, details={"queries": len(queries), "verdicts": dict(sorted(verdicts.items()))})
