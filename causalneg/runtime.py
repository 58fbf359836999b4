"""Starts Ray, or joins the cluster that a job was submitted to, and keeps it quiet."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_OBJECT_STORE_BYTES = 1024**3  # of the Ray that is started on this machine; blocks beyond it spill to disk


@contextmanager
def ray_session() -> Iterator[None]:
    """Have Ray running: the cluster of `RAY_ADDRESS` (set inside a Ray job), otherwise one on this machine.

    A session that is already there is used and left alone; one that is started here is stopped at the end.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
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


def supports_bf16(device: "torch.device") -> bool:
    """Whether a device has bf16 instructions; without them bf16 is far slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
