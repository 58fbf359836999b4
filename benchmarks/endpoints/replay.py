"""An OpenAI-compatible endpoint that gives recorded answers, and asks for those that it lacks.

    python -m benchmarks.endpoints.replay --port 18400 --answers FILE [--pending FILE]

A recording has a line `{"key": …, "content": …}` for each answer. The key is a hash of the messages and the form asked
for, so it depends neither on seed nor on temperature. A request without an answer gets 503 and is written to the file
of pending ones, so that somebody can answer it by hand and the run can be resumed.
"""

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from benchmarks.endpoints.server import free_port, process_server

MODEL = "recorded"
_CHARACTERS_PER_TOKEN = 4
_ROOT = Path(__file__).parents[2]


def request_key(body: dict[str, Any]) -> str:
    """Return the key of a chat request."""
    asked = [body["messages"], body.get("response_format")]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:24]


def read_answers(path: Path) -> dict[str, str]:
    """Return the recorded answers by their keys; the file may be gzipped."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["key"]: row["content"] for row in rows}


def application(answers: Path, pending: Path | None = None) -> FastAPI:
    """Return the endpoint.

    Args:
        answers: the recording.
        pending: where requests without an answer are written.
    """
    app, known, asked = FastAPI(), read_answers(answers), set[str]()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL, "max_model_len": 200_000}]}

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> JSONResponse:
        key = request_key(body)
        if key not in known:
            if pending and key not in asked:
                asked.add(key)
                with pending.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, **body}, ensure_ascii=False) + "\n")
            return JSONResponse({"error": {"message": "the recording has no answer to this request"}}, 503)
        content = known[key]
        prompt = sum(len(message["content"]) for message in body["messages"]) // _CHARACTERS_PER_TOKEN
        generated = len(content) // _CHARACTERS_PER_TOKEN + 1
        usage = {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        return JSONResponse(
            {"id": key, "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}
        )

    return app


@contextmanager
def replaying(answers: Path) -> Iterator[str]:
    """Have the endpoint in a process of its own, as long as it is needed.

    Yields:
        Its address, as http://127.0.0.1:8001/v1.
    """
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.endpoints.replay", "--port", str(port), "--answers", str(answers)]
    with process_server(command, port, "/v1/models", {"PYTHONPATH": str(_ROOT)}) as server:
        yield f"{server.url}/v1"


def main() -> None:
    """Serve a recording until it is stopped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answers", type=Path, required=True, help="the recording, also gzipped")
    parser.add_argument("--pending", type=Path, help="file for requests without an answer")
    arguments = parser.parse_args()
    app = application(arguments.answers, arguments.pending)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
