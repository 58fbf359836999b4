"""What the routes share: the service, the limits, the metrics, the keys, and how a route is described."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from causalneg.config import ServeSettings
from causalneg.serving.api.call import TIMEOUT_HEADER, Call
from causalneg.serving.api.service import Service
from causalneg.serving.keys import Keys, token_of
from causalneg.serving.metrics import Metrics
from causalneg.serving.schema import ErrorBody, OpenAIErrorBody

_LOG = logging.getLogger("causalneg.serving")
_HEADERS = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
} | {status: {"Retry-After": {"schema": {"type": "string"}, "description": "seconds"}} for status in (429, 503, 504)}
_TIMEOUT = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "time that the answer may take, in milliseconds",
    "schema": {"type": "integer", "minimum": 1, "maximum": 10**15 - 1},
}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


@dataclass(frozen=True)
class Context:
    """What the routes share."""

    service: Service
    settings: ServeSettings
    metrics: Metrics
    keys: Keys

    def call(self, request: Request) -> Call:
        """Start a request's clock."""
        return Call(request, self.settings)

    async def reader(self, request: Request) -> str:
        """Let in who may read; return whose key it is."""
        return self.keys.check(token_of(request.headers), "read")

    async def writer(self, request: Request) -> str:
        """Let in who may change something; return whose key it is."""
        return self.keys.check(token_of(request.headers), "write")

    def described(
        self,
        asked: type[BaseModel] | None = None,
        errors: Sequence[int] = (),
        *,
        deadline: bool = False,
        changes: bool = False,
        openai: bool = False,
    ) -> dict[str, Any]:
        """Return how a route is documented, for its decorator.

        Args:
            asked: the model of its body; it is in the document as a component.
            errors: statuses beside those that follow from the rest.
            deadline: whether it waits for the encoder until its time is over.
            changes: whether it needs a key that may write.
            openai: whether errors have OpenAI's form, too.
        """
        statuses = {*errors}
        statuses |= {408, 413, 415, 422} if asked else set()
        statuses |= {422, 429, 504} if deadline else set()
        statuses |= {401, 403} if self.keys.required else {403} if changes else set()
        body = OpenAIErrorBody if openai else ErrorBody
        responses: dict[int, dict[str, Any]] = {status: {"model": body} for status in sorted(statuses)}
        for status in statuses & _HEADERS.keys():
            responses[status]["headers"] = _HEADERS[status]
        extra: dict[str, Any] = {}
        if asked:
            schema = {"$ref": f"#/components/schemas/{asked.__name__}"}
            extra["requestBody"] = {"content": {"application/json": {"schema": schema}}, "required": True}
        if deadline:
            extra["parameters"] = [_TIMEOUT]
        if self.keys.required:
            extra["security"] = [{name: []} for name in SECURITY]
        return {"responses": responses, "openapi_extra": extra}


def log_change(request: Request, who: str) -> None:
    """Log whose key changed something, and by which route; never what was sent."""
    _LOG.info("%s %s by the key of %r", request.method, request.scope["route"].path_format, who)
