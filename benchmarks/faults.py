"""What a served retriever withstands: each fault is done for real, and its row says what was lost.

    python -m benchmarks.faults [--only replicas swaps overload stop soak] [--soak-seconds 600]

The workspace is the embedded sample's corpus with two index versions whose ids differ, so that an answer that mixes
them is seen. `ours` is what was reached and `peer` what is asked for; a ratio of 1 or more means that it holds.
"""

import argparse
import asyncio
import json
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np

from benchmarks.common import RESULTS, Row, publish, with_earlier
from benchmarks.endpoints.load import Load, closed_loop
from benchmarks.endpoints.server import Server, causalneg_server
from benchmarks.endpoints.two_versions import FIRST, SECOND, make_workspace, mixed
from causalneg.console import Reporter

_BACK_SECONDS = 15.0  # a killed replica is to be back after
_GIVE_UP_SECONDS = 120.0
_DEADLINE_MS = 5000.0
_QUERY_TOKENS = 16  # of a query of the sample, about
_BATCH = 16  # queries of the larger requests


@dataclass(frozen=True)
class Sizes:
    """How much of each fault."""

    clients: int
    kills: int
    swaps: int
    load_seconds: float
    soak_seconds: float


FULL = Sizes(clients=16, kills=5, swaps=100, load_seconds=20, soak_seconds=600)
QUICK = Sizes(clients=4, kills=1, swaps=3, load_seconds=2, soak_seconds=5)


def _holds(metric: str, unit: str, reached: float, asked: float, what: str) -> Row:
    """Return a row for a value that is to be at most `asked`; nought where nought is asked."""
    ratio = (asked / reached if reached else 1.0) if asked else (1.0 if not reached else 0.0)
    return Row(metric, unit, reached, what, asked, max(ratio, 1.0) if reached <= asked else ratio, 1.0)


def _queries(folder: Path) -> list[bytes]:
    lines = (folder / "queries.txt").read_text(encoding="utf-8").splitlines()
    return [json.dumps({"query": line, "limit": 5}).encode() for line in lines]


async def _with_one_retry(url: str, body: bytes, until: float, counts: dict[str, int]) -> None:
    """Ask again and again over fresh or kept connections; a request that fails is sent once more."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while time.monotonic() < until:
            for attempt in (1, 2):
                try:
                    answer = await client.post(f"{url}/v1/search", content=body)
                except httpx.TransportError:
                    counts["retried"] += attempt == 1
                    counts["lost"] += attempt == 2
                    await asyncio.sleep(0.05)
                    continue
                if answer.is_server_error:  # Ray's proxy says so of a replica that died with the request
                    counts["retried"] += attempt == 1
                    counts["lost"] += attempt == 2
                    continue
                counts["answered"] += answer.status_code == httpx.codes.OK
                counts["refused"] += answer.status_code != httpx.codes.OK
                break


def _answering(server: Server, headers: dict[str, str]) -> int:
    """Return how many replicas answer, as the server says."""
    with httpx.Client(trust_env=False, timeout=10, headers=headers) as client:
        try:
            answer = client.get(f"{server.url}/v1/index")
        except httpx.TransportError:
            return 0
    return sum(answer.json()["replicas"].values()) if answer.is_success else 0


def _wait_for_replicas(server: Server, wanted: int, headers: dict[str, str] | None = None) -> float:
    """Wait until so many replicas answer; return after how many seconds they did."""
    began = time.monotonic()
    while time.monotonic() - began < _GIVE_UP_SECONDS:
        if len(server.replicas()) >= wanted and _answering(server, headers or {}) >= wanted:
            return time.monotonic() - began
        time.sleep(0.2)
    return float("inf")


def kill_replicas(workspace: Path, sizes: Sizes) -> list[Row]:
    """Kill one of two replicas with SIGKILL under load, and wait for it to be back, again and again."""
    bodies = _queries(workspace)
    counts = dict.fromkeys(("answered", "refused", "retried", "lost"), 0)
    back = 0.0

    async def load(server: Server) -> None:
        until = time.monotonic() + sizes.load_seconds
        await asyncio.gather(
            *(_with_one_retry(server.url, bodies[n], until, counts) for n in range(sizes.clients)),
            asyncio.to_thread(kill, server),
        )

    def kill(server: Server) -> None:
        nonlocal back
        time.sleep(1)
        victim = server.replicas()[0]
        victim.kill()
        victim.wait()
        back = max(back, _wait_for_replicas(server, 2))

    with causalneg_server(str(workspace), replicas=2) as server:
        _wait_for_replicas(server, 2)
        for _ in range(sizes.kills):
            asyncio.run(load(server))
    kills = f"{sizes.kills} x kill -9 of one of two replicas, {counts['answered']} answers, {counts['retried']} retried"
    return [
        _holds("killed replica: lost with one retry", "requests", counts["lost"] + counts["refused"], 0, kills),
        _holds("killed replica: back after", "s", back, _BACK_SECONDS, kills),
    ]


def swap_versions(workspace: Path, sizes: Sizes) -> list[Row]:
    """Swap two versions to and fro under load, the last time by rolling back."""
    bodies, headers = _queries(workspace), {"X-API-Key": (workspace / "key.txt").read_text()}

    async def swapping(server: Server) -> tuple[Load, int]:
        stop, done = asyncio.Event(), 0
        load = asyncio.create_task(
            closed_loop(f"{server.url}/v1/search", bodies, sizes.clients, stop=stop, headers=headers, keep=True)
        )
        async with httpx.AsyncClient(trust_env=False, timeout=120, headers=headers) as client:
            for number in range(sizes.swaps):
                if number == sizes.swaps - 1:
                    answer = await client.post(f"{server.url}/v1/index/rollback")
                else:
                    wanted = {"version": SECOND if number % 2 == 0 else FIRST}
                    answer = await client.post(f"{server.url}/v1/index/activate", json=wanted)
                done += answer.status_code == httpx.codes.OK
        stop.set()
        return await load, done

    with causalneg_server(str(workspace), replicas=2, keys=workspace / "keys.json") as server:
        _wait_for_replicas(server, 2, headers)
        load, done = asyncio.run(swapping(server))
    failed = load.failures.total() + sum(n for status, n in load.statuses.items() if status != httpx.codes.OK)
    seen = {json.loads(body)["index_version"] for _, body in load.answers}
    what = (
        f"{done} of {sizes.swaps} swaps, {len(load.answers)} answers of {len(seen)} versions, {sizes.clients} clients"
    )
    return [
        _holds("swaps: not done", "swaps", sizes.swaps - done, 0, what),
        _holds("swaps: failed requests", "requests", failed, 0, what),
        _holds("swaps: answers that mix versions", "answers", sum(mixed(b) for _, b in load.answers), 0, what),
    ]


def overload(workspace: Path, sizes: Sizes) -> list[Row]:
    """Ask with ten times as many clients as the queue has room for."""
    room = 2048  # tokens that may wait
    clients = 10 * room // (_QUERY_TOKENS * _BATCH)
    texts = [json.loads(body)["query"] for body in _queries(workspace)]
    batches = [
        json.dumps({"queries": (texts * _BATCH)[n : n + _BATCH], "limit": 5}).encode() for n in range(len(texts))
    ]
    bodies = [body for pair in zip(_queries(workspace), batches, strict=True) for body in pair]
    with causalneg_server(str(workspace), max_waiting_tokens=room, timeout_ms=int(_DEADLINE_MS)) as server:
        url = f"{server.url}/v1/search"
        load = asyncio.run(closed_loop(url, bodies, clients, sizes.load_seconds))
    other = load.failures.total() + sum(n for status, n in load.statuses.items() if status not in (200, 429))
    said = ", ".join(f"{n} x {status}" for status, n in load.statuses.items())
    p99 = load.percentile(99)
    return [
        _holds("overload: neither 200 nor 429", "requests", other, 0, f"{clients} clients: {said}"),
        _holds("overload: p99 of what was accepted", "ms", p99, _DEADLINE_MS, "the deadline of a request"),
    ]


def stop_under_load(workspace: Path, sizes: Sizes) -> list[Row]:
    """Send SIGTERM while requests are in flight: what was taken is answered, and the server ends."""
    bodies = _queries(workspace)

    async def stopping(server: Server) -> Load:
        load = asyncio.create_task(closed_loop(f"{server.url}/v1/search", bodies, sizes.clients, stop=stop, leave=True))
        await asyncio.sleep(min(2.0, sizes.load_seconds))
        server.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(server.process.wait, _GIVE_UP_SECONDS)
        stop.set()
        codes.append(code)
        return await load

    stop, codes = asyncio.Event(), list[int]()
    with causalneg_server(str(workspace)) as server:
        load = asyncio.run(stopping(server))
    broken = load.failures["IncompleteReadError"] + load.failures["ConnectionResetError"]
    other = sum(n for status, n in load.statuses.items() if status not in (200, 503))
    what = f"SIGTERM under {sizes.clients} clients: {load.statuses}, {dict(load.failures)}"
    return [
        _holds("SIGTERM: exit code", "", codes[0], 0, what),
        _holds("SIGTERM: answers broken off, or neither 200 nor 503", "requests", broken + other, 0, what),
    ]


def soak(workspace: Path, sizes: Sizes) -> list[Row]:
    """Serve for long, with changes now and then, and look at the memory."""
    bodies, headers = _queries(workspace), {"X-API-Key": (workspace / "key.txt").read_text()}
    memory: list[float] = []

    async def changing(server: Server, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60, headers=headers) as client:
            number = 0
            while not stop.is_set():
                number += 1
                passage = {"id": f"soak-{number % 50}", "text": f"Passage number {number} that was added."}
                await client.post(f"{server.url}/v1/passages", json={"passages": [passage]})
                memory.append(server.memory_mib())
                await asyncio.sleep(1)

    async def soaking(server: Server) -> Load:
        stop = asyncio.Event()
        changes = asyncio.create_task(changing(server, stop))
        load = await closed_loop(f"{server.url}/v1/search", bodies, 4, sizes.soak_seconds, headers=headers)
        stop.set()
        await changes
        return load

    with causalneg_server(str(workspace), keys=workspace / "keys.json") as server:
        load = asyncio.run(soaking(server))
    failed = load.failures.total() + sum(n for status, n in load.statuses.items() if status != httpx.codes.OK)
    third = max(1, len(memory) // 3)
    growth = float(np.median(memory[-third:]) / np.median(memory[third : 2 * third]))
    what = f"{load.seconds:.0f} s, {load.statuses.get(200, 0)} answers, {memory[-1]:.0f} MiB at the end"
    return [
        _holds("soak: failed requests", "requests", failed, 0, what),
        _holds("soak: memory, last third against the middle", "share", growth, 1.05, what),
    ]


SCENARIOS: dict[str, Callable[[Path, Sizes], list[Row]]] = {
    "replicas": kill_replicas,
    "swaps": swap_versions,
    "overload": overload,
    "stop": stop_under_load,
    "soak": soak,
}


def run(sizes: Sizes, names: list[str], folder: Path) -> list[Row]:
    """Do the named scenarios on a fresh workspace each."""
    rows = []
    for name in names:
        make_workspace(folder / name)
        rows += SCENARIOS[name](folder / name, sizes)
    return rows


def main() -> None:
    """Do the faults and publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), help="all when unset; rows of the others stay")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result file")
    parser.add_argument("--quick", action="store_true", help="a little of each but the soak")
    parser.add_argument("--workspace", help="where to work; a temporary folder when unset")
    parser.add_argument("--soak-seconds", type=float)
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    if arguments.soak_seconds:
        sizes = replace(sizes, soak_seconds=arguments.soak_seconds)
    with tempfile.TemporaryDirectory(prefix="causalneg-faults-") as temporary:
        names = arguments.only or [name for name in SCENARIOS if not (arguments.quick and name == "soak")]
        rows = run(sizes, names, Path(arguments.workspace or temporary))
    if arguments.only:
        rows = with_earlier("faults", rows, arguments.results)
    publish("faults", rows, Reporter(), arguments.results)


if __name__ == "__main__":
    main()
