"""BM25 with bm25s over shards of the corpus; scores are those of one index over the whole of it."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from causalneg.bm25 import Words, build
from causalneg.hits import Hits, no_hits
from causalneg.workspace import Workspace

if TYPE_CHECKING:
    import bm25s

_LENGTHS, _FREQUENCIES, _STATISTICS = "lengths.npy", "corpus_frequencies.npy", "statistics.json"


class Statistics(BaseModel):
    """What BM25 needs to know of the whole corpus beside the words' frequencies."""

    passages: int
    mean_length: float


def rescale(index: "bm25s.BM25", lengths: np.ndarray, frequencies: np.ndarray, statistics: Statistics) -> None:
    """Turn a shard's scores into those that the same passages have in an index over the whole corpus.

    A score is idf · tf / (K + tf) with K = k1 · (1 - b + b · length / mean length). The shard's own idf and K
    give back tf, a whole number, and so the score under the corpus's idf and K without reading a text again.

    Args:
        index: of the shard; changed in place.
        lengths: words of each of its passages, int64 `[passages]`.
        frequencies: passages of the whole corpus that hold each word of the shard, int64 `[words]`.
        statistics: of the whole corpus.
    """
    scores = index.scores
    own_frequencies = np.diff(scores["indptr"])

    def idf(df: np.ndarray, passages: int) -> np.ndarray:
        return np.log(1 + (passages - df + 0.5) / (df + 0.5))

    def saturation(mean_length: float) -> np.ndarray:
        return index.k1 * (1 - index.b + index.b * lengths[scores["indices"]] / mean_length)

    own_idf = np.repeat(idf(own_frequencies, len(lengths)), own_frequencies)
    share = scores["data"].astype(np.float64) / own_idf
    counts = np.rint(saturation(float(lengths.mean())) * share / (1 - share))
    corpus_idf = np.repeat(idf(frequencies, statistics.passages), own_frequencies)
    scores["data"] = (corpus_idf * counts / (saturation(statistics.mean_length) + counts)).astype(np.float32)


def search(index: "bm25s.BM25 | None", queries: Sequence[Sequence[str]], depth: int) -> Hits:
    """Return the passages with the highest scores, those that share no word with the query left out.

    Args:
        index: of a shard; None holds nothing.
        queries: each as its words.
        depth: passages per query.
    """
    if index is None:
        return no_hits(len(queries))
    rows, scores = index.retrieve(
        [list(q) for q in queries], k=min(depth, index.scores["num_docs"]), show_progress=False
    )
    return Hits(np.where(scores > 0, rows, -1).astype(np.int64), np.asarray(scores, dtype=np.float32))


class Bm25Index:
    """The kept BM25 index of a corpus: a folder per shard, written once.

    Args:
        workspace: where it lies.
        folder: its folder there; named by the corpus, its shards and the language.
        words: how texts and queries are cut.
    """

    def __init__(self, workspace: Workspace, folder: str, words: Words) -> None:
        self.workspace, self.folder, self.words = workspace, folder, words

    def _path(self, shard: int, name: str) -> str:
        return f"{self.folder}/{shard:05d}/{name}"

    def holds(self, shard: int) -> bool:
        """Whether a shard is written whole."""
        return self.workspace.exists(self._path(shard, _LENGTHS))

    def write(self, shard: int, texts: Sequence[str]) -> None:
        """Index a shard and keep it; the lengths come last and make it valid."""
        index, lengths = build(texts, self.words)
        if index is not None:
            with tempfile.TemporaryDirectory() as folder:
                index.save(folder, show_progress=False)
                for file in sorted(Path(folder).iterdir()):
                    self.workspace.write_bytes(self._path(shard, file.name), file.read_bytes())
        self.workspace.write_array(self._path(shard, _LENGTHS), lengths)

    def join(self, shards: int) -> None:
        """Count words over all shards, so that each can score as part of the whole corpus."""
        if self.workspace.exists(f"{self.folder}/{_STATISTICS}"):
            return
        total: dict[str, int] = {}
        passages = words = 0
        for shard in range(shards):
            lengths = self.workspace.read_array(self._path(shard, _LENGTHS))
            passages, words = passages + len(lengths), words + int(lengths.sum())
            for word, count in self._own_frequencies(shard).items():
                total[word] = total.get(word, 0) + count
        for shard in range(shards):
            own = self._own_frequencies(shard)
            self.workspace.write_array(
                self._path(shard, _FREQUENCIES), np.array([total[w] for w in own], dtype=np.int64)
            )
        statistics = Statistics(passages=passages, mean_length=words / max(1, passages))
        self.workspace.write_bytes(f"{self.folder}/{_STATISTICS}", statistics.model_dump_json().encode())

    def _own_frequencies(self, shard: int) -> dict[str, int]:
        """Return the passages of a shard that hold each of its words, in the order of bm25s's ids."""
        if not self.workspace.exists(self._path(shard, "vocab.index.json")):
            return {}
        vocabulary = json.loads(self.workspace.read_bytes(self._path(shard, "vocab.index.json")))
        counts = np.diff(self.workspace.read_array(self._path(shard, "indptr.csc.index.npy")))
        ids = np.array(list(vocabulary.values()))
        words = np.array(list(vocabulary.keys()), dtype=object)[np.argsort(ids)]
        return dict(zip(words.tolist(), counts.tolist(), strict=False))

    def load(self, shard: int) -> "bm25s.BM25 | None":
        """Return the index of a shard with the scores it has in the whole corpus; None where it has no words."""
        import bm25s

        names = self.workspace.list_files([f"{self.folder}/{shard:05d}"])
        if self._path(shard, "params.index.json") not in names:
            return None
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                (Path(folder) / Path(name).name).write_bytes(self.workspace.read_bytes(name))
            index = bm25s.BM25.load(folder, load_corpus=False, allow_pickle=False, show_progress=False)
        statistics = Statistics.model_validate_json(self.workspace.read_bytes(f"{self.folder}/{_STATISTICS}"))
        lengths = self.workspace.read_array(self._path(shard, _LENGTHS))
        if len(lengths) < statistics.passages:
            frequencies = self.workspace.read_array(self._path(shard, _FREQUENCIES))
            rescale(index, lengths, frequencies, statistics)
        return index
