"""The queries that recall is measured with when an index is built."""

import numpy as np

from causalneg.config import Config
from causalneg.embedding import encode, load_encoder
from causalneg.models import ResolvedModel
from causalneg.records import Qrel, Query
from causalneg.workspace import Workspace

_LEARNT = "train"  # split whose queries the encoder knows


def held_out(config: Config, workspace: Workspace, model: ResolvedModel) -> np.ndarray | None:
    """Return the vectors of queries that recall is measured with, or None where there are none.

    Queries of the train split are taken only where there are no others: an encoder is better at those.
    """
    splits: dict[str, set[str]] = {}
    for qrel in workspace.read_rows("qrels", Qrel):
        splits.setdefault(qrel.query_id, set()).add(qrel.split)
    queries = list(workspace.read_rows("queries", Query))
    unseen = [query for query in queries if _LEARNT not in splits.get(query.id, ())] or queries
    if not unseen:
        return None
    count = min(config.index.tune_queries, len(unseen))
    drawn = np.random.default_rng(config.seed).choice(len(unseen), count, replace=False)
    encoder = load_encoder(model)
    return encode(encoder, [unseen[at].text for at in np.sort(drawn)], "query", config.encode.batch_size)
