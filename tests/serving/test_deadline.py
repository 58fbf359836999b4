"""The client's time is for the whole of a request, the server's for each part."""

import asyncio
import time

import pytest

from causalneg.serving.deadline import Deadline


def test_the_lesser_of_both_counts() -> None:
    now = time.monotonic()
    assert Deadline(60, began=now).at == now + 60
    assert Deadline(60, 5, now).at == now + 5
    assert Deadline(5, 60, now).at == now + 5


def test_a_part_has_the_servers_time_anew_and_no_more_of_the_clients() -> None:
    long_ago = time.monotonic() - 100
    deadline = Deadline(60, 150, long_ago)
    assert deadline.at == long_ago + 60
    deadline.begin_part()
    assert deadline.at == long_ago + 150
    without = Deadline(60, began=long_ago)
    without.begin_part()
    assert without.at >= long_ago + 160


def test_the_block_lasts_as_long_as_the_part() -> None:
    async def use() -> None:
        late = Deadline(1, began=time.monotonic() - 100)
        with pytest.raises(TimeoutError):
            async with late.timeout():
                await asyncio.sleep(10)
        deadline = Deadline(60)
        async with deadline.timeout() as timeout:
            before = timeout.when()
            deadline.begin_part()
            after = timeout.when()
        assert before is not None
        assert after is not None
        assert after > before

    asyncio.run(use())
