"""Texts as vectors, in the shapes of OpenAI and of text-embeddings-inference."""

import base64
from http import HTTPStatus

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from causalneg.config import ServeSettings
from causalneg.serving.api.answers import json_response
from causalneg.serving.api.call import check_count
from causalneg.serving.api.context import Context
from causalneg.serving.api.service import Embedded
from causalneg.serving.errors import ApiError
from causalneg.serving.schema import Cut, EmbeddingsRequest, EmbeddingsResponse, EmbedRequest


def as_inputs(given: str | list[str], name: str, settings: ServeSettings) -> list[str]:
    """Return one or several inputs as a list.

    Args:
        given: the inputs.
        name: of their field.
        settings: how many there may be.

    Raises:
        ApiError: 400 for an empty input, 413 for too many.
    """
    inputs = [given] if isinstance(given, str) else given
    if not inputs or not all(inputs):
        message = "An input is empty, or there are none."
        raise ApiError(HTTPStatus.BAD_REQUEST, "empty_input", message, param=name)
    check_count(len(inputs), "inputs", settings.max_inputs)
    return inputs


def _openai_body(embedded: Embedded, encoding: str | None, model: str) -> bytes:
    values: list[str] | list[list[float]]
    if encoding == "base64":
        rows = np.ascontiguousarray(embedded.vectors, dtype="<f4")
        values = [base64.b64encode(row).decode() for row in rows]
    else:
        values = embedded.vectors.tolist()
    data = [{"object": "embedding", "index": number, "embedding": value} for number, value in enumerate(values)]
    tokens = sum(embedded.tokens)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return to_json({"object": "list", "model": model, "data": data, "usage": usage})


def routes(context: Context) -> APIRouter:
    """Return the routes of this group."""
    router = APIRouter(tags=["embeddings"], dependencies=[Depends(context.reader)])
    service, settings, metrics = context.service, context.settings, context.metrics

    @router.post(
        "/v1/embeddings",
        response_model=EmbeddingsResponse,
        **context.described(EmbeddingsRequest, errors=(400, 503), deadline=True, openai=True),
    )
    async def embeddings(request: Request) -> Response:
        """Encode texts, as OpenAI's interface does; inputs that are too long are refused, unless `truncate` is true."""
        call = context.call(request)
        asked = await call.body(EmbeddingsRequest)
        inputs = as_inputs(asked.input, "input", settings)
        deadline = call.deadline()
        work = service.embed(
            inputs,
            asked.input_type,
            deadline,
            dimensions=asked.dimensions,
            normalise=True,
            cut="right" if asked.truncate else None,
        )
        embedded = await call.answer(work, deadline)
        metrics.answered(embedded.timings, embedded.truncated)
        return json_response(_openai_body(embedded, asked.encoding_format, service.info().model_id))

    @router.post(
        "/embed",
        response_model=list[list[float]],
        **context.described(EmbedRequest, errors=(400, 503), deadline=True),
    )
    async def embed(request: Request) -> Response:
        """Encode texts, as text-embeddings-inference does."""
        call = context.call(request)
        asked = await call.body(EmbedRequest)
        inputs = as_inputs(asked.inputs, "inputs", settings)
        deadline = call.deadline()
        side: Cut = "left" if asked.truncation_direction.lower() == "left" else "right"
        work = service.embed(
            inputs,
            asked.prompt_name,
            deadline,
            dimensions=asked.dimensions,
            normalise=asked.normalize,
            cut=side if asked.truncate else None,
        )
        embedded = await call.answer(work, deadline)
        metrics.answered(embedded.timings, embedded.truncated)
        return json_response(to_json(embedded.vectors.tolist()))

    return router
