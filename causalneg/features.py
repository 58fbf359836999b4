"""Arrays computed from passages' texts, kept by text: nothing is computed twice for the same words."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from causalneg.console import Reporter
from causalneg.records import full_text
from causalneg.runtime import spread
from causalneg.workspace import Workspace

_SLICE_ROWS = 1024  # passages computed and written at a time: what a killed run loses at most
_BLOCK_ROWS = 8192  # passages whose arrays are handed out at a time
_OPEN_BLOCKS = 32  # blocks held open
_KEY = np.dtype("S16")

Compute = Callable[[list[str]], np.ndarray]  # texts to an array `[texts, …]`


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """Return the key of each text: 128 bits of its hash."""
    digests = (hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=16).digest() for t in texts)
    return np.array(list(digests), _KEY)


def read_texts(workspace: Workspace, file: str, rows: np.ndarray | None = None) -> list[str]:
    """Return title and text of the passages of a corpus file, all or those of these rows."""
    table = workspace.read_table(file, ["title", "text"])
    table = table if rows is None else table.take(pa.array(rows))
    return list(map(full_text, table.column("title").to_pylist(), table.column("text").to_pylist()))


class FeatureCache:
    """The kept rows of one feature: blocks of `<name>.npy` with their keys in `<name>.keys.npy`.

    Args:
        workspace: where the blocks lie.
        folder: the feature's folder in it.
    """

    def __init__(self, workspace: Workspace, folder: str) -> None:
        self.workspace, self.folder = workspace, folder
        self._block_of = lru_cache(maxsize=_OPEN_BLOCKS)(self._open)
        self._names = workspace.list_files([folder], ".keys.npy")
        held = [self.workspace.read_array(name) for name in self._names]
        keys = np.concatenate([np.empty(0, _KEY), *held])
        block = np.repeat(np.arange(len(held)), [len(k) for k in held])
        row = np.concatenate([np.empty(0, np.int64), *(np.arange(len(k)) for k in held)])
        order = np.argsort(keys, kind="stable")
        self._keys, self._block, self._row = keys[order], block[order], row[order]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_block_of"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._block_of = lru_cache(maxsize=_OPEN_BLOCKS)(self._open)

    def _open(self, block: int) -> np.ndarray:
        name = self._names[block].removesuffix(".keys.npy") + ".npy"
        if self.workspace.is_local:  # the operating system reads what is needed
            return np.load(self.workspace.path(name), allow_pickle=False, mmap_mode="r")
        return self.workspace.read_array(name)

    def add(self, texts: Sequence[str], rows: np.ndarray) -> None:
        """Keep the rows of some texts as a block; its keys are written last and make it valid."""
        keys = text_keys(texts)
        name = f"{self.folder}/{hashlib.blake2b(keys.tobytes(), digest_size=12).hexdigest()}"
        for suffix, array in ((".npy", rows), (".keys.npy", keys)):
            self.workspace.write_array(name + suffix, array)

    def locate(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return block and row of each key, int64 `[keys]`; -1 for those that are not kept."""
        if not len(self._keys):
            return np.full(len(keys), -1), np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = self._keys[at] == keys
        return np.where(found, self._block[at], -1), np.where(found, self._row[at], -1)

    def take(self, blocks: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the rows at places that `locate` gave, `[places, …]`."""
        order = np.argsort(blocks, kind="stable")
        starts = np.flatnonzero(np.diff(blocks[order], prepend=-2))
        out: np.ndarray | None = None
        for here in np.split(order, starts[1:]):
            source = self._block_of(int(blocks[here[0]]))
            out = np.empty((len(blocks), *source.shape[1:]), source.dtype) if out is None else out
            out[here] = source[rows[here]]
        if out is None:
            raise ValueError("no rows are asked for")
        return out


@dataclass(frozen=True)
class CorpusFeatures:
    """A feature of the corpus's passages in their order; iterating streams it in blocks `[rows, …]`.

    Attributes:
        cache: where it lies.
        block: block of each passage's row, int64 `[passages]`; -1 where it was not asked for.
        row: row in the block, likewise.
    """

    cache: FeatureCache
    block: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.block)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _BLOCK_ROWS):
            yield self.take(np.arange(start, min(start + _BLOCK_ROWS, len(self))))

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Return the feature of these passages, by their numbers in the corpus, `[numbers, …]`."""
        return self.cache.take(self.block[numbers], self.row[numbers])


@dataclass(frozen=True)
class _Slice:
    """Passages of one corpus file whose feature is to be computed."""

    file: str
    rows: np.ndarray


class _SliceWorker:
    """Computes a feature for slices of the corpus's files and keeps it."""

    def __init__(self, root: str, folder: str, make: Callable[[], Compute]) -> None:
        self._workspace, self._compute = Workspace(root), make()
        self._cache = FeatureCache(self._workspace, folder)

    def __call__(self, item: _Slice) -> int:
        texts = read_texts(self._workspace, item.file, item.rows)
        self._cache.add(texts, self._compute(texts))
        return len(texts)


def corpus_files(workspace: Workspace) -> list[str]:
    """Return the files of the corpus, in its order.

    Raises:
        UserError: nothing is imported.
    """
    return sorted(n for n in workspace.require("import").files if n.startswith("corpus/"))


def corpus_features(
    workspace: Workspace,
    folder: str,
    make: Callable[[], Compute],
    report: Reporter,
    title: str,
    only: np.ndarray | None = None,
    workers: int = 1,
    gpus: float = 0,
) -> CorpusFeatures:
    """Return a feature of the corpus; for texts that are not kept yet it is computed and kept.

    Args:
        workspace: its corpus is read, and the feature is kept there.
        folder: folder of the feature; its name says all that determines it beside the text.
        make: builds the function from texts to rows; called once per worker.
        report: shows the progress.
        title: what is being done, for the progress.
        only: numbers in the corpus of the passages that are needed; all when unset.
        workers: workers in a Ray session.
        gpus: GPUs of each.
    """
    files = corpus_files(workspace)
    keys_of_files = [text_keys(read_texts(workspace, name)) for name in files]
    lengths = [len(k) for k in keys_of_files]
    keys = np.concatenate([np.empty(0, _KEY), *keys_of_files])
    starts = np.cumsum([0, *lengths])
    wanted = np.arange(len(keys)) if only is None else np.unique(only)

    cache = FeatureCache(workspace, folder)
    absent = wanted[cache.locate(keys[wanted])[0] < 0]
    _, first = np.unique(keys[absent], return_index=True)  # a text that stands twice is computed once
    absent = absent[np.sort(first)]
    slices = []
    for name, start, end in zip(files, starts, starts[1:], strict=False):
        rows = absent[(absent >= start) & (absent < end)] - start
        slices += [_Slice(name, rows[at : at + _SLICE_ROWS]) for at in range(0, len(rows), _SLICE_ROWS)]
    if slices:
        with report.meter(title, len(wanted), "passages", len(wanted) - len(absent)) as meter:
            worker = partial(_SliceWorker, workspace.root_url, folder, make)
            for done in spread(worker, slices, workers, gpus):
                meter.advance(done)
        cache = FeatureCache(workspace, folder)
    block, row = np.full(len(keys), -1), np.full(len(keys), -1)
    block[wanted], row[wanted] = cache.locate(keys[wanted])
    return CorpusFeatures(cache, block, row)


def text_features(
    workspace: Workspace, folder: str, make: Callable[[], Compute], blocks: Iterable[list[str]]
) -> CorpusFeatures:
    """Return a feature of any texts; where it is not kept yet, it is computed in this process and kept.

    Args:
        workspace: the feature is kept there.
        folder: folder of the feature.
        make: builds the function from texts to rows; called once, if at all.
        blocks: the texts.
    """
    cache, compute, keys = FeatureCache(workspace, folder), lru_cache(make), [np.empty(0, _KEY)]
    for texts in blocks:
        keys.append(text_keys(texts))
        absent = np.flatnonzero(cache.locate(keys[-1])[0] < 0)
        for start in range(0, len(absent), _SLICE_ROWS):
            some = list(dict.fromkeys(texts[at] for at in absent[start : start + _SLICE_ROWS]))
            cache.add(some, compute()(some))
    cache = FeatureCache(workspace, folder)
    return CorpusFeatures(cache, *cache.locate(np.concatenate(keys)))
