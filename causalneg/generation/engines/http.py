"""An OpenAI-compatible endpoint as an engine: vLLM's server, another one, or a service."""

import asyncio
import hashlib
import itertools
import json
import math
import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from causalneg.config import EngineSettings
from causalneg.connections import connect
from causalneg.errors import UserError
from causalneg.generation.engines import Completion, EngineError, Likelihood
from causalneg.generation.engines.limits import Booking, Clock, MinuteLimits, Sleep, backoff
from causalneg.retries import retry_after

_MOST_TOP_LOGPROBS = 20  # what OpenAI and vLLM allow unless told otherwise
_BYTES_PER_TOKEN = 3  # rather too many tokens than too few; the answer tells the real number
_DESCRIBE_SECONDS = 30
_KEPT_ALIVE_SECONDS = 3  # below the 5 s after which uvicorn hangs up, so that no request runs into that
_MOST_SAID = 300  # characters of an endpoint's own words in a message
_MOST_MODELS = 20  # named in a message
# Their `created` is the time of their last start.
_RESTAMPING_OWNERS = {"vllm", "sglang", "llamacpp"}
_TOO_LONG = ("context_length", "context length", "context window", "max_model_len", "too long")


class _TokenDetails(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _TokenDetails | None = None


class _Reply(BaseModel):
    usage: _Usage | None = None

    @property
    def prompt_tokens(self) -> int:
        return (self.usage and self.usage.prompt_tokens) or 0

    @property
    def generated_tokens(self) -> int:
        return (self.usage and self.usage.completion_tokens) or 0

    @property
    def cached_tokens(self) -> int:
        details = self.usage and self.usage.prompt_tokens_details
        return (details and details.cached_tokens) or 0


class _TokenLogprob(BaseModel):
    token: str
    logprob: FiniteFloat


class _Place(_TokenLogprob):
    top_logprobs: list[_TokenLogprob] = []


class _ChatLogprobs(BaseModel):
    content: list[_Place] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _ChatChoice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None

    @property
    def refused(self) -> bool:
        return bool(self.message.refusal) or self.finish_reason == "content_filter"

    @property
    def text(self) -> str | None:
        """The answer; None where there is none although nothing says why."""
        # A model that reasons up to the limit has no content, and asking again would change nothing.
        return "" if self.message.content is None and self.finish_reason == "length" else self.message.content


class _ChatReply(_Reply):
    choices: list[_ChatChoice] = Field(min_length=1)


class _TextLogprobs(BaseModel):
    tokens: list[str] | None = None
    token_logprobs: list[FiniteFloat | None] | None = None


class _TextChoice(BaseModel):
    logprobs: _TextLogprobs | None = None


class _TextReply(_Reply):
    choices: list[_TextChoice] = Field(min_length=1)


class _Card(BaseModel):
    id: str
    created: int | None = None
    owned_by: str | None = None
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class _Cards(_Reply):
    data: list[_Card]


_AnyReply = TypeVar("_AnyReply", bound=_Reply)


class _SetbackError(EngineError):
    """A failure that may pass; `wait` is how many seconds the endpoint asked for."""

    def __init__(self, kind: str, message: str, wait: float = 0.0) -> None:
        super().__init__(kind, message, retryable=True)
        self.wait = wait


class _NotFoundError(EngineError):
    """The endpoint has no such model or no such path."""

    def __init__(self, message: str) -> None:
        super().__init__("refused", message, retryable=False)


@dataclass
class _Connection:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    slots: asyncio.Semaphore
    limits: MinuteLimits


class HttpEngine:
    """An engine behind an OpenAI-compatible endpoint. It connects at the first request.

    Args:
        model: name by which the endpoint knows the model.
        settings: its address, limits, and the name of the environment variable with its key.
        clock: tells the time in seconds, for the limits.
        sleep: waits for some seconds.

    Attributes:
        max_model_len: longest prompt and answer together, tokens; None before `describe` and where it isn't told.

    Raises:
        UserError: the address or the key can't be right.
    """

    repeats = True

    def __init__(
        self, model: str, settings: EngineSettings, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.max_model_len: int | None = None
        self._model, self._settings = model, settings
        self._url = _checked_url(settings.url)
        self._key = _key(settings.api_key_env)
        self._clock, self._sleep = clock, sleep
        self._connection: _Connection | None = None

    async def complete(
        self,
        chat: list[dict[str, str]],
        schema: dict[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_probabilities: int = 0,
    ) -> Completion:
        """Answer a chat; with JSON that follows the schema where one is given.

        Raises:
            EngineError: there was no answer.
            UserError: the endpoint does not let us in, or has no such model.
        """
        sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        body: dict[str, Any] = {"model": self._model, "messages": chat, **sampling}
        if schema is not None:
            named = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if top_probabilities > 0:
            body |= {"logprobs": True, "top_logprobs": min(top_probabilities, _MOST_TOP_LOGPROBS)}
        try:
            reply = await self._ask("chat/completions", body, _ChatReply)
        except _NotFoundError as error:
            raise UserError(
                f"{error}; check that there is a model {self._model!r} at {self._url}, and that this address is "
                "whole, as http://127.0.0.1:8001/v1 is."
            ) from error
        choice = reply.choices[0]
        if choice.refused:
            said = self._quoted(choice.message.refusal or "its content filter stopped the answer")
            raise EngineError("refusal", f"the model refused: {said}", retryable=False)
        return Completion(
            choice.text or "",
            choice.finish_reason or "unknown",
            reply.prompt_tokens,
            reply.cached_tokens,
            reply.generated_tokens,
            [_probabilities(place) for place in (choice.logprobs and choice.logprobs.content) or []],
        )

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        """Return how likely each segment of a plain text is after those before it; the first, without its first token.

        The endpoint splits the text into tokens as a whole; a token that lies in two segments counts for the one
        that has most of it.

        Raises:
            EngineError: there was no answer; kind `unsupported` where the endpoint doesn't tell the log-probabilities
                of a prompt.
            UserError: the endpoint does not let us in.
        """
        reply = await self._echo("".join(segments), {"echo": True, "logprobs": 1})
        told = reply.choices[0].logprobs or _TextLogprobs()
        tokens, logprobs = told.tokens or [], told.token_logprobs or []
        # The last one is the token that had to be generated.
        length = reply.prompt_tokens or len(tokens) - 1
        if not 0 < length <= len(tokens) == len(logprobs):
            raise EngineError("unsupported", f"{self._url} tells no log-probabilities of a prompt", retryable=False)
        owners = _owners(tokens[:length], segments)
        if owners is None:
            owners = await self._counted_owners(length, segments)
        own: list[list[float]] = [[] for _ in segments]
        for owner, logprob in zip(owners, logprobs[1:length], strict=True):
            if logprob is not None:
                own[owner].append(logprob)
        return Likelihood([sum(values) / max(1, len(values)) for values in own], length, reply.cached_tokens)

    async def describe(self) -> str:
        """Return the revision of the model: its name and a hash of what the endpoint tells and keeps over a restart.

        Raises:
            UserError: the endpoint can't be reached or has no such model.
        """
        try:
            async with asyncio.timeout(_DESCRIBE_SECONDS):
                cards = (await self._ask("models", None, _Cards)).data
        except (EngineError, TimeoutError) as error:
            reason = str(error) or f"no answer within {_DESCRIBE_SECONDS} s"
            raise UserError(
                f"The endpoint {self._url} does not tell its models ({reason}); check that it is running and that "
                "this address is whole, as http://127.0.0.1:8001/v1 is."
            ) from error
        card = next((card for card in cards if card.id == self._model), None)
        if card is None:
            others = ", ".join(card.id for card in cards[:_MOST_MODELS]) or "none"
            more = ", …" if len(cards) > _MOST_MODELS else ""
            raise UserError(
                f"The endpoint {self._url} has no model {self._model!r}; it has {self._quoted(others)}{more}."
            )
        self.max_model_len = card.max_model_len
        stable = card.model_dump(exclude={"created"} if card.owned_by in _RESTAMPING_OWNERS else None)
        return f"{card.id}@{hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:16]}"

    async def close(self) -> None:
        """Part from the endpoint."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.loop is asyncio.get_running_loop():  # others are gone already
            await connection.client.aclose()

    async def _echo(self, prompt: str, options: dict[str, Any]) -> _TextReply:
        """Ask for one token after a plain text; not all endpoints that chat do that too."""
        body = {"model": self._model, "prompt": prompt, "max_tokens": 1, "temperature": 0, **options}
        try:
            return await self._ask("completions", body, _TextReply)
        except EngineError as error:
            if error.kind != "refused":
                raise
            raise EngineError("unsupported", str(error), retryable=False) from error

    async def _counted_owners(self, length: int, segments: Sequence[str]) -> list[int]:
        """Find the segments of a text's tokens, without the first, by the number of tokens before each segment.

        For endpoints that write the halves of a character as replacement characters, or change the text.
        """
        starts = itertools.accumulate(segments[:-1])
        replies = await asyncio.gather(*(self._echo(text, {}) for text in starts if text))
        counts = [reply.prompt_tokens for reply in replies]
        if not all(counts):
            raise EngineError("unsupported", f"{self._url} counts no tokens", retryable=False)
        skipped = len(segments) - 1 - len(counts)  # empty ones at the start
        return [skipped + bisect_right(counts, index) for index in range(1, length)]

    async def _ask(self, path: str, body: dict[str, Any] | None, kind: type[_AnyReply]) -> _AnyReply:
        """Ask until there is an answer, the endpoint refuses, or the attempts are used up."""
        attempt = 1
        while True:
            try:
                return await self._attempt(path, body, kind)
            except _SetbackError as error:
                if attempt >= self._settings.max_attempts:
                    raise EngineError(error.kind, f"{error} ({attempt} attempts)", retryable=True) from error
                await self._sleep(error.wait + backoff(attempt))
            attempt += 1

    async def _attempt(self, path: str, body: dict[str, Any] | None, kind: type[_AnyReply]) -> _AnyReply:
        connection = self._connected()
        async with connection.slots:
            booking = await connection.limits.acquire(_estimated_tokens(body))
            try:
                response = await self._send(connection.client, path, body)
                reply = self._read(response, kind)
            except _SetbackError as error:
                connection.limits.pause(error.wait)
                raise
        _settle(booking, reply)
        return reply

    async def _send(self, client: httpx.AsyncClient, path: str, body: dict[str, Any] | None) -> httpx.Response:
        address, longest = f"{self._url}/{path}", self._settings.timeout_seconds
        try:
            async with asyncio.timeout(longest):  # httpx itself bounds only the time between two pieces
                return await client.request("GET" if body is None else "POST", address, json=body)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _SetbackError("timeout", f"{address} gave no answer within {longest:g} s") from error
        except (httpx.RemoteProtocolError, httpx.DecodingError) as error:
            raise _SetbackError("bad_response", f"{address} gave half an answer: {self._quoted(error)}") from error
        except httpx.HTTPError as error:
            reason = self._quoted(error) or type(error).__name__
            raise _SetbackError("server_error", f"{address} can't be reached: {reason}") from error

    def _read(self, response: httpx.Response, kind: type[_AnyReply]) -> _AnyReply:
        """Return what a response holds, or raise what it means."""
        if not response.is_success:
            raise self._problem(response)
        try:
            reply = kind.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            message = f"{response.url} gave no usable answer: {where}: {self._quoted(first['msg'])}"
            raise _SetbackError("bad_response", message) from None  # its text would quote the body
        if isinstance(reply, _ChatReply) and reply.choices[0].text is None and not reply.choices[0].refused:
            raise _SetbackError("bad_response", f"{response.url} gave an answer without content")
        return reply

    def _problem(self, response: httpx.Response) -> Exception:
        status = response.status_code
        if status in (401, 403):
            return UserError(
                f"The endpoint {self._url} refused access to the model {self._model!r} ({status}); "
                f"put a valid key into the environment variable {self._settings.api_key_env}."
            )
        if response.is_redirect:
            return UserError(
                f"The endpoint {self._url} has moved to {self._quoted(response.headers['location'])}, and redirects "
                "are not followed; give the new address."
            )
        said = self._quoted(_error_text(response))
        message = f"{response.url} answered {status}: {said}"
        if status == 404:
            return _NotFoundError(message)
        if status in (408, 429) or (status >= 500 and status != 501):
            kind = {408: "timeout", 429: "rate_limited"}.get(status, "server_error")
            return _SetbackError(kind, message, retry_after(response.headers.get("retry-after"), datetime.now(UTC)))
        too_long = status == 413 or any(words in said.lower() for words in _TOO_LONG)
        return EngineError("too_long" if too_long else "refused", message, retryable=False)

    def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.loop is not loop:
            self._connection = self._connect(loop)
        return self._connection

    def _connect(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        settings, most = self._settings, self._settings.max_num_seqs
        client = connect(
            httpx.AsyncClient,
            self._url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=settings.timeout_seconds,
            limits=httpx.Limits(max_connections=most, keepalive_expiry=_KEPT_ALIVE_SECONDS),
            follow_redirects=False,  # the key is for this host
        )
        limits = MinuteLimits(settings.requests_per_minute, settings.tokens_per_minute, self._clock, self._sleep)
        return _Connection(loop, client, asyncio.Semaphore(most), limits)

    def _quoted(self, text: object) -> str:
        """Return words that are not ours in one short line, without the key should they repeat it."""
        line = " ".join(str(text).split())
        return (line.replace(self._key, "***") if self._key else line)[:_MOST_SAID]


def _checked_url(text: str | None) -> str:
    """Return an endpoint's address without the slash at its end.

    Raises:
        UserError: it is no address of an endpoint, or holds a password, which messages would show.
    """
    example = "http://127.0.0.1:8001/v1"
    try:
        url = httpx.URL(text or "")
    except httpx.InvalidURL as error:
        raise UserError(f"engine.url is no address ({error}); write it as {example} is.") from error
    if url.userinfo or url.query or url.fragment:
        raise UserError(
            f"engine.url may hold no user, password, query or fragment: write it as {example} is, and put a key "
            "into the environment variable that engine.api_key_env names."
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"engine.url {text!r} is no address of an endpoint; write it as {example} is.")
    return str(url).rstrip("/")


def _key(variable: str) -> str | None:
    """Return the key in an environment variable; None without one, as local servers need none.

    Raises:
        UserError: it has characters that no key has; the HTTP client's own message would show it.
    """
    key = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UserError(f"The key in the environment variable {variable} has blanks or letters other than ASCII in it.")
    return key or None


def _estimated_tokens(body: dict[str, Any] | None) -> int:
    """Return about how many tokens a request and its answer take."""
    if body is None:
        return 0
    written = body["prompt"] if "prompt" in body else "".join(message["content"] for message in body["messages"])
    return len(written.encode()) // _BYTES_PER_TOKEN + int(body["max_tokens"])


def _settle(booking: Booking, reply: _Reply) -> None:
    if reply.prompt_tokens:
        MinuteLimits.settle(booking, reply.prompt_tokens + reply.generated_tokens)


def _error_text(response: httpx.Response) -> str:
    """Return an error's code and message in OpenAI's form, or whatever else the body says."""
    try:
        error = json.loads(response.content)["error"]
        code = error.get("code")
        return f"{code}: {error['message']}" if isinstance(code, str) else str(error["message"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return response.text


def _probabilities(place: _Place) -> dict[str, float]:
    """Return the likeliest tokens at a place, and the one that was taken, with their probabilities."""
    found: dict[str, float] = {}
    for entry in place.top_logprobs:
        found[entry.token] = found.get(entry.token, 0.0) + math.exp(min(0.0, entry.logprob))
    found.setdefault(place.token, math.exp(min(0.0, place.logprob)))
    return found


def _owners(tokens: list[str], segments: Sequence[str]) -> list[int] | None:
    """Find the segment of each token but the first by the tokens' texts.

    They are laid along the text from its end: at its start there may be a special token, which counts for nothing.
    vLLM writes the first parts of a character as empty tokens; they lie where the character begins. (`text_offset`
    says less: it is shifted by special tokens, and some servers leave it out or fill it with -1.)

    Returns:
        Numbers of segments; None where the tokens don't make up the text.
    """
    text, ends = "".join(segments), list(itertools.accumulate(map(len, segments)))
    owners, end = [], len(text)
    for token in reversed(tokens[1:]):
        start = end - len(token)
        if start < 0 or text[start:end] != token:
            return None
        # The character in the token's middle decides.
        owners.append(min(bisect_right(ends, (start + end) // 2), len(segments) - 1))
        end = start
    return owners[::-1] if text[:end] in ("", tokens[0]) else None
