"""Changes which index version answers, on all replicas or on none, and makes new versions of the changes."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any, Protocol

from causalneg.errors import UserError
from causalneg.files import locked
from causalneg.indexing.catalog import Catalog
from causalneg.serving.errors import ApiError
from causalneg.serving.holder import Holder
from causalneg.serving.schema import SwapResponse

_LOG = logging.getLogger("causalneg.serving")
_LOCK = "swap.lock"


class Peers(Protocol):
    """All replicas of the server, this one included."""

    async def call(self, method: str, *arguments: str) -> list[Any]:
        """Call a method of each; an exception stands in the place of an answer."""


class Replica:
    """What the peers of a replica may ask of it.

    Args:
        holder: what answers there.
    """

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    async def prepare(self, version: str) -> str | None:
        """Open a version aside; return why it cannot be."""
        try:
            await asyncio.to_thread(self._holder.prepare, version)
        except (UserError, MemoryError) as error:
            return str(error) or "There is not enough memory for two versions."
        return None

    async def forget(self) -> None:
        """Let go of what was prepared."""
        await asyncio.to_thread(self._holder.forget)

    async def settle(self) -> str:
        """Follow the catalogue and return the version that answers."""
        return (await asyncio.to_thread(self._holder.refresh)).view.version

    async def call(self, method: str, *arguments: str) -> list[Any]:
        """Be the only peer."""
        return [await getattr(self, method)(*arguments)]


class Swapper:
    """Swaps versions in two phases, and merges changes into new ones.

    First every replica opens the version and asks it its canary queries; then the catalogue's pointer moves, which
    all of them follow before their next request. A replica that dies in between finds the pointer when it starts.

    Args:
        catalog: versions and pointer.
        peers: all replicas.
        merge_command: makes a version of the active one and its changes, without activating it.
    """

    def __init__(self, catalog: Catalog, peers: Peers, merge_command: Sequence[str]) -> None:
        self.peers = peers
        self._catalog, self._merge_command = catalog, list(merge_command)
        self._merging: asyncio.Task[None] | None = None
        self._merge_failure: tuple[str | None, str] | None = None  # the version that was merged, and why it failed

    async def replicas(self) -> dict[str, int]:
        """Return how many replicas answer from which version."""
        return dict(Counter(s for s in await self.peers.call("settle") if isinstance(s, str)))

    async def activate(self, version: str) -> SwapResponse:
        """Have a version answer, once every replica has opened it.

        Raises:
            ApiError: there is none of that name, a replica refuses it, or another swap is under way.
        """
        began = time.perf_counter()
        try:
            await asyncio.to_thread(self._catalog.folder_of, version)
        except UserError as error:
            raise ApiError(HTTPStatus.NOT_FOUND, "no_such_version", str(error)) from error
        with self._one_at_a_time():
            replicas = await self._prepare(version)
            pointer = await asyncio.to_thread(self._catalog.activate, version)
            settled = await self.replicas()
        if set(settled) != {version}:
            _LOG.warning("replicas by version after the swap to %s: %s", version, settled)
        return SwapResponse(
            active=pointer.version,
            previous=pointer.previous,
            replicas=replicas,
            seconds=time.perf_counter() - began,
        )

    async def roll_back(self) -> SwapResponse:
        """Have the version answer that did before.

        Raises:
            ApiError: none did, or as for `activate`.
        """
        pointer = await asyncio.to_thread(self._catalog.active)
        if pointer is None or pointer.previous is None:
            raise ApiError(HTTPStatus.CONFLICT, "no_previous_version", "No version has answered before this one.")
        return await self.activate(pointer.previous)

    def problem(self, version: str) -> str | None:
        """Return why the last merge of a version failed, if it did."""
        if self._merge_failure is None or self._merge_failure[0] not in (version, None):
            return None
        return f"The last merge failed: {self._merge_failure[1]}"

    def merge(self) -> bool:
        """Begin a merge, whose version is activated when it is there; False when one runs already."""
        if self._merging is not None and not self._merging.done():
            return False
        self._merging = asyncio.create_task(self._merge_and_activate())
        return True

    async def close(self) -> None:
        """Stop a merge that runs; it leaves everything as it was."""
        if self._merging is not None and not self._merging.done():
            self._merging.cancel()
            await asyncio.wait([self._merging])

    async def _merge_and_activate(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._merge_command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            await self._merge_failed(str(error))
            return
        try:
            _, said = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            await self._merge_failed(said.decode(errors="replace")[-2000:].strip() or "it was killed")
            return
        merged = await asyncio.to_thread(self._merged)
        if merged is not None:
            try:
                await self.activate(merged)
            except ApiError as error:
                await self._merge_failed(f"version {merged} is not activated: {error}")
                return
        self._merge_failure = None

    async def _merge_failed(self, why: str) -> None:
        _LOG.error("the merge failed: %s", why)
        try:
            pointer = await asyncio.to_thread(self._catalog.active)
        except UserError:  # said on its own
            pointer = None
        self._merge_failure = (pointer.version if pointer else None, why.splitlines()[-1])

    def _merged(self) -> str | None:
        """Return the newest version that holds changes which the active one does not."""
        pointer, versions = self._catalog.active(), self._catalog.versions()
        active = next((m for m in versions if pointer and m.version == pointer.version), None)
        if active is None:
            return None
        return next((m.version for m in versions if m.change > active.change and m.model == active.model), None)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self._catalog.folder / _LOCK, wait=False))
            except BlockingIOError as error:
                raise ApiError(
                    HTTPStatus.CONFLICT, "swap_running", "Another version is being activated.", retry_after=1
                ) from error
            yield

    async def _prepare(self, version: str) -> int:
        answers = await self.peers.call("prepare", version)
        wrong = [a for a in answers if a is not None]
        if wrong:
            await self.peers.call("forget")
            raise ApiError(
                HTTPStatus.CONFLICT,
                "not_activated",
                f"Version {version} is not activated; {len(wrong)} of {len(answers)} replicas refuse it: {wrong[0]}",
            )
        return len(answers)
