"""Limits of an endpoint: no minute holds more than they allow, and nothing waits longer than it must."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.engines.limits import Booking, MinuteLimits, backoff
from causalneg.retries import retry_after

NOW = datetime(2025, 10, 25, 12, 0, 0, tzinfo=UTC)


class FakeTime:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def with_limits(
    requests: int | None, tokens: int | None, work: Callable[[MinuteLimits, FakeTime], Awaitable[None]]
) -> None:
    async def scenario() -> None:
        time = FakeTime()
        await work(MinuteLimits(requests, tokens, time.clock, time.sleep), time)

    asyncio.run(scenario())


def starts_of(requests: int | None, tokens: int | None, sizes: list[int]) -> list[float]:
    """Return when requests of these sizes, all there from the start, were let through."""
    starts: list[float] = []

    async def work(limits: MinuteLimits, time: FakeTime) -> None:
        async def one(size: int) -> None:
            await limits.acquire(size)
            starts.append(time.now - 1000.0)

        await asyncio.gather(*map(one, sizes))

    with_limits(requests, tokens, work)
    return starts


def test_without_limits_nothing_waits() -> None:
    assert starts_of(None, None, [10**9] * 100) == [0.0] * 100


def test_requests_of_a_minute() -> None:
    assert starts_of(3, None, [1] * 8) == [0.0] * 3 + [60.0] * 3 + [120.0] * 2


def test_tokens_of_a_minute() -> None:
    assert starts_of(None, 100, [60, 40, 1, 99]) == [0.0, 0.0, 60.0, 60.0]


def test_a_request_above_the_limit_goes_alone() -> None:
    assert starts_of(None, 100, [10, 500, 10]) == [0.0, 60.0, 120.0]


@given(
    st.integers(1, 5) | st.none(),
    st.integers(1, 100) | st.none(),
    st.lists(st.integers(0, 60), min_size=1, max_size=20),
)
def test_no_60_seconds_hold_more_than_the_limits(requests: int | None, tokens: int | None, sizes: list[int]) -> None:
    starts = starts_of(requests, tokens, sizes)
    assert starts == sorted(starts)
    for first in starts:
        window = [size for start, size in zip(starts, sizes, strict=True) if first <= start < first + 60]
        assert requests is None or len(window) <= requests
        assert tokens is None or sum(window) <= tokens or [size for size in window if size] == [max(window)]


def test_an_estimate_that_was_too_high_makes_room_once_it_is_settled() -> None:
    async def work(limits: MinuteLimits, time: FakeTime) -> None:
        booking = await limits.acquire(100)
        limits.settle(booking, 20)
        await limits.acquire(80)
        assert time.now == 1000.0

    with_limits(None, 100, work)


def test_a_waiting_request_sees_that_another_was_settled() -> None:
    async def work(limits: MinuteLimits, time: FakeTime) -> None:
        booking = await limits.acquire(100)
        waiting = asyncio.create_task(limits.acquire(50))
        await asyncio.sleep(0)
        limits.settle(booking, 10)
        await waiting
        assert time.now < 1003.0

    with_limits(None, 100, work)


def test_an_estimate_that_was_too_low_counts_in_full() -> None:
    async def work(limits: MinuteLimits, time: FakeTime) -> None:
        limits.settle(await limits.acquire(10), 95)
        await limits.acquire(10)
        assert time.now == 1060.0

    with_limits(None, 100, work)


def test_a_pause_holds_all_back() -> None:
    async def work(limits: MinuteLimits, time: FakeTime) -> None:
        limits.pause(7)
        limits.pause(2)  # the longer one holds
        booking: Booking = await limits.acquire(1)
        assert time.now == 1007.0
        assert booking.expires == 1067.0

    with_limits(None, None, work)


def test_a_waiting_request_that_is_cancelled_lets_the_next_through() -> None:
    async def work(limits: MinuteLimits, time: FakeTime) -> None:
        await limits.acquire(1)
        waiting = asyncio.create_task(limits.acquire(1))
        await asyncio.sleep(0)
        waiting.cancel()
        await limits.acquire(1)
        assert time.now == 1060.0

    with_limits(1, None, work)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        ("1.5", 1.5),
        ("-3", 0),
        ("86400", 120),
        ("inf", 0),
        ("nan", 0),
        ("soon", 0),
        ("Sat, 25 Oct 2025 12:00:30 GMT", 30),
        ("Sat, 25 Oct 2025 12:00:30 -0000", 30),
        ("Sat, 25 Oct 2025 11:00:00 GMT", 0),
        ("Sun, 26 Oct 2025 11:00:00 GMT", 120),
        ("Sat, 25 Oct 2025 12:00:00 +99999999999999", 0),
        ("Sat, 25 Oct 99999999999999999999 12:00:00 GMT", 0),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds


def test_backoff_doubles_up_to_half_a_minute() -> None:
    for failures, longest in ((1, 1), (2, 2), (3, 4), (6, 30), (2000, 30)):
        assert all(longest / 2 <= backoff(failures) <= longest for _ in range(20))
