"""Makes changes, and remembers why the last ones could not be made until they can be again."""

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus

from causalneg.errors import UserError
from causalneg.indexing.changes import Change, ChangeLog, StorageFailed, StorageFull
from causalneg.serving.errors import ApiError

_LOOK_EVERY = 1.0  # seconds between looks whether changes can be made again
_REFUSED = (StorageFull, StorageFailed, UserError)


class Writer:
    """Writes the log of changes for one process.

    Args:
        log: of the workspace.
    """

    def __init__(self, log: ChangeLog) -> None:
        self._log = log
        self._problem: str | None = None
        self._looked = 0.0

    async def append(self, changes: Sequence[Change]) -> int:
        """Make changes, all or none; return the number of the last one.

        Raises:
            ApiError: 507 where they do not fit on the disk, 503 where it cannot be written or the log is damaged.
        """
        try:
            return await asyncio.to_thread(self._append, changes)
        except StorageFull as error:
            raise ApiError(HTTPStatus.INSUFFICIENT_STORAGE, "storage_full", str(error)) from error
        except StorageFailed as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "storage_failed", str(error)) from error
        except UserError as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "changes_damaged", str(error)) from error

    async def problem(self) -> str | None:
        """Return why changes cannot be made, as the last one found and as long as it is so."""
        if self._problem is not None and time.monotonic() - self._looked >= _LOOK_EVERY:
            await asyncio.to_thread(self._look)
        return self._problem

    def _append(self, changes: Sequence[Change]) -> int:
        try:
            number = self._log.append(changes)
        except _REFUSED as error:  # noted here, in the thread: who asked may have left
            self._problem, self._looked = str(error), time.monotonic()
            raise
        self._problem = None
        return number

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            self._log.check()
        except _REFUSED as error:
            self._problem = str(error)
        else:
            self._problem = None
