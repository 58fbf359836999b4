"""Tells an engine that has stalled from one that is slow."""

import time
from collections.abc import Callable

from causalneg.generation.engines.limits import Clock

_LEAST_BUSY = 0.02  # of a core; processes that only wait for one another take less


class Watchdog:
    """Watches the work of an engine as a whole: one that answers anything or computes is alive, however slow it is.

    Args:
        patience: seconds without progress after which an engine with work to do has stalled.
        computed: returns how many seconds its processes have computed so far; None where that says nothing, as with a
            GPU, for which a process that hangs waits at full speed.
        clock: tells the time in seconds.
    """

    def __init__(
        self, patience: float, computed: Callable[[], float] | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._patience, self._computed, self._clock = patience, computed, clock
        self._working = 0
        self._since = clock()
        self._busy: float | None = None  # what was computed at the first look after the last progress

    def begin(self) -> None:
        """Note that a request was handed to the engine."""
        if not self._working:
            self.progressed()  # while there was nothing to do, nothing was missed
        self._working += 1

    def end(self) -> None:
        """Note that a request is over, however it ended."""
        self._working -= 1
        self.progressed()

    def progressed(self) -> None:
        """Note that the engine gave something, for whichever request."""
        self._since, self._busy = self._clock(), None

    def stalled(self) -> bool:
        """Whether the engine has work, and has neither answered nor computed for as long as one can be patient.

        To be asked again and again, far more often than that.
        """
        computed = self._computed() if self._computed else 0.0
        if self._busy is None:
            self._busy = computed
        if self._clock() - self._since < self._patience:
            return False
        if self._working and computed - self._busy < _LEAST_BUSY * self._patience:
            return True
        self.progressed()
        return False
