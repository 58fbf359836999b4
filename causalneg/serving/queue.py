"""A queue between the event loop and one worker thread that is never idle while there is work.

Nothing waits for a batch to fill: whenever the worker is free, it takes what is there. So batches are small when
requests are few, and grow by themselves when they are many.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_PACE_WEIGHT = 0.2  # of the last batch in the measured pace


class Overloaded(Exception):  # noqa: N818 - says what is so
    """More waits than is allowed.

    Attributes:
        retry_after: seconds after which what waits now will be done, at least 1.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too much is waiting; try again in {retry_after} s")
        self.retry_after = retry_after


class DeadlinePassed(Exception):  # noqa: N818 - says what is so
    """The deadline came before all tasks had begun."""


class Closed(Exception):  # noqa: N818 - says what is so
    """The queue takes nothing any more."""


class Submitted(NamedTuple, Generic[Result]):
    """What came of tasks that were submitted together.

    Attributes:
        results: of each task, in their order.
        waited: seconds until the first of them began.
    """

    results: list[Result]
    waited: float


class _Request(Generic[Task, Result]):
    """Tasks that were submitted together. Its future belongs to the event loop, all else to who holds the lock."""

    def __init__(self, tasks: Sequence[Task], costs: list[int], deadline: float | None) -> None:
        self.tasks, self.costs = tasks, costs
        self.deadline = math.inf if deadline is None else deadline
        self.future: asyncio.Future[Submitted[Result]] = asyncio.get_running_loop().create_future()
        self.begun = 0
        self.done = 0
        self.results: list[Result | None] = [None] * len(tasks)
        self.error: Exception | None = None
        self.submitted = time.monotonic()
        self.waited = 0.0

    @property
    def waiting(self) -> int:
        """Cost of the tasks that have not begun."""
        return sum(self.costs[self.begun :])

    def settle(self) -> None:
        """Give the submitter what came of it, unless it has left."""
        if self.future.done():
            return
        if self.error:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(Submitted(self.results, self.waited))  # type: ignore[arg-type] # all are there


class _Failure(NamedTuple):
    error: Exception


def _failure(error: BaseException) -> _Failure:
    """Make what a submitter can be told; some exceptions would end the event loop instead."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return _Failure(error)
    told = RuntimeError(f"{type(error).__name__}: {error}")
    told.__cause__ = error
    return _Failure(told)


class WorkQueue(Generic[Task, Result]):
    """Work for one thread, submitted from one event loop.

    Args:
        work: turns tasks into as many results, in the worker's thread. If it fails for several tasks they are tried
            one by one, so that only the culprit fails.
        cost: of tasks that are worked on together, for instance their tokens with padding; with more tasks never
            less, and never less than the sum of the costs of each.
        budget: cost of what is worked on together, at most; a task that alone costs more is worked on alone.
        limit: cost of what may wait. What costs more is taken only when nothing waits.
    """

    def __init__(
        self,
        work: Callable[[list[Task]], list[Result]],
        cost: Callable[[list[Task]], int],
        budget: int,
        limit: int,
    ) -> None:
        self._work, self._cost, self._budget, self._limit = work, cost, budget, limit
        self._change = threading.Condition()
        self._requests: deque[_Request[Task, Result]] = deque()  # those with tasks that have not begun
        self._waiting = 0
        self._in_flight = 0
        self._seconds_per_cost = 0.0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="work-queue", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the worker runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Cost of the tasks that have not begun, each by itself."""
        return self._waiting

    @property
    def in_flight(self) -> int:
        """Cost of the tasks that are worked on."""
        return self._in_flight

    async def submit(self, tasks: Sequence[Task], deadline: float | None = None) -> Submitted[Result]:
        """Have tasks worked on, and wait for it.

        A submitter that is cancelled takes back what has not begun.

        Args:
            tasks: any number.
            deadline: on `time.monotonic()`'s clock; tasks that have not begun by then never do.

        Raises:
            Overloaded: too much waits already.
            DeadlinePassed: there were such tasks.
            Closed: the queue was closed.
            Exception: what `work` raised for one of the tasks.
        """
        if not tasks:
            return Submitted([], 0.0)
        request: _Request[Task, Result] = _Request(tasks, [self._cost([task]) for task in tasks], deadline)
        self._put(request)
        timer = None
        if deadline is not None:
            timer = request.future.get_loop().call_later(deadline - time.monotonic(), self._expire, request)
        try:
            return await request.future
        finally:
            if timer:
                timer.cancel()
            self._take_back(request)

    def _put(self, request: _Request[Task, Result]) -> None:
        cost = request.waiting
        with self._change:
            if self._closed:
                raise Closed("the queue is closed")
            if self._waiting and self._waiting + cost > self._limit:
                left = (self._waiting + self._in_flight + cost) * self._seconds_per_cost
                raise Overloaded(max(1, math.ceil(left)))
            self._loop = request.future.get_loop()
            self._requests.append(request)
            self._waiting += cost
            self._change.notify()

    def _take_back(self, request: _Request[Task, Result]) -> bool:
        """Drop the tasks that have not begun; return whether there were any."""
        with self._change:
            return self._drop(request)

    def _drop(self, request: _Request[Task, Result]) -> bool:
        if request.begun == len(request.tasks):
            return False
        self._waiting -= request.waiting
        request.begun = len(request.tasks)
        self._requests.remove(request)
        return True

    def _expire(self, request: _Request[Task, Result]) -> None:
        if self._take_back(request):
            request.error = DeadlinePassed()
            request.settle()

    async def close(self, drain: bool = True) -> None:
        """Take nothing any more, and end the worker.

        Args:
            drain: finish what waits; otherwise it is told that the queue is closed.
        """
        with self._change:
            self._closed = True
            dropped = [] if drain and self._thread.is_alive() else list(self._requests)
            for request in dropped:
                self._drop(request)
            self._change.notify()
        for request in dropped:
            request.error = Closed("the queue is closed")
            request.settle()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            outcomes = self._outcomes([request.tasks[number] for request, number in batch])
            self._measure(time.monotonic() - started)
            self._tell(self._finished(batch, outcomes))

    def _next(self) -> list[tuple[_Request[Task, Result], int]]:
        """Wait for tasks and take as many as the budget allows; none when the queue is closed and empty."""
        while True:
            with self._change:
                while not self._requests and not self._closed:
                    self._change.wait()
                late = [request for request in self._requests if request.deadline <= time.monotonic()]
                for request in late:
                    self._drop(request)
                    request.error = DeadlinePassed()
                batch = self._begin()
                ended = self._closed and not self._requests
            self._tell(late)
            if batch or ended:
                return batch

    def _begin(self) -> list[tuple[_Request[Task, Result], int]]:
        """Take a batch."""
        found = list(self._affordable())
        count = self._largest([request.tasks[number] for request, number in found])
        batch, now = found[:count], time.monotonic()
        for request, number in batch:
            if not number:
                request.waited = now - request.submitted
            request.begun = number + 1
            self._waiting -= request.costs[number]
        self._in_flight = self._cost([request.tasks[number] for request, number in batch]) if batch else 0
        if batch:  # the next batch goes on behind the last request that was served
            while self._requests[-1] is not batch[-1][0]:
                self._requests.rotate(-1)
        for request in {id(request): request for request, _ in batch}.values():
            if request.begun == len(request.tasks):
                self._requests.remove(request)
        return batch

    def _affordable(self) -> Iterator[tuple[_Request[Task, Result], int]]:
        """Tasks in turn, one of each request and again, as long as their own costs fit into the budget."""
        spent = 0
        turn = deque((request, request.begun) for request in self._requests)
        while turn:
            request, number = turn.popleft()
            spent += request.costs[number]
            if spent > self._budget and spent > request.costs[number]:
                return
            yield request, number
            if number + 1 < len(request.tasks):
                turn.append((request, number + 1))

    def _largest(self, tasks: list[Task]) -> int:
        """Return how many tasks, from the first, may be worked on together."""
        low, high = min(1, len(tasks)), len(tasks)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._cost(tasks[:middle]) <= self._budget else (low, middle - 1)
        return low

    def _outcomes(self, tasks: list[Task]) -> list[Result | _Failure]:
        try:
            results = self._work(tasks)
            if len(results) != len(tasks):
                raise RuntimeError(f"{len(tasks)} tasks gave {len(results)} results")
            return list(results)
        except BaseException as error:  # libraries written in Rust raise such when they panic
            if len(tasks) == 1:
                return [_failure(error)]
            return [outcome for task in tasks for outcome in self._outcomes([task])]

    def _finished(
        self, batch: list[tuple[_Request[Task, Result], int]], outcomes: list[Result | _Failure]
    ) -> list[_Request[Task, Result]]:
        """Note what came of a batch; return the requests that are done with, one way or the other."""
        finished = []
        with self._change:
            self._in_flight = 0
            for (request, number), outcome in zip(batch, outcomes, strict=True):
                request.done += 1
                if isinstance(outcome, _Failure):
                    request.error = outcome.error
                    self._drop(request)
                    finished.append(request)
                else:
                    request.results[number] = outcome
                    if request.done == len(request.tasks):
                        finished.append(request)
        return finished

    def _measure(self, seconds: float) -> None:
        pace = seconds / max(1, self._in_flight)
        old = self._seconds_per_cost or pace
        self._seconds_per_cost = old + _PACE_WEIGHT * (pace - old)

    def _tell(self, requests: list[_Request[Task, Result]]) -> None:
        """Wake the event loop, once for all."""
        if requests and self._loop:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                self._loop.call_soon_threadsafe(_settle, requests)


def _settle(requests: list[_Request[Task, Result]]) -> None:
    for request in requests:
        request.settle()
