"""The model that is served, as OpenAI's clients list models."""

import time
from http import HTTPStatus

from fastapi import APIRouter, Depends, Response

from causalneg.serving.api.answers import json_response
from causalneg.serving.api.context import Context
from causalneg.serving.errors import ApiError
from causalneg.serving.schema import Model, ModelList


def routes(context: Context) -> APIRouter:
    """Return the routes of this group."""
    router = APIRouter(tags=["embeddings"], dependencies=[Depends(context.reader)])
    service, started = context.service, int(time.time())

    def served() -> Model:
        return Model(id=service.info().model_id, created=started)

    @router.get("/v1/models", response_model=ModelList, **context.described(errors=(503,), openai=True))
    async def models() -> Response:
        """Return the model that encodes."""
        return json_response(ModelList(data=[served()]))

    @router.get("/v1/models/{model:path}", response_model=Model, **context.described(errors=(404, 503), openai=True))
    async def model(model: str) -> Response:
        """Return the model that encodes, by its id."""
        there = served()
        if model != there.id:
            message = f"There is no model {model[:100]!r}; there is {there.id!r}."
            raise ApiError(HTTPStatus.NOT_FOUND, "model_not_found", message, param="model")
        return json_response(there)

    return router
