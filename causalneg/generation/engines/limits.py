"""How fast an endpoint may be asked: requests and tokens a minute, and how long to wait after a failure."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from causalneg import retries

_MINUTE = 60.0
_LOOK_AGAIN = 1.0  # seconds; requests that took fewer tokens than estimated make room before the minute is over
_FIRST_BACKOFF = 1.0  # seconds
_LONGEST_BACKOFF = 30.0

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[object]]


@dataclass
class Booking:
    """A request of the last minute.

    Attributes:
        expires: time of the clock at which it counts no more.
        tokens: estimated before the request, real after it.
    """

    expires: float
    tokens: int


class MinuteLimits:
    """Lets requests through in the order they came, so that no 60 seconds hold more than the limits.

    A request that is larger than the limit on tokens by itself goes alone. Belongs to one event loop.

    Args:
        requests: most requests in a minute, or None.
        tokens: most tokens in a minute, or None.
        clock: tells the time in seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self, requests: int | None, tokens: int | None, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._requests, self._tokens = requests, tokens
        self._clock, self._sleep = clock, sleep
        self._booked: deque[Booking] = deque()
        self._closed_until = -math.inf
        self._turn = asyncio.Lock()

    async def acquire(self, tokens: int) -> Booking:
        """Wait until a request of about so many tokens fits, and book it."""
        async with self._turn:
            while (wait := self._wait(tokens)) > 0:
                await self._sleep(min(wait, _LOOK_AGAIN))
            booking = Booking(self._clock() + _MINUTE, tokens)
            self._booked.append(booking)
            return booking

    @staticmethod
    def settle(booking: Booking, tokens: int) -> None:
        """Put the tokens that a request really took in the place of the estimate."""
        booking.tokens = tokens

    def pause(self, seconds: float) -> None:
        """Let nothing through for so long: the endpoint asked for it."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)

    def _wait(self, tokens: int) -> float:
        """Return after how many seconds a request fits, as things stand; 0 or less: now."""
        now = self._clock()
        while self._booked and self._booked[0].expires <= now:
            self._booked.popleft()
        opens = self._closed_until
        if self._requests is not None and len(self._booked) >= self._requests:
            opens = max(opens, self._booked[-self._requests].expires)
        if self._tokens is not None:
            opens = max(opens, self._room_for(tokens, self._tokens))
        return opens - now

    def _room_for(self, tokens: int, limit: int) -> float:
        """Return when enough bookings have expired for so many tokens more."""
        excess = sum(booking.tokens for booking in self._booked) + tokens - limit
        opens = -math.inf
        for booking in self._booked:
            if excess <= 0:
                break
            opens = booking.expires
            excess -= booking.tokens
        return opens


def backoff(failures: int) -> float:
    """Return how many seconds an endpoint is left alone after so many failures in a row."""
    return retries.backoff(failures, _FIRST_BACKOFF, _LONGEST_BACKOFF)
