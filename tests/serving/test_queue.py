"""The queue gives everyone their own results, in order, within its budget, and never idles."""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.serving.queue import Closed, DeadlinePassed, Overloaded, Submitted, WorkQueue

SECONDS = 60.0  # after which a test that hangs fails


def padded(tasks: Sequence[int]) -> int:
    """Cost of tasks that are numbers: rows times the largest."""
    return len(tasks) * max(tasks)


class Desk:
    """Work that is recorded, and that waits where it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()

    def work(self, tasks: list[int]) -> list[int]:
        self.batches.append(list(tasks))
        self.begun.set()
        assert self.open.wait(SECONDS)
        if any(task == 13 for task in tasks):
            raise ValueError("thirteen")
        return [-task for task in tasks]


@asynccontextmanager
async def running(desk: Desk, budget: int = 100, limit: int = 10_000):  # noqa: ANN201
    queue: WorkQueue[int, int] = WorkQueue(desk.work, padded, budget, limit)
    queue.start()
    try:
        yield queue
    finally:
        desk.open.set()
        await queue.close()


@asynccontextmanager
async def busy(desk: Desk, budget: int = 100, limit: int = 10_000):  # noqa: ANN201
    """A queue whose worker is held at a first task."""
    async with running(desk, budget, limit) as queue:
        desk.open.clear()
        first = asyncio.create_task(queue.submit([1]))
        await asyncio.to_thread(desk.begun.wait, SECONDS)
        yield queue
        desk.open.set()
        await first


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), SECONDS)

    asyncio.run(limited())


def submit(queue: WorkQueue[int, int], *tasks: int, deadline: float | None = None) -> asyncio.Task[Submitted[int]]:
    return asyncio.create_task(queue.submit(list(tasks), deadline))


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


REQUESTS = st.lists(st.lists(st.integers(1, 60).filter(lambda task: task != 13), max_size=12), max_size=25)


@given(REQUESTS, st.integers(1, 200))
def test_everyone_gets_their_own_results_in_order_and_within_the_budget(requests: list[list[int]], budget: int) -> None:
    desk = Desk()

    async def scenario() -> None:
        async with running(desk, budget) as queue:
            submitted = await asyncio.gather(*(queue.submit(tasks) for tasks in requests))
            assert [s.results for s in submitted] == [[-task for task in tasks] for tasks in requests]
            assert all(s.waited >= 0 for s in submitted)
            assert queue.waiting == 0

    run(scenario)
    assert sorted(chain(*desk.batches)) == sorted(chain(*requests))
    assert all(padded(batch) <= budget or len(batch) == 1 for batch in desk.batches)


@given(REQUESTS.filter(any), st.integers(1, 200))
def test_a_free_worker_takes_all_that_fits(requests: list[list[int]], budget: int) -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk, budget) as queue:
            waiting = [submit(queue, *tasks) for tasks in requests]
            await turns()
            assert queue.waiting == sum(map(sum, requests))
            assert queue.in_flight == 1
            desk.open.set()
            await asyncio.gather(*waiting)

    run(scenario)
    batches = desk.batches[1:]
    for batch, following in pairwise(batches):
        assert padded([*batch, following[0]]) > budget


def test_tasks_are_taken_in_turn_from_each_request() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk, budget=8) as queue:
            waiting = [submit(queue, *[2] * 9), submit(queue, 1), submit(queue, 2, 2)]
            await turns()
            desk.open.set()
            await asyncio.gather(*waiting)

    run(scenario)
    assert desk.batches[1:] == [[2, 1, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]]


def test_a_batch_of_many_tasks_does_not_hold_up_single_ones() -> None:
    desk = Desk()
    order: list[str] = []

    async def scenario() -> None:
        async with busy(desk, budget=10) as queue:
            large = submit(queue, *[5] * 100)
            large.add_done_callback(lambda _: order.append("large"))
            await turns()
            single = submit(queue, 5)
            single.add_done_callback(lambda _: order.append("single"))
            await turns()
            desk.open.set()
            await asyncio.gather(large, single)

    run(scenario)
    assert order == ["single", "large"]


def test_a_task_above_the_budget_goes_alone() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk, budget=10) as queue:
            waiting = [submit(queue, 2), submit(queue, 50), submit(queue, 3)]
            await turns()
            desk.open.set()
            await asyncio.gather(*waiting)

    run(scenario)
    assert desk.batches[1:] == [[2], [50], [3]]


def test_what_is_cancelled_is_not_worked_on() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk) as queue:
            leaves, stays = submit(queue, 7, 8), submit(queue, 9)
            await turns()
            leaves.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaves
            assert queue.waiting == 9
            desk.open.set()
            assert (await stays).results == [-9]

    run(scenario)
    assert desk.batches == [[1], [9]]


def test_who_leaves_while_worked_for_harms_nobody() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with running(desk) as queue:
            desk.open.clear()
            leaves = submit(queue, 7)
            await asyncio.to_thread(desk.begun.wait, SECONDS)
            leaves.cancel()
            stays = submit(queue, 8)
            await turns()
            desk.open.set()
            assert (await stays).results == [-8]

    run(scenario)


def test_too_much_waiting_is_refused_at_once_and_says_when_to_come_again() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk, limit=20) as queue:
            large = submit(queue, *[10] * 5)  # above the limit by itself, but nothing waits
            await turns()
            for tasks in ([1], [1, 2, 3]):
                with pytest.raises(Overloaded) as refused:
                    await queue.submit(tasks)
                assert refused.value.retry_after >= 1
            desk.open.set()
            await large
            assert (await queue.submit([20])).results == [-20]

    run(scenario)
    assert sorted(chain(*desk.batches)) == [1, 10, 10, 10, 10, 10, 20]


def test_up_to_the_limit_may_wait() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk, limit=20) as queue:
            waiting = [submit(queue, 10), submit(queue, 10)]
            await turns()
            with pytest.raises(Overloaded):
                await queue.submit([1])
            waiting[0].cancel()
            await turns()
            waiting[0] = submit(queue, 9)
            await turns()
            desk.open.set()
            await asyncio.gather(*waiting)

    run(scenario)


def test_the_time_to_come_again_follows_the_measured_pace() -> None:
    def slow(tasks: list[int]) -> list[int]:
        time.sleep(0.02 * len(tasks))  # 20 ms for a cost of 1
        return tasks

    async def scenario() -> None:
        queue: WorkQueue[int, int] = WorkQueue(slow, padded, 1, 500)
        queue.start()
        await queue.submit([1, 1, 1])
        waiting = submit(queue, *[1] * 500)
        await turns()
        with pytest.raises(Overloaded) as refused:
            await queue.submit([1] * 5)
        assert refused.value.retry_after >= 10
        waiting.cancel()
        await queue.close()

    run(scenario)


def test_what_is_late_is_told_so_and_never_worked_on() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk) as queue:
            late = submit(queue, 7, deadline=time.monotonic() + 0.02)
            gone = submit(queue, 6, deadline=time.monotonic() - 1)
            early = submit(queue, 8, deadline=time.monotonic() + SECONDS)
            for task in (late, gone):  # while the worker is still held
                with pytest.raises(DeadlinePassed):
                    await task
            assert queue.waiting == 8
            desk.open.set()
            assert (await early).results == [-8]

    run(scenario)
    assert desk.batches == [[1], [8]]


def test_the_rest_of_a_late_request_is_dropped() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with running(desk, budget=5) as queue:
            desk.open.clear()
            late = submit(queue, 5, 5, 5, deadline=time.monotonic() + 0.05)
            with pytest.raises(DeadlinePassed):
                await late

    run(scenario)
    assert len(desk.batches) <= 1


def test_only_the_culprit_fails() -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk, budget=1000) as queue:
            good, bad, mixed = submit(queue, 4, 5), submit(queue, 13), submit(queue, 6, 13, 7)
            await turns()
            desk.open.set()
            assert (await good).results == [-4, -5]
            for task in (bad, mixed):
                with pytest.raises(ValueError, match="thirteen"):
                    await task
            assert (await queue.submit([3])).results == [-3]
            assert queue.waiting == 0

    run(scenario)


@pytest.mark.parametrize(
    "failure",
    [SystemExit("out"), KeyboardInterrupt(), StopIteration("over"), type("Panic", (BaseException,), {})("rust")],
)
def test_no_failure_of_work_ends_the_worker_or_the_loop(failure: BaseException) -> None:
    def work(tasks: list[int]) -> list[int]:
        if tasks == [0]:
            raise failure
        return tasks

    async def scenario() -> None:
        queue: WorkQueue[int, int] = WorkQueue(work, len, 10, 100)
        queue.start()
        with pytest.raises(RuntimeError, match=type(failure).__name__):
            await queue.submit([0])
        assert (await queue.submit([1])).results == [1]
        await queue.close()

    run(scenario)


def test_a_wrong_number_of_results_is_an_error() -> None:
    async def scenario() -> None:
        queue: WorkQueue[int, int] = WorkQueue(lambda tasks: tasks[1:], len, 10, 100)
        queue.start()
        with pytest.raises(RuntimeError, match="1 tasks gave 0 results"):
            await queue.submit([1, 2])
        await queue.close()

    run(scenario)


@pytest.mark.parametrize("drain", [True, False])
def test_closing_finishes_what_waits_or_drops_it(drain: bool) -> None:
    desk = Desk()

    async def scenario() -> None:
        async with busy(desk, budget=5) as queue:
            waiting = [submit(queue, 5), submit(queue, 4)]
            await turns()
            closing = asyncio.create_task(queue.close(drain))
            await turns()
            with pytest.raises(Closed):
                await queue.submit([1])
            desk.open.set()
            await closing
            if drain:
                assert [(await task).results for task in waiting] == [[-5], [-4]]
            else:
                for task in waiting:
                    with pytest.raises(Closed):
                        await task
            await queue.close()

    run(scenario)
    assert desk.batches == ([[1], [5], [4]] if drain else [[1]])


def test_a_queue_that_was_never_started_closes() -> None:
    async def scenario() -> None:
        queue: WorkQueue[int, int] = WorkQueue(Desk().work, padded, 10, 100)
        waiting = submit(queue, 1)
        await turns()
        await queue.close()
        with pytest.raises(Closed):
            await waiting

    run(scenario)


def test_a_storm_of_clients_that_leave_fail_and_come_late() -> None:
    draw = random.Random(0)  # noqa: S311
    worked: list[int] = []

    def work(tasks: list[int]) -> list[int]:
        worked.extend(tasks)
        time.sleep(draw.random() * 0.002)
        if any(task % 50 == 7 for task in tasks):
            raise ValueError("seven")
        return [task * 2 for task in tasks]

    async def client(queue: WorkQueue[int, int], tasks: list[int]) -> str:
        deadline = time.monotonic() + draw.random() * 0.2 if draw.random() < 0.3 else None
        try:
            async with asyncio.timeout(draw.random() * 0.2 if draw.random() < 0.3 else None):
                results = (await queue.submit(tasks, deadline)).results
        except (Overloaded, DeadlinePassed, TimeoutError) as error:
            return type(error).__name__
        except ValueError:
            assert any(task % 50 == 7 for task in tasks)
            return "ValueError"
        assert results == [task * 2 for task in tasks]
        return "results"

    async def scenario() -> None:
        queue: WorkQueue[int, int] = WorkQueue(work, len, 8, 200)
        queue.start()
        clients, number = [], 0
        for _ in range(400):
            size = draw.choice([1, 1, 1, 5, 30])
            clients.append(asyncio.create_task(client(queue, list(range(number, number + size)))))
            number += size
            await asyncio.sleep(draw.random() * 0.002)
        outcomes = await asyncio.gather(*clients)
        assert {"results", "ValueError"} <= set(outcomes)
        assert (queue.waiting, queue.in_flight) == (0, 0)
        await queue.close()

    run(scenario)
    counts = {task: worked.count(task) for task in worked}
    assert max(counts.values()) <= 2  # twice only what was tried again apart from a culprit
