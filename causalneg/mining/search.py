"""Searches the corpus for the candidates of every train query, shard by shard, and keeps them in the workspace.

The parts of a query block are written when all shards are searched; what is written is not searched again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from causalneg import former
from causalneg.bm25 import Words
from causalneg.config import Config, SearchSettings
from causalneg.console import Meter, Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.exact import ShardSearcher
from causalneg.features import CorpusFeatures, corpus_files, read_texts
from causalneg.hits import Hits, merge_all
from causalneg.mining import bm25, dense
from causalneg.mining.candidates import Judged, Pairs, join, to_table
from causalneg.models import ResolvedModel
from causalneg.records import Qrel, Query, content_id
from causalneg.runtime import spread
from causalneg.stages import determining, revised
from causalneg.vectors import embed_corpus
from causalneg.workspace import Manifest, Workspace

_BLOCK_QUERIES = 16_384  # queries searched at a time: the corpus is read once for each block
_PART_QUERIES = 1024  # queries per file


@dataclass(frozen=True)
class Shard:
    """Neighbouring files of the corpus that are searched at a time; their passages are numbered start to end."""

    number: int
    files: tuple[str, ...]
    start: int
    end: int


def make_shards(files: dict[str, int], shard_passages: int) -> list[Shard]:
    """Cut the corpus into shards of whole files, each of at least one and otherwise at most so many passages.

    Args:
        files: rows by file, in the order of the corpus.
        shard_passages: passages per shard.
    """
    shards: list[Shard] = []
    waiting: list[str] = []
    start = end = 0
    for name, rows in files.items():
        if waiting and end - start + rows > shard_passages:
            shards.append(Shard(len(shards), tuple(waiting), start, end))
            waiting, start = [], end
        waiting.append(name)
        end += rows
    return [*shards, Shard(len(shards), tuple(waiting), start, end)]


@dataclass(frozen=True)
class TrainQueries:
    """The train queries that have a positive, in the order of import, with their judged passages."""

    ids: list[str]
    texts: list[str]
    judged: Judged


def read_queries(workspace: Workspace, passage_ids: pa.ChunkedArray) -> TrainQueries:
    """Read the queries to mine for.

    Raises:
        UserError: there are none.
    """
    positives = workspace.positives("train")
    if not positives:
        raise UserError("No train query has a positive; import data with relevance judgements of a split named train.")
    queries = [q for q in workspace.read_rows("queries", Query) if q.id in positives]
    number = {q.id: at for at, q in enumerate(queries)}
    rows = [q for q in workspace.read_rows("qrels", Qrel) if q.split == "train" and q.query_id in number]
    passages = pc.index_in(pa.array([q.passage_id for q in rows], pa.string()), value_set=passage_ids.combine_chunks())
    judged = Judged(
        np.array([number[q.query_id] for q in rows], np.int64),
        passages.to_numpy(zero_copy_only=False).astype(np.int64),
        np.array([q.score > 0 for q in rows], bool),
    )
    return TrainQueries([q.id for q in queries], [q.text for q in queries], judged)


class _Bm25Indexer:
    """Indexes shards."""

    def __init__(self, root: str, folder: str, words: Words) -> None:
        self._workspace = Workspace(root)
        self._index = bm25.Bm25Index(self._workspace, folder, words)

    def __call__(self, shard: Shard) -> int:
        self._index.write(shard.number, [t for name in shard.files for t in read_texts(self._workspace, name)])
        return shard.end - shard.start


class _Bm25Searcher:
    """Searches shards with BM25."""

    def __init__(self, root: str, folder: str, words: Words, queries: list[list[str]], depth: int) -> None:
        self._index = bm25.Bm25Index(Workspace(root), folder, words)
        self._queries, self._depth = queries, depth

    def __call__(self, shard: Shard) -> Hits:
        return bm25.search(self._index.load(shard.number), self._queries, self._depth).shifted(shard.start)


class CandidateSearch:
    """Finds the candidates of every train query.

    Args:
        workspace: data is imported there, and what is found is kept there.
        model: the encoder.
        config: all settings.
        report: shows the progress.
    """

    def __init__(self, workspace: Workspace, model: ResolvedModel, config: Config, report: Reporter) -> None:
        self.workspace, self.model, self.config, self.report = workspace, model, config, report
        self.settings: SearchSettings = config.mine.search
        imported = workspace.require("import")
        files = corpus_files(workspace)
        self.shards = make_shards({name: self._rows(name) for name in files}, self.settings.shard_passages)
        corpus = [imported.files[name].sha256 for name in files]
        self.words = Words(self.settings.language)
        bm25_key = content_id(corpus, self.settings.shard_passages, self.settings.language)
        self.bm25_folder = revised(f"bm25/{bm25_key}", "mine/bm25")
        self.folder = revised(f"candidates/{self._key(imported)}", "mine/candidates")
        self.vectors: CorpusFeatures | None = None

    def _key(self, imported: Manifest) -> str:
        """Return the key of the candidates: that of 0.1.0 where it kept some, so that nothing is searched again."""
        model, precision = self.model.fingerprint, self.config.encode.precision
        search = self.settings.model_dump(mode="json", exclude={"cross_encoder", "shard_passages"})
        key = former.candidates_key(imported.former_digest, model, precision, search)
        if key and self.workspace.exists(f"candidates/{key}"):
            return key
        return content_id(imported.digest, model, precision, determining({"mine": {"search": search}}))

    def _rows(self, name: str) -> int:
        with self.workspace.open_parquet(name) as file:
            return int(file.metadata.num_rows)

    def run(self) -> list[str]:
        """Search for every query that has no candidates yet.

        Returns:
            Files of `Candidate` rows; all rows of a query are in one, the queries in the order of import.

        Raises:
            UserError: there is no train query, or the encoder gives vectors that are not finite.
        """
        passage_ids = self.workspace.column("corpus", "id")
        queries = read_queries(self.workspace, passage_ids)
        parts = {s: f"{self.folder}/part-{s:08d}.parquet" for s in range(0, len(queries.ids), _PART_QUERIES)}
        blocks = [
            range(start, min(start + _BLOCK_QUERIES, len(queries.ids)))
            for start in range(0, len(queries.ids), _BLOCK_QUERIES)
        ]
        missing = [b for b in blocks if not all(self.workspace.exists(n) for s, n in parts.items() if s in b)]
        if missing:
            self._prepare()
            encoder = load_encoder(self.model)
            searches = len(self.shards) * len(self.settings.sources)
            for number, block in enumerate(missing):
                texts = queries.texts[block.start : block.stop]
                vectors = encode(encoder, texts, "query", self.config.encode.batch_size)
                with self.report.meter("searching", len(missing) * searches, "shards", number * searches) as meter:
                    found = self._search(texts, vectors, meter)
                pairs = join(found, self._judged(queries.judged, block), len(passage_ids))
                self._add_cosines(pairs, vectors)
                for first, table in _parts(pairs, pa.array(queries.ids[block.start : block.stop]), passage_ids):
                    self.workspace.write_table(parts[block.start + first], table)
        return list(parts.values())

    def _prepare(self) -> None:
        """Index the corpus and encode it, where that is not done."""
        if "bm25" in self.settings.sources:
            index = bm25.Bm25Index(self.workspace, self.bm25_folder, self.words)
            left = [s for s in self.shards if not index.holds(s.number)]
            if left:
                make = partial(_Bm25Indexer, self.workspace.root_url, self.bm25_folder, self.words)
                with self.report.meter("indexing words", sum(s.end - s.start for s in left), "passages") as meter:
                    for rows in spread(make, left, self.config.encode.workers):
                        meter.advance(rows)
            index.join(len(self.shards))
        if "dense" in self.settings.sources:
            self.vectors = embed_corpus(self.workspace, self.model, self.config.encode, self.report)

    def _judged(self, judged: Judged, block: range) -> Judged:
        here = (judged.queries >= block.start) & (judged.queries < block.stop)
        return Judged(judged.queries[here] - block.start, judged.passages[here], judged.positive[here])

    def _search(self, texts: list[str], vectors: np.ndarray, meter: Meter) -> dict[str, Hits]:
        """Return the hits of each search."""
        settings, workers, found = self.settings, self.config.encode.workers, {}
        if "bm25" in settings.sources:
            words = self.words.tokens(texts, ids=False)
            make_bm25 = partial(
                _Bm25Searcher, self.workspace.root_url, self.bm25_folder, self.words, words, settings.depth
            )
            found["bm25"] = merge_all(
                spread(make_bm25, self.shards, workers), len(texts), settings.depth, meter.advance
            )
        if self.vectors is not None:
            make_dense = partial(ShardSearcher, self.vectors, vectors, settings.depth)
            ranges = [range(shard.start, shard.end) for shard in self.shards]
            found["dense"] = merge_all(spread(make_dense, ranges, workers), len(texts), settings.depth, meter.advance)
        return found

    def _add_cosines(self, pairs: Pairs, vectors: np.ndarray) -> None:
        """Give the pairs that the dense search did not find their cosine, too."""
        corpus = self.vectors
        if corpus is None:  # BM25 alone: only what it found needs a vector
            corpus = embed_corpus(self.workspace, self.model, self.config.encode, self.report, pairs.passages)
        cosines = pairs.scores.setdefault("dense", np.full(len(pairs.queries), np.nan))
        unknown = np.flatnonzero(np.isnan(cosines))
        cosines[unknown] = dense.pair_scores(corpus, vectors, pairs.queries[unknown], pairs.passages[unknown])


def _parts(pairs: Pairs, query_ids: pa.Array, passage_ids: pa.ChunkedArray) -> Iterator[tuple[int, pa.Table]]:
    """Cut the pairs of a block into tables of so many queries, with the number of the first query of each."""
    for first in range(0, len(query_ids), _PART_QUERIES):
        start, end = np.searchsorted(pairs.queries, [first, first + _PART_QUERIES])
        part = Pairs(
            pairs.queries[start:end],
            pairs.passages[start:end],
            pairs.relations[start:end],
            {name: array[start:end] for name, array in pairs.ranks.items()},
            {name: array[start:end] for name, array in pairs.scores.items()},
        )
        yield first, to_table(part, query_ids, passage_ids)
