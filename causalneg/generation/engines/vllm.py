"""vLLM in this process: an asynchronous engine for structured answers and likelihoods."""

import itertools
import os
from pathlib import Path
from typing import Any, cast

from causalneg.config import EngineSettings
from causalneg.generation.engines import Completion, EngineDeadError, EngineError, Likelihood
from causalneg.runtime import cores

# Shorter blocks than the CPU default of 128 tokens, so that short shared instructions are found in the cache.
_BLOCK_TOKENS = 32


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
    }


class VllmEngine:
    """An engine on one model folder.

    Args:
        model: folder in Hugging Face layout.
        settings: sizes and limits.
    """

    def __init__(self, model: Path, settings: EngineSettings) -> None:
        os.environ.update(engine_environment(settings))
        from vllm import AsyncEngineArgs, AsyncLLMEngine
        from vllm.config import StructuredOutputsConfig

        on_cpu = not settings.gpus
        sizes: dict[str, Any] = {"block_size": _BLOCK_TOKENS, "enforce_eager": True} if on_cpu else {}
        if on_cpu:
            sizes["kv_cache_memory_bytes"] = int(settings.kv_cache_gib * 1024**3)
        arguments = AsyncEngineArgs(
            model=str(model),
            dtype="bfloat16",
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            enable_prefix_caching=True,
            trust_remote_code=False,
            structured_outputs_config=StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
            enable_log_requests=False,
            disable_log_stats=True,
            **sizes,
        )
        self._engine = AsyncLLMEngine.from_engine_args(arguments)
        self._tokenizer = self._engine.get_tokenizer()
        self._max_len = settings.max_model_len
        self._requests = itertools.count()

    async def _last(self, prompt: list[int], sampling: Any) -> Any:  # noqa: ANN401 - vLLM's own types
        from vllm import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

        if len(prompt) + 1 > self._max_len:
            raise EngineError("too_long", f"the prompt has {len(prompt)} tokens of {self._max_len}", retryable=False)
        last = None
        try:
            stream = self._engine.generate(TokensPrompt(prompt_token_ids=prompt), sampling, str(next(self._requests)))
            async for output in stream:
                last = output
        except VllmDeadError as error:
            raise EngineDeadError(str(error)) from error
        except ValueError as error:
            raise EngineError("refused", str(error), retryable=False) from error
        if last is None:
            raise EngineError("no_output", "the engine returned nothing", retryable=True)
        return last

    async def complete(
        self,
        chat: list[dict[str, str]],
        schema: dict[str, Any],
        max_tokens: int,
        temperature: float,
        seed: int,
    ) -> Completion:
        """Answer a chat with JSON that follows the schema."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        template = self._tokenizer.apply_chat_template
        prompt = template(cast(Any, chat), add_generation_prompt=True, tokenize=True, return_dict=False)
        sampling = SamplingParams(
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            structured_outputs=StructuredOutputsParams(json=schema),
        )
        output = await self._last([int(token) for token in prompt], sampling)
        answer = output.outputs[0]
        return Completion(
            answer.text,
            answer.finish_reason or "unknown",
            len(prompt),
            output.num_cached_tokens or 0,
            len(answer.token_ids),
        )

    async def likelihood(self, prefix: str, continuation: str) -> Likelihood:
        """Return how likely `continuation` is after `prefix`."""
        from vllm import SamplingParams

        before = self._tokenizer.encode(prefix)
        tokens = self._tokenizer.encode(continuation, add_special_tokens=False)
        output = await self._last([*before, *tokens], SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0))
        scored = zip(tokens, output.prompt_logprobs[len(before) :], strict=True)
        values = [position[token].logprob for token, position in scored]
        return Likelihood(sum(values) / len(values), len(before) + len(tokens))

    def close(self) -> None:
        """Stop the engine and its processes."""
        self._engine.shutdown()
