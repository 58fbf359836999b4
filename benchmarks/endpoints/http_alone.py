"""The HTTP interface before a service that has its answer ready: what it costs by itself.

python -m benchmarks.endpoints.http_alone PORT
"""

import sys
from typing import Any

import uvicorn

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys
from causalneg.serving.metrics import Metrics
from causalneg.serving.schema import Info, Payload, SearchHit, SearchRequest, SearchResponse, Timings

_TEXT = "word " * 60


class Ready:
    """Answers every search with the same hits."""

    waiting = 0

    def ready(self) -> None:
        """Always."""

    def info(self) -> Info:
        """Describe nothing."""
        empty: dict[str, Any] = dict.fromkeys(("max_input_length", "max_client_batch_size", "max_batch_tokens"), 0)
        empty |= dict.fromkeys(("model_id", "model_sha", "model_dtype", "backend", "index_kind", "version"), "")
        return Info(**empty, prompts={}, dimension=1, index_version="v", rows=1, change=0, hybrid=False, rerank=False)

    async def search(self, request: SearchRequest, deadline: float) -> SearchResponse:
        """Make the models of an answer, as a real search does."""
        hits = [SearchHit(id=f"p{n}", score=0.5, payload=Payload(title="", text=_TEXT)) for n in range(request.limit)]
        return SearchResponse(
            index_version="v", change=0, results=[hits] * len(request.texts), truncated=[False], timings=Timings()
        )


if __name__ == "__main__":
    app = create_app(Ready(), ServeSettings(), Metrics(), Keys.read(None))  # type: ignore[arg-type] # search alone is asked
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
