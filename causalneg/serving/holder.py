"""Holds the index version that answers, with its encoder, and follows the catalogue and the log of changes."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from causalneg.errors import UserError
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.changes import Change
from causalneg.indexing.manifest import IndexManifest, read_manifest
from causalneg.indexing.store import OpenVectors, local_vectors, open_index
from causalneg.indexing.view import View
from causalneg.models import ResolvedModel
from causalneg.serving.encoders import QueryEncoder
from causalneg.serving.errors import ApiError

_LOG = logging.getLogger("causalneg.serving")
_CHANGES, _VERSION = "changes", "version"  # what a problem is with
_NEAREST = 10  # a canary's own passage is to be among so many
_SAME_SCORE = 0.99  # or another passage with the same text is found

FindModel = Callable[[IndexManifest], ResolvedModel]
OpenEncoder = Callable[[ResolvedModel], QueryEncoder]


class LockedEncoder:
    """An encoder that several threads may ask; one at a time is served."""

    def __init__(self, model: ResolvedModel, encoder: QueryEncoder) -> None:
        self.model, self.backend = model, encoder
        self._lock = threading.Lock()

    def encode(self, ids: Sequence[Sequence[int]], normalise: bool = True) -> np.ndarray:
        """Encode token ids, float32 `[texts, dimension]`."""
        with self._lock:
            return self.backend.encode(ids, normalise)

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        """Encode passages with the model's prompt for them, float32 `[texts, dimension]`."""
        tokens = self.backend.tokenise(texts, self.prompt("passage"))
        return self.encode([t.ids for t in tokens])

    def prompt(self, kind: str) -> str:
        """Return the text that the model wants before a query or a passage; often empty."""
        return self.backend.prompts["query" if kind == "query" else "document"]


@dataclass(frozen=True)
class Served:
    """What answers a request from its beginning to its end: one view and the encoder that belongs to it."""

    view: View
    encoder: LockedEncoder


def check_canaries(view: View, encoder: LockedEncoder) -> None:
    """Make sure that passages chosen when a version was built are found by their own texts.

    Raises:
        UserError: one is not; the encoder is not the one that made the index, or one of the two is broken.
    """
    canaries = view.index.manifest.canaries
    if not canaries:
        return
    found = view.search(encoder.passages([c.text for c in canaries]), _NEAREST)
    for canary, hits in zip(canaries, found, strict=True):
        if canary.id not in [hit.id for hit in hits] and not (hits and hits[0].score >= _SAME_SCORE):
            raise UserError(
                f"The index version {view.version} does not find its passage {canary.id!r} by its own text; "
                "run `causalneg index` again."
            )


def _last(changes: Sequence[Change], before: int) -> int:
    return changes[-1].number if changes else before


def _changed(served: Served, changes: Sequence[Change]) -> Served:
    fresh = [change for change in changes if change.number > served.view.change]
    return Served(served.view.with_changes(fresh, served.encoder.passages), served.encoder) if fresh else served


class Holder:
    """The version that answers in this process.

    `current` is asked before each request and costs two looks at the file system when nothing has changed. A new
    pointer is followed at once when the version was prepared; otherwise it is opened aside while the old one answers.

    Args:
        catalog: of the workspace.
        find_model: from a manifest to the model that made the version.
        open_encoder: loads a model.
        open_vectors: where those of a version lie.

    Raises:
        UserError: there is no index, it is damaged, or its model is not there.
    """

    def __init__(
        self,
        catalog: Catalog,
        find_model: FindModel,
        open_encoder: OpenEncoder,
        open_vectors: OpenVectors = local_vectors,
    ) -> None:
        self._catalog, self._find_model = catalog, find_model
        self._open_encoder, self._open_vectors = open_encoder, open_vectors
        self._lock = threading.RLock()  # of all below
        self._prepared: dict[str, Served] = {}
        self._stamp = catalog.stamp()
        pointer = catalog.active()
        if pointer is None:
            raise UserError(f"There is no index in {catalog.folder}; run `causalneg index`.")
        self._reader = catalog.changes.reader()
        self._change = _last(self._reader.poll(), 0)
        self._opening: threading.Thread | None = None
        self._problems: dict[str, str] = {}  # why what is new in the log or the catalogue is not what answers
        self._served = self._open(pointer.version)

    @property
    def served(self) -> Served:
        """What answers, as last seen."""
        return self._served

    @property
    def change(self) -> int:
        """Number of the last change that is known here."""
        return self._change

    @property
    def problem(self) -> str | None:
        """Why what is new is not what answers, if it is not."""
        return " ".join(self._problems.values()) or None

    def is_stale(self) -> bool:
        """Whether there is something new: another pointer, or changes."""
        return self._catalog.stamp() != self._stamp or self._reader.has_more()

    def refresh(self) -> Served:
        """Learn what is new and return what answers now; what is damaged is said in the log, and the old answers."""
        with self._lock:
            try:
                self._follow_changes()
                self._problems.pop(_CHANGES, None)
            except UserError as error:
                self._fail(_CHANGES, error)
            try:
                self._follow_pointer()
            except UserError as error:
                self._fail(_VERSION, error)
            return self._served

    def prepare(self, version: str) -> None:
        """Open a version aside and ask it its canary queries.

        Raises:
            UserError: it is not there, damaged, or does not pass.
        """
        served = self._open(version)
        with self._lock:
            self._prepared = {version: self._caught_up(served)}

    def forget(self) -> None:
        """Let go of what was prepared."""
        with self._lock:
            self._prepared = {}

    def _open(self, version: str) -> Served:
        folder: Path = self._catalog.folder_of(version)
        model = self._find_model(read_manifest(folder))
        encoder = self._encoder(model)
        index = open_index(folder, model.fingerprint, self._open_vectors)
        if encoder.backend.dimension != index.manifest.dimension:
            raise UserError(
                f"The index {folder} has {index.manifest.dimension} dimensions, the model {model.name} "
                f"{encoder.backend.dimension}; run `causalneg index` again."
            )
        view = View.open(index)
        check_canaries(view, encoder)
        return self._caught_up(Served(view, encoder))

    def _encoder(self, model: ResolvedModel) -> LockedEncoder:
        there = getattr(self, "_served", None)
        if there is not None and there.encoder.model.fingerprint == model.fingerprint:
            return there.encoder
        return LockedEncoder(model, self._open_encoder(model))

    def _caught_up(self, served: Served) -> Served:
        """Return it with all changes that are known here, read from the log where it lacks some."""
        if served.view.change >= self._change:
            return served
        return _changed(served, self._catalog.changes.reader(after=served.view.change).poll())

    def _follow_changes(self) -> None:
        new = self._reader.poll()
        if new:
            self._served = _changed(self._served, new)
            self._prepared = {version: _changed(served, new) for version, served in self._prepared.items()}
            self._change = _last(new, self._change)

    def _follow_pointer(self) -> None:
        stamp = self._catalog.stamp()
        if stamp == self._stamp:
            return
        pointer = self._catalog.active()
        self._stamp = stamp
        if pointer is None or pointer.version == self._served.view.version:
            self._problems.pop(_VERSION, None)
            return
        prepared = self._prepared.pop(pointer.version, None)
        if prepared is not None:
            self._served = prepared
            self._problems.pop(_VERSION, None)
        elif self._opening is None or not self._opening.is_alive():
            self._opening = threading.Thread(target=self._open_aside, args=(pointer.version,), daemon=True)
            self._opening.start()

    def _open_aside(self, version: str) -> None:
        try:
            self.prepare(version)
        except (UserError, ApiError) as error:
            self._fail(_VERSION, error)
            return
        with self._lock:
            self._stamp = ()  # look at the pointer again; it may have moved on
            self._follow_pointer()

    def _fail(self, what: str, error: Exception) -> None:
        if self._problems.get(what) != str(error):  # said once, and not before each request
            _LOG.error("version %s goes on: %s", self._served.view.version, error)
        self._problems[what] = str(error)
