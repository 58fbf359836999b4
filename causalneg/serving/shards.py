"""Shards of an index in deployments of their own, for vectors that no machine holds alone.

Passages, BM25 and changes stay with the retriever, which asks all shards side by side. Each question names the
version, so that an answer never mixes two.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causalneg.config import Config
from causalneg.errors import UserError
from causalneg.indexing.manifest import IndexDamaged, IndexManifest, read_manifest
from causalneg.indexing.search import Found, LocalShard, VectorSearch, plausible
from causalneg.indexing.store import open_shards
from causalneg.serving.errors import ApiError
from causalneg.serving.opening import catalog_of
from causalneg.workspace import Workspace

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_LOG = logging.getLogger("causalneg.serving")
OPEN_SECONDS = 600.0  # for a replica to start and to open a version
_PAUSE_SECONDS = 1.0  # for which a shard that failed is not asked again


def check_shards(manifest: IndexManifest, shards: int) -> None:
    """Make sure that a version has as many shards as a server has places for.

    Raises:
        UserError: it has not.
    """
    if len(manifest.shards) != shards:
        raise UserError(
            f"serve.spread_shards: the index version {manifest.version} has {len(manifest.shards)} shards, and the "
            f"server is for {shards}; start it with another number, or index with `--shards {shards}`."
        )


class ShardReplica:
    """Holds one shard: that of the version that answers, and of one more, which is prepared or answered before.

    Args:
        config: the settings.
        number: of the shard, from 0.
    """

    def __init__(self, config: Config, number: int) -> None:
        import faiss

        self._catalog, self._shards = catalog_of(Workspace(config.workspace)), config.serve.spread_shards
        self._number = number
        self._searches = ThreadPoolExecutor(1, "search", faiss.omp_set_num_threads, (config.serve.cores,))
        self._opening = threading.Lock()
        self._held: dict[str, LocalShard] = {}
        pointer = self._catalog.active()
        if pointer is not None and (refusal := self._refusal(pointer.version)):
            _LOG.error("shard %d: %s", number, refusal)  # the retriever may answer from another version still

    async def prepare(self, version: str) -> str | None:
        """Open a version; return why it cannot be."""
        return await asyncio.to_thread(self._refusal, version)

    async def search(self, version: str, queries: np.ndarray, k: int, allowed: bytes | None) -> Found:
        """Return the best rows of this shard in a version, as `LocalShard.search`; `allowed` is one bit per row."""
        try:
            shard = self._held.get(version)
            if shard is None:  # this replica has just started, or the pointer moved before the retriever knew
                shard = await asyncio.to_thread(self._open, version)
            mask = None
            if allowed is not None:
                mask = np.unpackbits(np.frombuffer(allowed, np.uint8), count=shard.rows).view(np.bool_)
            return await asyncio.get_running_loop().run_in_executor(self._searches, shard.search, queries, k, mask)
        except UserError as error:  # which could not be unpickled
            raise RuntimeError(str(error)) from None

    def _refusal(self, version: str) -> str | None:
        try:
            self._open(version)
        except (UserError, MemoryError) as error:
            return str(error) or "There is not enough memory for two versions."
        return None

    def _open(self, version: str) -> LocalShard:
        with self._opening:
            if version not in self._held:
                folder, active = self._catalog.folder_of(version), self._catalog.active()
                manifest = read_manifest(folder)
                check_shards(manifest, self._shards)
                self._held = {v: shard for v, shard in self._held.items() if active and v == active.version}
                (self._held[version],) = open_shards(folder, manifest, [self._number])
            return self._held[version]


class RemoteShard:
    """A shard of a version that replicas of another deployment hold.

    Args:
        handle: of their deployment.
        folder: the version.
        manifest: what it is.
        number: of the shard, from 0.
        seconds: longest wait for an answer.
    """

    def __init__(
        self, handle: "DeploymentHandle", folder: Path, manifest: IndexManifest, number: int, seconds: float
    ) -> None:
        self.rows, self.dimension = manifest.shards[number].rows, manifest.dimension
        self._search, self._folder, self._version = handle.search, folder, manifest.version
        self._number, self._seconds = number, seconds
        self._failed = -np.inf

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        """Return the best rows, `min(k, rows)` of them; -1 and -inf where fewer are allowed.

        Raises:
            ApiError: no replica answers.
            IndexDamaged: one answers what cannot be so.
        """
        packed = None if allowed is None else np.packbits(allowed).tobytes()
        scores, rows = self._ask(queries, k, packed)
        wanted = (len(queries), min(k, self.rows))
        if scores.shape != wanted or rows.shape != wanted:
            raise IndexDamaged(self._folder, f"shard {self._number} gave an answer of another shape")
        return plausible(scores, rows, self.rows, self._folder)

    def _ask(self, queries: np.ndarray, k: int, allowed: bytes | None) -> Found:
        from ray.exceptions import RayActorError

        def ask() -> Found:
            response = self._search.remote(self._version, queries, k, allowed)
            scores, rows = response.result(timeout_s=deadline - time.monotonic())
            return np.asarray(scores, np.float32), np.asarray(rows, np.int64)

        deadline = time.monotonic() + self._seconds
        if time.monotonic() < self._failed + _PAUSE_SECONDS:  # else each query of a batch would wait as long
            raise self._unavailable()
        try:
            try:
                return ask()
            except RayActorError:  # that replica has died; Serve knows another, or starts one
                return ask()
        except Exception as error:
            self._failed = time.monotonic()
            _LOG.warning("shard %d of %s: %r", self._number, self._version, error)
            raise self._unavailable() from error

    def _unavailable(self) -> ApiError:
        return ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "shard_unavailable",
            f"Shard {self._number} of the index version {self._version} does not answer now; try again later.",
            retry_after=1,
        )


class SpreadVectors:
    """Opens the vectors of a version in the deployments of its shards.

    Args:
        handles: of the deployments, in the order of the shards.
        seconds: longest wait for an answer.
    """

    def __init__(self, handles: Sequence["DeploymentHandle"], seconds: float) -> None:
        self._handles, self._seconds = handles, seconds

    def __call__(self, folder: Path, manifest: IndexManifest) -> VectorSearch:
        """Have each replica of each shard open a version.

        Raises:
            UserError: one refuses it, or there is another number of shards.
        """
        check_shards(manifest, len(self._handles))
        with ThreadPoolExecutor(len(self._handles)) as pool:  # Serve's handles want a thread without an event loop
            answers = pool.map(lambda handle: _prepare(handle, manifest.version), self._handles)
            refusals = [refusal for answer in answers for refusal in answer if refusal]
        if refusals:
            raise UserError(refusals[0])
        shards = [
            RemoteShard(handle, folder, manifest, number, self._seconds) for number, handle in enumerate(self._handles)
        ]
        return VectorSearch(shards, threads=len(shards))


def _prepare(handle: "DeploymentHandle", version: str) -> list[str | None]:
    """Have all replicas of a shard open a version; return why each cannot."""
    from ray.serve.exceptions import DeploymentUnavailableError

    try:
        try:
            return list(handle.broadcast("prepare", version).results(timeout_s=OPEN_SECONDS))
        except DeploymentUnavailableError:  # none runs yet; this waits for the first
            return [handle.prepare.remote(version).result(timeout_s=OPEN_SECONDS)]
    except Exception as error:
        return [f"A shard of the index version {version} is not opened: {error!r}."]
