"""Trains FAISS indexes on a sample of the corpus's vectors and fills them block by block."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from causalneg.errors import UserError
from causalneg.indexing.kinds import KINDS, Kind, new_index, training_rows

if TYPE_CHECKING:
    import faiss

_SEED = 0
Block = TypeVar("Block", np.ndarray, pa.RecordBatch)


@dataclass(frozen=True)
class CorpusVectors:
    """The vectors to index, as often as they are needed.

    Attributes:
        read: streams them in blocks, float32 `[rows, dimension]`, in the order of the corpus.
        rows: how many there are.
        name: from a row to how errors call its passage.
    """

    read: Callable[[], Iterable[np.ndarray]]
    rows: int
    name: Callable[[int], str] = str

    def blocks(self) -> Iterator[np.ndarray]:
        """Stream the vectors.

        Raises:
            UserError: one of them cannot be found by a search: it is not finite, of length 0 or of another size.
            ValueError: there are more or fewer than `rows`.
        """
        start, dimension = 0, None
        for block in self.read():
            block = np.ascontiguousarray(block, dtype=np.float32)
            dimension = dimension or block.shape[1]
            if block.shape[1] != dimension:
                raise self._refused(start, f"has {block.shape[1]} dimensions, those before it have {dimension}")
            squares = np.einsum("ij,ij->i", block, block)
            if not np.isfinite(squares).all():
                raise self._refused(start + int(np.argmin(np.isfinite(squares))), "holds NaN or infinity")
            if not squares.all():
                raise self._refused(start + int(np.argmin(squares)), "has length 0")
            start += len(block)
            yield block
        if start != self.rows:
            raise ValueError(f"{start} vectors for {self.rows} passages")

    def _refused(self, row: int, why: str) -> UserError:
        return UserError(
            f"The vector of passage {self.name(row)} (row {row}) {why}, so that no search would find it; "
            "look at its text, train the encoder again, or name another."
        )

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return the vectors of some rows, whose numbers ascend, float32 `[numbers, dimension]`."""
        taken, start = [], 0
        for block in self.blocks():
            first, last = np.searchsorted(numbers, [start, start + len(block)])
            taken.append(block[numbers[first:last] - start])
            start += len(block)
        return np.concatenate(taken)

    def sample(self, count: int, seed: int) -> np.ndarray:
        """Return the vectors of `count` rows drawn by seed, or of all rows if there are no more."""
        drawn = np.random.default_rng(seed).choice(self.rows, min(count, self.rows), replace=False)
        return self.take(np.sort(drawn))


def by_shard(blocks: Iterable[Block], sizes: Sequence[int]) -> Iterator[tuple[int, Block]]:
    """Cut blocks of rows where shards end; yield the parts, each with its shard. The last shard takes the rest."""
    ends = np.cumsum(sizes)
    shard = row = 0
    for block in blocks:
        left = block
        while len(left):
            if row == ends[shard] and shard + 1 < len(ends):
                shard += 1
            room = len(left) if shard + 1 == len(ends) else int(ends[shard]) - row
            yield shard, left[:room]
            row += min(room, len(left))
            left = left[room:]


class Filler:
    """Makes indexes of several kinds from the same vectors; what they share is computed once.

    Args:
        corpus: the vectors.
        shards: rows of each shard.
        gpu: train and fill on a GPU what FAISS has there.

    Raises:
        UserError: a GPU is wanted, and FAISS has none.
    """

    def __init__(self, corpus: CorpusVectors, shards: Sequence[int], gpu: bool = False) -> None:
        self.corpus, self.shards, self._gpu = corpus, shards, gpu
        self._sample: np.ndarray | None = None
        self._centroids: np.ndarray | None = None
        if gpu:
            _require_gpu()

    def fill(self, kind: Kind) -> list["faiss.Index"]:
        """Return the filled index of each shard, all trained alike."""
        import faiss

        empty = self._trained(kind)
        indexes = []
        for _, parts in groupby(by_shard(self.corpus.blocks(), self.shards), key=itemgetter(0)):
            index = self._placed(faiss.clone_index(empty), kind)
            for _, part in parts:
                index.add(part)
            indexes.append(faiss.index_gpu_to_cpu(index) if self._on_gpu(kind) else index)
        return indexes

    def _trained(self, kind: Kind) -> "faiss.Index":
        import faiss

        rows = max(self.shards)
        if self._sample is None:
            self._sample = self.corpus.sample(training_rows(rows), _SEED)
        index = new_index(kind, rows, self._sample.shape[1])
        if index.is_trained:
            return index
        inverted = faiss.try_extract_index_ivf(index)
        if inverted and self._centroids is not None:
            inverted.quantizer.add(self._centroids)  # so that k-means is not run again
        index = self._placed(index, kind)
        index.train(self._sample)
        if self._on_gpu(kind):
            index = faiss.index_gpu_to_cpu(index)
        if inverted:
            quantizer = faiss.extract_index_ivf(index).quantizer
            self._centroids = quantizer.reconstruct_n(0, quantizer.ntotal)
        return index

    def _on_gpu(self, kind: Kind) -> bool:
        return self._gpu and KINDS[kind].gpu

    def _placed(self, index: "faiss.Index", kind: Kind) -> "faiss.Index":
        import faiss

        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index) if self._on_gpu(kind) else index


def _require_gpu() -> None:
    import faiss

    if not faiss.get_num_gpus():
        raise UserError(
            f"index.gpu: the installed FAISS ({faiss.__version__}) finds no GPU; install causalneg[gpu] on a machine "
            "that has one, or leave index.gpu off."
        )
