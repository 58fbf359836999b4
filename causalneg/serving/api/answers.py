"""Answers as they are sent."""

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from causalneg.serving.schema import ErrorBody, OpenAIError, OpenAIErrorBody

_OPENAI = ("/v1/embeddings", "/v1/models")


def json_response(body: BaseModel | bytes) -> Response:
    """Return a response without validating again what we made ourselves."""
    content = body if isinstance(body, bytes) else body.model_dump_json()
    return Response(content, media_type="application/json")


def error_response(
    path: str, body: ErrorBody, headers: dict[str, str] | None = None, param: str | None = None
) -> JSONResponse:
    """Return an error; below the paths of OpenAI's interface its clients find it in their own form as well.

    Args:
        path: that was asked.
        body: of the error.
        headers: beside.
        param: the field that is wrong, if it is one.
    """
    if any(path == there or path.startswith(f"{there}/") for there in _OPENAI):
        error = OpenAIError(message=body.message, type=body.type, param=param, code=body.type)
        body = OpenAIErrorBody(**body.model_dump(), error=error)
    return JSONResponse(body.model_dump(), status_code=body.code, headers=headers)
