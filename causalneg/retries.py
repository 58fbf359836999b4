"""When to ask again: what an answer of HTTP says of it, and how long to wait after failures."""

import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST_RETRY_AFTER = 120.0  # seconds
_jitter = random.SystemRandom()  # leaves the seeded generators alone


def backoff(failures: int, first: float, longest: float) -> float:
    """Return how many seconds to wait after so many failures in a row: doubling from the first, with jitter."""
    return min(longest, first * 2.0 ** min(failures - 1, 10)) * _jitter.uniform(0.5, 1.0)


def retry_after(header: str | None, now: datetime) -> float:
    """Return the seconds that a Retry-After header asks for: a number or an HTTP date; 0 where it says nothing.

    At most 120, so that an endpoint can't stop a run for hours.
    """
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        seconds = _until(header, now)
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER) if math.isfinite(seconds) else 0.0


def _until(date: str, now: datetime) -> float:
    """Return the seconds until an HTTP date; 0 if it is none."""
    try:
        then = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return 0.0
    return ((then if then.tzinfo else then.replace(tzinfo=UTC)) - now).total_seconds()
