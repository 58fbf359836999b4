"""The watchdog: an engine that answers or computes is slow at most; one that does neither has stalled."""

from dataclasses import dataclass

from causalneg.generation.engines.watchdog import Watchdog


@dataclass
class Engine:
    """A clock, and the seconds that an engine has computed."""

    now: float = 0.0
    computed: float = 0.0

    def watched(self, by_computing: bool = True) -> Watchdog:
        return Watchdog(100, (lambda: self.computed) if by_computing else None, lambda: self.now)

    def stalls(self, watchdog: Watchdog, seconds: int, busy: float = 0.0) -> bool:
        """Let time pass, with a look every second, and say whether the engine was found stalled."""
        for _ in range(seconds):
            self.now += 1
            self.computed += busy
            if watchdog.stalled():
                return True
        return False


def test_an_engine_that_does_nothing_has_stalled() -> None:
    engine = Engine()
    watchdog = engine.watched()
    watchdog.begin()
    assert not engine.stalls(watchdog, 99)
    assert engine.stalls(watchdog, 2)


def test_an_engine_without_work_never_stalls() -> None:
    engine = Engine()
    watchdog = engine.watched()
    assert not engine.stalls(watchdog, 1000)
    watchdog.begin()
    watchdog.end()
    assert not engine.stalls(watchdog, 1000)
    watchdog.begin()
    assert not engine.stalls(watchdog, 99), "the time without work does not count"
    assert engine.stalls(watchdog, 2)


def test_an_engine_that_computes_is_slow_and_no_more() -> None:
    engine = Engine()
    watchdog = engine.watched()
    watchdog.begin()
    assert not engine.stalls(watchdog, 10_000, busy=0.1), "a tenth of a core, as beside many other processes"
    assert engine.stalls(watchdog, 200, busy=0.001), "waiting takes a little, too"


def test_any_output_of_any_request_is_progress() -> None:
    engine = Engine()
    watchdog = engine.watched(by_computing=False)
    watchdog.begin()
    watchdog.begin()
    for _ in range(50):
        assert not engine.stalls(watchdog, 90)
        watchdog.progressed()
    watchdog.end()
    assert not engine.stalls(watchdog, 90), "so is a request that ends"
    assert engine.stalls(watchdog, 20)


def test_where_computing_says_nothing_only_outputs_count() -> None:
    engine = Engine()
    watchdog = engine.watched(by_computing=False)
    watchdog.begin()
    assert engine.stalls(watchdog, 200, busy=1.0)
