"""Until when a request is to be answered."""

import asyncio
import math
import time


class Deadline:
    """The client's time is for the whole request, the server's for each part of it that is worked on by itself.

    So a batch that is taken at all is not given up because it is large.

    Args:
        part_seconds: the server's.
        whole_seconds: the client's; without end when unset.
        began: when both began to run, on the clock of `time.monotonic`; now unless given.

    Attributes:
        at: when it passes, on the clock of `time.monotonic`.
    """

    def __init__(self, part_seconds: float, whole_seconds: float = math.inf, began: float | None = None) -> None:
        began = time.monotonic() if began is None else began
        self._part_seconds, self._end = part_seconds, began + whole_seconds
        self._timeout: asyncio.Timeout | None = None
        self.at = min(self._end, began + part_seconds)

    def begin_part(self) -> None:
        """Give what is worked on next the server's time anew."""
        now = time.monotonic()
        self.at = min(self._end, now + self._part_seconds)
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self.at - now)

    def timeout(self) -> asyncio.Timeout:
        """Return a block that ends with TimeoutError when the deadline passes."""
        self._timeout = asyncio.timeout(self.at - time.monotonic())
        return self._timeout
