"""Texts as vectors, in the shapes of OpenAI and of text-embeddings-inference."""

import base64
from http import HTTPStatus
from typing import cast

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from causalneg.serving.api.call import check_count, invalid, json_response
from causalneg.serving.api.context import Context
from causalneg.serving.api.service import Embedded
from causalneg.serving.errors import ApiError
from causalneg.serving.schema import Cut, EmbeddingsRequest, EmbeddingsResponse, EmbedRequest

Inputs = list[str] | list[list[int]]

_LARGEST_TOKEN = 2**31 - 1


def as_inputs(given: str | list[str] | list[int] | list[list[int]]) -> Inputs:
    """Return one or several inputs as a list.

    Raises:
        ApiError: 400 for an empty input, 422 for what cannot be a token id.
    """
    one = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
    inputs = cast(Inputs, [given] if one else given)
    if not inputs or not all(inputs):
        raise ApiError(HTTPStatus.BAD_REQUEST, "empty_input", "An input is empty, or there are none.")
    for tokens in inputs:
        if isinstance(tokens, list) and not (min(tokens) >= 0 and max(tokens) <= _LARGEST_TOKEN):
            raise invalid("input: token ids are whole numbers from 0.")
    return inputs


def _openai_body(embedded: Embedded, encoding: str, model: str) -> bytes:
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
        **context.described(EmbeddingsRequest, errors=(400, 503), deadline=True),
    )
    async def embeddings(request: Request) -> Response:
        """Encode texts or token ids, as OpenAI's interface does; inputs that are too long are refused."""
        call = context.call(request)
        asked = await call.body(EmbeddingsRequest)
        inputs = as_inputs(asked.input)
        check_count(len(inputs), "inputs", settings)
        deadline = call.deadline()
        work = service.embed(inputs, asked.input_type, deadline, dimensions=asked.dimensions, normalise=True, cut=None)
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
        inputs = as_inputs(asked.inputs)
        check_count(len(inputs), "inputs", settings)
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
