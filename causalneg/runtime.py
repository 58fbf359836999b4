"""Starts Ray, or joins the cluster that a job was submitted to, and keeps it quiet."""

import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's
_TRIAL = ((128, 768), (768, 768))  # matrices that are multiplied to see whether they are used
_TRIALS = 5  # the fastest counts: the first prepares, and others may be disturbed
_MOST_TIMES = 1.5  # of fp32's time
_OBJECT_STORE_BYTES = 1024**3  # of the Ray that is started on this machine; blocks beyond it spill to disk


@contextmanager
def ray_session() -> Iterator[None]:
    """Have Ray running: the cluster of `RAY_ADDRESS` (set inside a Ray job), otherwise one on this machine.

    A session that is already there is used and left alone; one that is started here is stopped at the end.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # Ray gives its workers the niceness 15: beside other busy processes they would get a thirtieth of a core each.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init()
    else:
        ray.init(
            address="local",  # not one that somebody else started on this machine
            num_cpus=max(2, os.cpu_count() or 2),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def cluster_session() -> Iterator[None]:
    """Have Ray running where a cluster is there to be used, and nothing otherwise: one process needs no Ray."""
    if os.environ.get("RAY_ADDRESS"):
        with ray_session():
            yield
    else:
        yield


class _Spread:
    """Ray Data actor that does one item's work per row."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], items: Any) -> None:  # noqa: ANN401 - an ObjectRef
        import ray

        self._work, self._items = make(), ray.get(items)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": pickle.dumps(self._work(self._items[row["id"]]))}


def spread(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], workers: int = 1, gpus: float = 0
) -> Iterator[Result]:
    """Do every item's work: by Ray Data's workers where there are others than this process, otherwise here, in turn.

    One worker on this machine would only load everything once more.

    Args:
        make: builds what does the work; called once per worker.
        items: what there is to do.
        workers: workers side by side in a Ray session.
        gpus: GPUs of each of them.

    Yields:
        Results as they come; from workers in no fixed order.
    """
    in_session = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    if not in_session or (workers == 1 and not gpus and not os.environ.get("RAY_ADDRESS")):
        yield from map(make(), items)
        return
    import ray

    dataset = ray.data.range(len(items), override_num_blocks=len(items)).map(
        _Spread,  # type: ignore[arg-type] # Ray takes a class whose objects are called
        fn_constructor_args=(make, ray.put(list(items))),
        num_cpus=1,
        num_gpus=gpus or None,
        concurrency=workers,
    )
    for row in dataset.iter_rows():
        yield pickle.loads(row["result"])  # noqa: S301 - from our own worker, never from a file


def supports_bf16(device: "torch.device") -> bool:
    """Whether a device has bf16 instructions that are used; without them bf16 is far slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _BF16_INSTRUCTIONS) and _uses_bf16_instructions()


@cache
def _uses_bf16_instructions() -> bool:
    """Multiply matrices in both precisions: instructions that a processor has may be switched off.

    `ONEDNN_MAX_CPU_ISA` does so, as may a hypervisor. With them, bf16 took 0.2 to 0.5 times as long as fp32, and
    without them 6 to 18 times, on a busy machine, too: no other load makes the one look like the other.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(size, generator=generator) for size in _TRIAL)
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        one, other = left.to(dtype), right.to(dtype)
        took = []
        for _ in range(_TRIALS):
            started = time.perf_counter()
            _ = one @ other
            took.append(time.perf_counter() - started)
        best[dtype] = min(took)
    return best[torch.bfloat16] < _MOST_TIMES * best[torch.float32]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
