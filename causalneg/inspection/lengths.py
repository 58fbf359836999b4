"""How long the texts are, in words."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg.inspection.findings import Lengths
from causalneg.inspection.folders import count_rows, read_columns
from causalneg.workspace import Workspace

MOST_TEXTS = 50_000  # texts of a folder that are measured; of more, every n-th is


def _measure(what: str, words: Sequence[np.ndarray], of: int) -> list[Lengths]:
    """Sum up lengths; nothing where there are none."""
    lengths = np.concatenate([np.zeros(0, np.int64), *words])
    if not len(lengths):
        return []
    low, median, high, longest = np.percentile(lengths, [0, 50, 95, 100], method="nearest").astype(int).tolist()
    return [Lengths(what=what, texts=len(lengths), of=of, min=low, median=median, p95=high, max=longest)]


def _spread(batches: Iterator[pa.RecordBatch], total: int) -> Iterator[pa.RecordBatch]:
    """Take every n-th row, so that at most about `MOST_TEXTS` are left."""
    step = -(-total // MOST_TEXTS) or 1
    start = 0
    for batch in batches:
        yield batch.take(pa.array(np.arange(-start % step, batch.num_rows, step)))
        start += batch.num_rows


def count_words(texts: pa.Array) -> np.ndarray:
    """Count what white space divides in each text."""
    return pc.count_substring_regex(texts, r"\S+").to_numpy(zero_copy_only=False)


def find_lengths(workspace: Workspace, positives: pa.Array, mined: pa.Array) -> list[Lengths]:
    """Measure queries, passages, those among them that are train positives or mined negatives, and generated ones.

    Args:
        workspace: is only read.
        positives: ids of the positives of train.
        mined: ids of the passages that were mined as negatives.
    """
    total = sum(count_rows(workspace, "queries").values())
    queries = [
        count_words(batch.column("text")) for batch in _spread(read_columns(workspace, "queries", ["text"]), total)
    ]
    found = _measure("queries", queries, total)

    total = sum(count_rows(workspace, "corpus").values())
    ids: list[pa.Array] = [pa.array([], pa.string())]
    lengths: list[np.ndarray] = []
    for batch in _spread(read_columns(workspace, "corpus", ["id", "title", "text"]), total):
        ids.append(batch.column("id"))
        lengths.append(count_words(batch.column("title")) + count_words(batch.column("text")))
    found += _measure("passages", lengths, total)
    for what, wanted in (("train positives", positives), ("mined negatives", mined)):
        mask = pc.is_in(pa.concat_arrays(ids), value_set=wanted).to_numpy(zero_copy_only=False)
        found += _measure(what, [np.concatenate(lengths)[mask]] if lengths else [], len(wanted))

    generated: list[np.ndarray] = []
    for batch in read_columns(workspace, "negatives", ["title", "text", "verdict"]):
        kept = batch.filter(pc.equal(batch.column("verdict"), "accepted"))
        generated.append(count_words(kept.column("title")) + count_words(kept.column("text")))
    return found + _measure("generated negatives", generated, sum(map(len, generated)))
