"""The engine in this process, for real: what it is told, and that one that stalls is found dead."""

import asyncio
import signal

import psutil
import pytest

from causalneg.config import EngineSettings
from causalneg.generation.engines import EngineDeadError
from causalneg.generation.engines.vllm import VllmEngine
from causalneg.models import resolve

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def _engine_processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "VLLM::" in " ".join(p.cmdline())]


async def _stall(engine: VllmEngine) -> None:
    known = await engine.likelihood(["The capital of France is", " Paris."])
    other = await engine.likelihood(["The capital of France is", " butter."])
    assert known.mean_logprobs[0] == pytest.approx(other.mean_logprobs[0], abs=0.1)
    assert known.mean_logprobs[1] > other.mean_logprobs[1] + 1
    for process in _engine_processes():
        if "Worker" in " ".join(process.cmdline()):
            process.send_signal(signal.SIGSTOP)
    with pytest.raises(EngineDeadError):
        await engine.likelihood(["The capital of Italy is", " Rome."])


def test_a_stalled_engine_is_taken_for_dead_and_leaves_no_process() -> None:
    async def work() -> None:
        engine = VllmEngine(resolve("embedded:smollm2-135m").path, EngineSettings(kv_cache_gib=0.25), patience=5)
        try:
            await _stall(engine)
        finally:
            processes = _engine_processes()
            await engine.close()
        _, alive = psutil.wait_procs(processes, timeout=60)
        assert alive == []

    asyncio.run(work())
