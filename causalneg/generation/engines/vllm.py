"""vLLM in this process: an asynchronous engine for structured answers and likelihoods."""

import asyncio
import itertools
import math
import multiprocessing
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import psutil

from causalneg.config import EngineSettings
from causalneg.generation.engines import Completion, EngineDeadError, EngineError, Likelihood
from causalneg.generation.engines.precision import Precision, engine_precision
from causalneg.generation.engines.watchdog import Watchdog
from causalneg.runtime import cores

# Shorter blocks than the CPU default of 128 tokens, so that short shared instructions are found in the cache.
_BLOCK_TOKENS = 32
_MAX_LOGPROBS = 20
_PATIENCE = 600.0  # seconds; longer than any step of an engine that also computes
_LOOK_AGAIN = 5.0  # seconds between looks at whether the engine stalled
_DAY = "86400"  # seconds
DTYPES: dict[Precision, Literal["float32", "bfloat16", "float16"]] = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
}


def engine_environment(settings: EngineSettings) -> dict[str, str]:
    """Return the environment variables that vLLM reads; they must be set before it is imported."""
    common = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
    if settings.gpus:
        return common
    return common | {
        # Automatic binding misbehaves with several engines on one node.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(settings.threads or cores()),
        # Compiling the log-probability kernel costs more seconds than it saves on a CPU.
        "TORCHDYNAMO_DISABLE": "1",
        # A processor may take minutes for a step, or to start beside others; what stalls is found by the watchdog.
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": _DAY,
        "VLLM_ENGINE_READY_TIMEOUT_S": _DAY,
    }


class VllmEngine:
    """An engine on one model folder.

    Args:
        model: folder in Hugging Face layout.
        settings: sizes and limits.
        patience: seconds after which an engine that neither answers nor computes is taken for dead.
    """

    repeats = False

    def __init__(self, model: Path, settings: EngineSettings, patience: float = _PATIENCE) -> None:
        os.environ.update(engine_environment(settings))
        from vllm import AsyncEngineArgs, AsyncLLMEngine
        from vllm.config import StructuredOutputsConfig

        on_cpu = not settings.gpus
        if not on_cpu:
            sizes: dict[str, Any] = {
                "gpu_memory_utilization": settings.gpu_memory,
                "tensor_parallel_size": settings.tensor_parallel,
            }
        else:
            sizes = {
                "block_size": _BLOCK_TOKENS,
                "enforce_eager": True,
                "kv_cache_memory_bytes": int(settings.kv_cache_gib * 1024**3),
                "worker_extension_cls": "causalneg.generation.engines.vllm_worker.WorkerExtension",
            }
        arguments = AsyncEngineArgs(
            model=str(model),
            dtype=DTYPES[engine_precision(settings)],
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            max_logprobs=_MAX_LOGPROBS,
            enable_prefix_caching=True,
            trust_remote_code=False,
            structured_outputs_config=StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
            enable_log_requests=False,
            disable_log_stats=True,
            **sizes,
        )
        before = set(multiprocessing.active_children())
        self._engine = AsyncLLMEngine.from_engine_args(arguments)
        self._processes = _with_children(c.pid for c in multiprocessing.active_children() if c not in before)
        self._watchdog = Watchdog(patience, self._computed if on_cpu else None)
        self._watch: asyncio.Task[None] | None = None
        self._tokenizer = self._engine.get_tokenizer()
        self._max_len = settings.max_model_len
        # On a CPU, vLLM 0.32 dies of a seeded request whose prompt it takes in parts: a generator has no offset there.
        self._seeded = not on_cpu
        self._requests = itertools.count()

    def _computed(self) -> float:
        """Return how many seconds the engine's processes have computed."""
        return sum(_cpu_seconds(process) for process in self._processes)

    async def _kill_when_stalled(self) -> None:
        """Kill an engine that has stalled: vLLM notices, and every request ends as with one that died by itself."""
        while not self._watchdog.stalled():
            await asyncio.sleep(_LOOK_AGAIN)
        _kill(self._processes)

    async def _outputs(self, prompt: list[int], sampling: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - vLLM's own types
        """Yield what the engine gives for a request, each a sign of life."""
        from vllm import TokensPrompt

        if self._watch is None:
            self._watch = asyncio.create_task(self._kill_when_stalled())
        self._watchdog.begin()
        try:
            name = str(next(self._requests))
            async for output in self._engine.generate(TokensPrompt(prompt_token_ids=prompt), sampling, name):
                self._watchdog.progressed()
                yield output
        finally:
            self._watchdog.end()

    async def _last(self, prompt: list[int], sampling: Any) -> Any:  # noqa: ANN401 - vLLM's own types
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

        if len(prompt) + 1 > self._max_len:
            raise EngineError("too_long", f"the prompt has {len(prompt)} tokens of {self._max_len}", retryable=False)
        last = None
        try:
            async for output in self._outputs(prompt, sampling):
                last = output
        except VllmDeadError as error:
            raise EngineDeadError(str(error)) from error
        except ValueError as error:
            raise EngineError("refused", str(error), retryable=False) from error
        if last is None:
            raise EngineError("bad_response", "the engine returned nothing", retryable=True)
        return last

    async def complete(
        self,
        chat: list[dict[str, str]],
        schema: dict[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_probabilities: int = 0,
    ) -> Completion:
        """Answer a chat; with JSON that follows the schema where one is given."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        template = self._tokenizer.apply_chat_template
        prompt = template(cast(Any, chat), add_generation_prompt=True, tokenize=True, return_dict=False)
        sampling = SamplingParams(
            max_tokens=max(1, min(max_tokens, self._max_len - len(prompt))),
            temperature=temperature,
            seed=seed if self._seeded else None,
            logprobs=min(top_probabilities, _MAX_LOGPROBS) or None,
            structured_outputs=StructuredOutputsParams(json=schema) if schema else None,
        )
        output = await self._last([int(token) for token in prompt], sampling)
        answer = output.outputs[0]
        return Completion(
            answer.text,
            answer.finish_reason or "unknown",
            len(prompt),
            output.num_cached_tokens or 0,
            len(answer.token_ids),
            [_probabilities(place) for place in answer.logprobs or []],
        )

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        """Return how likely each segment of a text is after those before it."""
        from vllm import SamplingParams

        parts = [
            self._tokenizer.encode(text, add_special_tokens=not at)  # only the first may open with a special token
            for at, text in enumerate(segments)
        ]
        tokens = [token for part in parts for token in part]
        output = await self._last(tokens, SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0))
        places = zip(tokens[1:], output.prompt_logprobs[1:], strict=True)  # the first token has nothing before it
        logprobs = [place[token].logprob for token, place in places]
        means, start = [], -1
        for part in parts:
            own = logprobs[max(0, start) : start + len(part)]
            means.append(sum(own) / max(1, len(own)))
            start += len(part)
        return Likelihood(means, len(tokens), output.num_cached_tokens or 0)

    async def close(self) -> None:
        """Stop the engine and its processes."""
        if self._watch:
            self._watch.cancel()
        self._engine.shutdown()
        _kill(self._processes)  # a worker ends its step first, and the engine does not wait for that


def _with_children(pids: Iterable[int | None]) -> list[psutil.Process]:
    """Return processes and those that they started."""
    processes = [psutil.Process(pid) for pid in pids]
    return processes + [child for process in processes for child in process.children(recursive=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _probabilities(place: Any) -> dict[str, float]:  # noqa: ANN401 - vLLM's own types
    """Return the likeliest tokens at a place with their probabilities."""
    found: dict[str, float] = {}
    for logprob in place.values():
        token = logprob.decoded_token or ""
        found[token] = found.get(token, 0.0) + math.exp(logprob.logprob)
    return found
