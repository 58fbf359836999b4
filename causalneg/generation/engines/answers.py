"""What OpenAI-compatible endpoints answer: whole answers of every maker's shape, and what an error's body says."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat

_MOST_READ = 10_000  # characters of an error's body
# How makers call the two ends that an answer can have; llama.cpp, TGI, Together, Anthropic, Cohere and others.
_STOPPED = {"", "stop", "eos", "eos_token", "end_turn", "stop_sequence", "end_of_turn", "complete", "completed"}
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "token_limit"}
_THINKING = ("<think>", "</think>")


class _TokenDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _TokenDetails | None = None


class Reply(BaseModel):
    """An answer with what it took."""

    usage: _Usage | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; 0 where they aren't told."""
        return (self.usage and self.usage.prompt_tokens) or 0

    @property
    def generated_tokens(self) -> int:
        """Tokens of the answer, those of its reasoning included."""
        return (self.usage and self.usage.completion_tokens) or 0

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the endpoint had in its cache."""
        details = self.usage and self.usage.prompt_tokens_details
        return (details and details.cached_tokens) or 0


class _TokenLogprob(BaseModel):
    token: str
    logprob: FiniteFloat


class _Place(_TokenLogprob):
    top_logprobs: list[_TokenLogprob] | None = None


class _ChatLogprobs(BaseModel):
    content: list[_Place] | None = None


class _Part(BaseModel):
    type: str
    text: str | None = None


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    refusal: str | None = None


class _ChatChoice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None


class ChatReply(Reply):
    """The answer to a chat; the first of its choices counts."""

    choices: list[_ChatChoice] = Field(min_length=1)

    @property
    def finish_reason(self) -> str:
        """Return «stop», «length», or the endpoint's own word."""
        told = self.choices[0].finish_reason or ""
        return "stop" if told.lower() in _STOPPED else "length" if told.lower() in _CUT else told

    @property
    def refusal(self) -> str | None:
        """Return the words of a refusal; None where the model did not refuse."""
        choice = self.choices[0]
        stopped = "its content filter stopped the answer" if choice.finish_reason == "content_filter" else None
        return choice.message.refusal or stopped

    @property
    def text(self) -> str | None:
        """The answer without what was thought before it; None where there is none although nothing says why."""
        content = self.choices[0].message.content
        if isinstance(content, list):
            content = "".join(part.text or "" for part in content if part.type == "text")
        # A model that reasons up to the limit has no content.
        return "" if content is None and self.finish_reason == "length" else content and _without_thoughts(content)

    @property
    def probabilities(self) -> list[dict[str, float]]:
        """The likeliest tokens with their probabilities at each place of the answer, without those of its thoughts."""
        logprobs = self.choices[0].logprobs
        places = (logprobs and logprobs.content) or []
        return [_probabilities(place) for place in places[_start(places, self.text or "") :]]


def _without_thoughts(content: str) -> str:
    """Return an answer without the thoughts that some servers leave before it."""
    begin, end = _THINKING
    if end in content:  # some templates hold the opening tag already
        return content.split(end, 1)[1].lstrip()
    return "" if content.lstrip().startswith(begin) else content


def _start(places: Sequence[_Place], text: str) -> int:
    """Return the first place of a text; some servers report those of the thoughts before it, too."""
    written = "".join(place.token for place in places)
    at = written.rfind(text) if text else 0
    passed = 0
    for number, place in enumerate(places):
        if passed + len(place.token) > at:
            return number
        passed += len(place.token)
    return 0


def _probabilities(place: _Place) -> dict[str, float]:
    """Return the likeliest tokens at a place, and the one that was taken, with their probabilities."""
    found: dict[str, float] = {}
    for entry in place.top_logprobs or []:
        found[entry.token] = found.get(entry.token, 0.0) + math.exp(min(0.0, entry.logprob))
    found.setdefault(place.token, math.exp(min(0.0, place.logprob)))
    return found


class TextLogprobs(BaseModel):
    """The tokens of a text with their log-probabilities."""

    tokens: list[str] | None = None
    token_logprobs: list[FiniteFloat | None] | None = None


class _TextChoice(BaseModel):
    logprobs: TextLogprobs | None = None


class TextReply(Reply):
    """The continuation of a plain text."""

    choices: list[_TextChoice] = Field(min_length=1)


@dataclass(frozen=True)
class Problem:
    """What an endpoint says of a request that it did not answer.

    Attributes:
        status: of HTTP, or what the body has in its place.
        code: the kind of error, by the endpoint's own word.
        message: its words.
        parameters: the request's parameters that it names as at fault.
    """

    status: int
    code: str
    message: str
    parameters: frozenset[str] = frozenset()

    @property
    def said(self) -> str:
        """Code and message."""
        return f"{self.code}: {self.message}" if self.code else self.message


def read_problem(status: int, content: bytes) -> Problem:
    """Read the body of an error: OpenAI's shape, Gemini's list of it, FastAPI's, TGI's, or plain text."""
    text = content[:_MOST_READ].decode("utf-8", "replace")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return Problem(status, "", text)
    return _structured(status, body) or Problem(status, "", text)


def error_in(content: bytes) -> Problem | None:
    """Return the error that the body of an answer with status 200 holds, if it does: OpenRouter and TGI answer so."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    found = body[0] if isinstance(body, list) and body else body
    return _structured(200, body) if isinstance(found, dict) and found.get("error") else None


def _structured(status: int, body: Any) -> Problem | None:  # noqa: ANN401 - whatever JSON holds
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return None
    error = body.get("error") or body
    if isinstance(error, str):
        return Problem(status, str(body.get("error_type") or ""), error)
    if not isinstance(error, dict):
        return None
    told = error.get("code")
    if status == 200 and isinstance(told, int) and 400 <= told <= 599:
        status = told
    message = error.get("message") or error.get("detail")
    if not message:
        return None
    code = told if isinstance(told, str) else error.get("type") if error.get("type") == "insufficient_quota" else ""
    parameters = frozenset(_first_segment(name) for name in (error.get("param"), *_places(message)) if name)
    return Problem(status, str(code or ""), _words(message, error), parameters)


def _words(message: Any, error: dict[str, Any]) -> str:  # noqa: ANN401 - whatever JSON holds
    """Return the message as text, with the words of the server behind the one that answered."""
    if isinstance(message, list):
        message = "; ".join(str(m["msg"]) if isinstance(m, dict) and "msg" in m else str(m) for m in message)
    metadata = error.get("metadata")
    behind = metadata.get("raw") if isinstance(metadata, dict) else None
    return f"{message} ({behind})" if behind else str(message)


def _places(detail: Any) -> Iterator[str]:  # noqa: ANN401 - whatever JSON holds
    """Yield the parameters that FastAPI's details name, as `{"loc": ["body", "seed"], …}` does."""
    for row in detail if isinstance(detail, list) else []:
        place = row.get("loc") if isinstance(row, dict) else None
        yield from (str(step) for step in (place if isinstance(place, list) else []) if step != "body")


def _first_segment(name: object) -> str:
    return str(name).split(".")[0].split("[")[0]
