"""Makes a new index version of the active one and the changes since: it answers as both together did."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from causalneg.config import Config, IndexSettings
from causalneg.console import Reporter
from causalneg.errors import UserError
from causalneg.features import CorpusFeatures
from causalneg.files import locked
from causalneg.indexing.build import build_version
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.changes import Change, latest
from causalneg.indexing.encoders import find_model
from causalneg.indexing.manifest import IndexManifest, read_manifest, verify_files
from causalneg.indexing.queries import held_out
from causalneg.indexing.store import Passages, is_among, map_passages
from causalneg.indexing.tune import needs_queries
from causalneg.records import Passage, arrow_schema, content_id, full_text, to_table
from causalneg.vectors import embed_texts
from causalneg.workspace import Workspace

_LOCK = "merge.lock"
_BLOCK_ROWS = 8192  # rows whose vectors are handed out at a time


def run(config: Config, workspace: Workspace, report: Reporter) -> IndexManifest:
    """Merge the changes into a new version, and let it answer if `index.activate` is set.

    A merge that is killed leaves everything as it was; done again, it goes on with the vectors encoded so far.

    Raises:
        UserError: there is no version, another merge is at work, the encoder is gone, or no passage would be left.
    """
    catalog = Catalog(workspace.local_folder("index"))
    try:
        with locked(catalog.folder / _LOCK, wait=False):
            return _merge(config, workspace, catalog, report)
    except BlockingIOError as error:
        raise UserError(f"Another merge is at work in {catalog.folder}; wait until it is done.") from error


def _merge(config: Config, workspace: Workspace, catalog: Catalog, report: Reporter) -> IndexManifest:
    active = catalog.active()
    if active is None:
        raise UserError(f"There is no index in {catalog.folder} to merge changes into; run `causalneg index` first.")
    catalog.activate(active.version)  # otherwise the newest version answers, which is soon the one made here
    folder = catalog.folder_of(active.version)
    base = read_manifest(folder)
    changes = catalog.changes.reader().poll()
    if not changes or changes[-1].number <= base.change:
        report.line(f"index: there is nothing to merge, version {base.version} holds all {base.change} changes")
        return base
    verify_files(folder, base)
    content = _Content(base, map_passages(folder, [shard.rows for shard in base.shards]), changes)
    if not content.rows:
        raise UserError("The changes take every passage away; an index needs at least one, so put one in first.")
    settings = _settings(config.index, base)
    target = catalog.folder / content_id("merge", base.version, content.change, settings.model_dump())[:12]
    _remove_damaged(target)
    model = find_model(catalog, base)
    vectors = _Vectors(content, embed_texts(workspace, model, config.encode, content.texts_to_encode()))
    merged = build_version(
        target,
        base.model,
        vectors.blocks,
        content.batches(),
        settings,
        rows=content.rows,
        change=content.change,
        report=report,
        queries=held_out(config, workspace, model) if needs_queries(settings, content.rows) else None,
    )
    report.line(
        f"index: version {merged.version}: {merged.kind}, {merged.rows} passages, of which {len(content.upserts)} "
        f"were put in; version {base.version} had {base.rows}"
    )
    if config.index.activate:
        catalog.activate(merged.version)
    return merged


def _settings(asked: IndexSettings, base: IndexManifest) -> IndexSettings:
    """Return how to build: as the version before, but for what is asked for by name."""
    before = {
        "kind": base.kind,
        "shards": len(base.shards),
        "lexical": base.lexical,
        "language": base.language,
    }
    given = asked.model_fields_set - ({"kind"} if asked.kind == "auto" else set())
    return asked.model_copy(
        update={"merge": False, "activate": True} | {n: v for n, v in before.items() if n not in given}
    )


def _remove_damaged(target: Path) -> None:
    """Remove what stands under the new version's name, unless an earlier merge finished it."""
    if target.exists():
        try:
            verify_files(target, read_manifest(target))
        except UserError:
            shutil.rmtree(target)


class _Content:
    """The passages of the new version: those of the old one that are left, then those put in, by their numbers.

    Attributes:
        change: number of the last change.
        upserts: the changes that put passages in.
        logged: vectors that the log has for some rows, float32 `[vectors, dimension]`.
        place: of each row, its row in `logged`, or -1 where its text is to be encoded.
    """

    def __init__(self, base: IndexManifest, passages: Passages, changes: list[Change]) -> None:
        self._passages, own = passages, base.model.fingerprint
        new = latest(change for change in changes if change.number > base.change)
        self.change = new[-1].number
        self.upserts = [change for change in new if change.kind == "upsert"]
        self._live = ~is_among(passages.ids, [change.id for change in new])
        # What went into the old version by a change has its vector in the log as well, and nowhere else.
        old = {c.id: c for c in latest(c for c in changes if c.number <= base.change) if c.model == own}
        kept = passages.ids.filter(pa.array(self._live))
        known = [(row, old[kept[row].as_py()]) for row in np.flatnonzero(is_among(kept, list(old))).tolist()]
        known += [(row, change) for row, change in enumerate(self.upserts, len(kept)) if change.model == own]
        self.rows = len(kept) + len(self.upserts)
        self.place = np.full(self.rows, -1)
        self.place[[row for row, _ in known]] = np.arange(len(known))
        self.logged = np.array([change.array() for _, change in known], np.float32)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the passages."""
        start = 0
        names = arrow_schema(Passage).names
        for batch in pa.table({name: self._passages.column(name) for name in names}).to_batches():
            yield batch.filter(pa.array(self._live[start : start + batch.num_rows]))
            start += batch.num_rows
        yield from to_table(Passage, [change.passage for change in self.upserts]).to_batches()

    def texts_to_encode(self) -> Iterator[list[str]]:
        """Stream title and text of the rows that have no vector in the log."""
        start = 0
        for batch in self.batches():
            some = batch.filter(pa.array(self.place[start : start + batch.num_rows] < 0))
            yield list(map(full_text, some.column("title").to_pylist(), some.column("text").to_pylist()))
            start += batch.num_rows


@dataclass(frozen=True)
class _Vectors:
    """The vectors of the new version: as the log has them, otherwise those of the texts."""

    content: _Content
    of_texts: CorpusFeatures

    def blocks(self) -> Iterator[np.ndarray]:
        """Stream them in the order of the rows, float32 `[rows, dimension]`."""
        place = self.content.place
        number = np.cumsum(place < 0) - 1
        for start in range(0, len(place), _BLOCK_ROWS):
            rows = np.arange(start, min(start + _BLOCK_ROWS, len(place)))
            in_log = place[rows] >= 0
            parts = [self.content.logged[place[rows[in_log]]]] if in_log.any() else []
            parts += [self.of_texts.take(number[rows[~in_log]])] if not in_log.all() else []
            found = np.concatenate(parts)
            block = np.empty_like(found)
            block[np.concatenate([np.flatnonzero(in_log), np.flatnonzero(~in_log)])] = found
            yield block
