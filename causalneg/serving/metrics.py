"""Counts and times of the server, in Prometheus' text format."""

import os
from collections.abc import Sequence
from pathlib import Path

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from causalneg.serving.schema import Info, Timings

CONTENT_TYPE = CONTENT_TYPE_LATEST

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where processes share their numbers; read when prometheus_client is imported
_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The numbers of this process, and when rendered those of all processes that share the folder."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._shared = os.environ.get(_FOLDER)
        self._seen: tuple[str, int] | None = None
        self._version: str | None = None
        self._stages = {
            "queue": self._histogram("queue_seconds", "Time that a request waited for the encoder."),
            "tokenise": self._histogram("tokenise_seconds", "Time in the tokenizer."),
            "encode": self._histogram("encode_seconds", "Time in the encoder."),
            "search": self._histogram("search_seconds", "Time in the index."),
            "rerank": self._histogram("rerank_seconds", "Time in the cross-encoder."),
        }
        self._request_seconds = self._histogram("request_seconds", "Time of a whole request.", ["route"])
        self._requests = self._counter("requests", "Requests answered; 499 are those whose client left.", True)
        self._queries = self._counter("queries", "Queries and inputs encoded.")
        self._truncated = self._counter("truncated", "Queries and inputs whose end was cut.")
        self.waiting = self._gauge("waiting_tokens", "Tokens that wait for the encoder.", "livesum")
        self.in_flight = self._gauge("in_flight", "Requests being answered.", "livesum")
        self._index = self._gauge("index_info", "Processes that answer with a version.", "livesum", ["version"])
        self._rows = self._gauge("rows", "Passages that can be found.", "livemax")
        self._changes = self._gauge("changes", "Number of the last change that is known.", "livemax")

    def _histogram(self, name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(f"causalneg_{name}", text, labels, registry=self._registry, buckets=_SECONDS)

    def _counter(self, name: str, text: str, by_route: bool = False) -> Counter:
        labels = ("route", "status") if by_route else ()
        return Counter(f"causalneg_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, mode: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"causalneg_{name}", text, labels, registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is a template, never a path."""
        self._requests.labels(route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def answered(self, timings: Timings, truncated: Sequence[bool], *, reranked: bool = False) -> None:
        """Count texts, and where their time went."""
        for name, histogram in self._stages.items():
            if name != "rerank" or reranked:
                histogram.observe(getattr(timings, name) / 1000)
        self._queries.inc(len(truncated))
        if any(truncated):
            self._truncated.inc(sum(truncated))

    def is_new(self, version: str, change: int) -> bool:
        """Whether an answer came from another version, or knows another change, than the one before."""
        before, self._seen = self._seen, (version, change)
        return self._seen != before

    def index(self, info: Info) -> None:
        """Note what is served."""
        self._rows.set(info.rows)
        self._changes.set(info.change)
        if self._version not in (None, info.index_version):
            self._forget_version()
        self._version = info.index_version
        self._index.labels(info.index_version).set(1)

    def _forget_version(self) -> None:
        if self._shared:  # the shared files cannot forget
            self._index.labels(self._version).set(0)
        else:
            self._index.remove(self._version)

    def render(self) -> bytes:
        """Return all numbers as text."""
        if not self._shared:
            return generate_latest(self._registry)
        _bury(Path(self._shared))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._shared)
        return generate_latest(registry)


def _bury(folder: Path) -> None:
    """Take away the gauges of processes that ended without a word, as killed ones do."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rsplit("_", 1)[1]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            mark_process_dead(int(pid), str(folder))
