"""Endpoints on the loopback address that take and refuse parameters, and answer, as those of several makers do."""

import json
from typing import Any

from servers import answer

Body = dict[str, Any]


def openai_error(message: str, code: str | None = None, parameter: str | None = None, status: int = 400) -> bytes:
    """Return an error in OpenAI's shape."""
    kind = "insufficient_quota" if code == "insufficient_quota" else "invalid_request_error"
    return answer(status, {"error": {"message": message, "type": kind, "param": parameter, "code": code}})


def said(text: str | None, finish: str | None = "stop", **message: Any) -> bytes:
    """Return an answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return answer(200, {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 3}})


def openai_o_series(body: Body) -> bytes | None:
    """OpenAI's reasoning models: no temperature, no logprobs, and another name for the budget."""
    if "max_tokens" in body:
        words = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return openai_error(words, "unsupported_parameter", "max_tokens")
    if body.get("temperature", 1) != 1:
        words = "Unsupported value: 'temperature' does not support 0.5. Only the default (1) value is supported."
        return openai_error(words, "unsupported_value", "temperature")
    if "logprobs" in body:
        return openai_error("You are not allowed to request logprobs from this model", status=403)
    return None


def gemini(body: Body) -> bytes | None:
    """Google's compatible endpoint: a list with one error, which names all unknown fields."""
    unknown = [name for name in ("seed", "logprobs", "top_logprobs") if name in body]
    if not unknown:
        return None
    words = "\n".join(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.' for name in unknown)
    return answer(400, [{"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT", "details": []}}])


def deepseek(body: Body) -> bytes | None:
    """DeepSeek: no schema, JSON only where the prompt names it, no logprobs for its reasoner."""
    form = body.get("response_format", {}).get("type")
    if form == "json_schema":
        return openai_error("This response_format type is unavailable now", "invalid_request_error")
    if form == "json_object" and "json" not in json.dumps(body["messages"]).lower():
        return openai_error("Prompt must contain the word 'json' in some form to use 'response_format'")
    if "logprobs" in body:
        return openai_error("deepseek-reasoner does not support the parameter `logprobs`", "invalid_request_error")
    return None


def tgi(body: Body) -> bytes | None:
    """Text Generation Inference: a schema belongs into `value`; an error may come with status 200."""
    if "response_format" in body:
        words = "Failed to deserialize the JSON body into the target type: response_format: missing field `value`"
        return answer(422, words)
    if body.get("top_logprobs", 0) > 5:
        return answer(
            200, {"error": "Input validation error: `top_logprobs` > 5 is not supported", "error_type": "validation"}
        )
    return None


def fastapi(body: Body) -> bytes | None:
    """A server that forbids what it does not know."""
    if "seed" not in body:
        return None
    row = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 3}
    return answer(422, {"detail": [row]})
