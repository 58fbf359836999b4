"""Carries requests to an OpenAI-compatible endpoint: address, key, limits, attempts, and what a bad answer means."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from causalneg.config import EngineSettings
from causalneg.connections import connect
from causalneg.errors import UserError
from causalneg.generation.engines import EngineError
from causalneg.generation.engines.answers import ChatReply, Problem, Reply, error_in, read_problem
from causalneg.generation.engines.limits import Booking, Clock, MinuteLimits, Sleep, backoff
from causalneg.retries import retry_after

_BYTES_PER_TOKEN = 3  # rather too many tokens than too few; the answer tells the real number
_KEPT_ALIVE_SECONDS = 3  # below the 5 s after which uvicorn hangs up, so that no request runs into that
_MOST_SAID = 300  # characters of an endpoint's own words in a message
_TOO_LONG = ("context_length", "context length", "context window", "max_model_len", "too long")
# Codes by which an account has no money left, whatever the status; asking again changes nothing.
_UNPAID = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"}

_PASSING = {"overloaded", "overloaded_error", "server_error", "internal_error"}  # codes of what may pass

AnyReply = TypeVar("AnyReply")


class SetbackError(EngineError):
    """A failure that may pass; `wait` is how many seconds the endpoint asked for."""

    def __init__(self, kind: str, message: str, wait: float = 0.0) -> None:
        super().__init__(kind, message, retryable=True)
        self.wait = wait


class RefusedError(EngineError):
    """The endpoint does not take a request as it is.

    Attributes:
        problem: what it says of it.
    """

    def __init__(self, problem: Problem, message: str) -> None:
        too_long = problem.status == 413 or any(words in problem.said.lower() for words in _TOO_LONG)
        super().__init__("too_long" if too_long else "refused", message, retryable=False)
        self.problem = problem


@dataclass
class _Connection:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    client: httpx.AsyncClient
    slots: asyncio.Semaphore
    limits: MinuteLimits


class Transport:
    """A way to an endpoint; it connects at the first request.

    Args:
        settings: address, limits, and the name of the environment variable with the key.
        clock: tells the time in seconds, for the limits.
        sleep: waits for some seconds.

    Attributes:
        url: of the endpoint, without a slash at its end.

    Raises:
        UserError: the address or the key can't be right.
    """

    def __init__(self, settings: EngineSettings, clock: Clock, sleep: Sleep) -> None:
        self.url = _checked_url(settings.url)
        self._settings, self._key = settings, _key(settings.api_key_env)
        self._clock, self._sleep = clock, sleep
        self._connection: _Connection | None = None

    async def ask(
        self,
        path: str,
        body: dict[str, Any] | None,
        kind: type[AnyReply],
        setback: Callable[[], None] = lambda: None,
    ) -> AnyReply:
        """Ask until there is an answer, the endpoint refuses, or the attempts are used up.

        Args:
            path: below the endpoint's address.
            body: of the request; without one it is a GET.
            kind: of the answer.
            setback: called before a wait for another attempt.

        Raises:
            RefusedError: it refuses this request.
            EngineError: there was no answer.
            UserError: it would refuse every request.
        """
        attempt = 1
        while True:
            try:
                return await self._attempt(path, body, kind)
            except SetbackError as error:
                if attempt >= self._settings.max_attempts:
                    raise EngineError(error.kind, f"{error} ({attempt} attempts)", retryable=True) from error
                setback()
                await self._sleep(error.wait + backoff(attempt))
            attempt += 1

    async def close(self) -> None:
        """Part from the endpoint."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.loop is asyncio.get_running_loop():  # others are gone already
            await connection.client.aclose()

    def quoted(self, text: object) -> str:
        """Return words that are not ours in one short line, without the key should they repeat it."""
        return self._clean(text)[:_MOST_SAID]

    def _clean(self, text: object) -> str:
        line = " ".join(str(text).split())
        return line.replace(self._key, "***") if self._key else line

    async def _attempt(self, path: str, body: dict[str, Any] | None, kind: type[AnyReply]) -> AnyReply:
        connection = self._connected()
        async with connection.slots:
            booking = await connection.limits.acquire(_estimated_tokens(body))
            try:
                response = await self._send(connection.client, path, body)
                reply = self._read(response, kind)
            except SetbackError as error:
                connection.limits.pause(error.wait)
                raise
        _settle(booking, reply)
        return reply

    async def _send(self, client: httpx.AsyncClient, path: str, body: dict[str, Any] | None) -> httpx.Response:
        address, longest = f"{self.url}/{path}", self._settings.timeout_seconds
        try:
            async with asyncio.timeout(longest):  # httpx itself bounds only the time between two pieces
                return await client.request("GET" if body is None else "POST", address, json=body)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise SetbackError("timeout", f"{address} gave no answer within {longest:g} s") from error
        except (httpx.RemoteProtocolError, httpx.DecodingError) as error:
            raise SetbackError("bad_response", f"{address} gave half an answer: {self.quoted(error)}") from error
        except httpx.HTTPError as error:
            reason = self.quoted(error) or type(error).__name__
            raise SetbackError("server_error", f"{address} can't be reached: {reason}") from error

    def _read(self, response: httpx.Response, kind: type[AnyReply]) -> AnyReply:
        """Return what a response holds, or raise what it means."""
        if not response.is_success:
            raise self._meaning(response, read_problem(response.status_code, response.content))
        try:
            reply = TypeAdapter(kind).validate_json(response.content)
        except ValidationError as error:
            if problem := error_in(response.content):
                raise self._meaning(response, problem) from None  # its text would quote the body
            raise SetbackError("bad_response", f"{response.url} {self._unusable(response, error)}") from None
        if isinstance(reply, ChatReply) and reply.text is None and reply.refusal is None:
            raise SetbackError("bad_response", f"{response.url} gave an answer without content")
        return reply

    def _unusable(self, response: httpx.Response, error: ValidationError) -> str:
        """Return in words why a response is no answer."""
        if response.content.lstrip()[:1] == b"<":
            return "gave a web page instead of an answer"
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        return f"gave no usable answer: {where}: {self.quoted(first['msg'])}"

    def _meaning(self, response: httpx.Response, told: Problem) -> Exception:
        """Return what an answer that holds a problem means: a mistake of the user's, a setback, or a refusal."""
        problem = replace(told, message=self._clean(told.message))
        status, said = problem.status, self.quoted(problem.said)
        if status == 401:
            return self.no_access(problem)
        if status == 402 or problem.code in _UNPAID:
            return UserError(f"The endpoint {self.url} wants to be paid first ({status}): {said}")
        if response.is_redirect:
            return UserError(
                f"The endpoint {self.url} has moved to {self.quoted(response.headers['location'])}, and redirects "
                "are not followed; give the new address."
            )
        message = f"{response.url} answered {response.status_code}: {said}"
        if status in (408, 429) or (status >= 500 and status != 501) or problem.code in _PASSING:
            kind = {408: "timeout", 429: "rate_limited"}.get(status, "server_error")
            return SetbackError(kind, message, retry_after(response.headers.get("retry-after"), datetime.now(UTC)))
        return RefusedError(problem, message)

    def no_access(self, problem: Problem) -> UserError:
        """Return the sentence for an endpoint that does not let us in."""
        return UserError(
            f"The endpoint {self.url} refused access ({problem.status}: {self.quoted(problem.said)}); "
            f"put a valid key into the environment variable {self._settings.api_key_env}."
        )

    def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.loop is not loop:
            self._connection = self._connect(loop)
        return self._connection

    def _connect(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        settings, most = self._settings, self._settings.max_num_seqs
        client = connect(
            httpx.AsyncClient,
            self.url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=settings.timeout_seconds,
            limits=httpx.Limits(max_connections=most, keepalive_expiry=_KEPT_ALIVE_SECONDS),
            follow_redirects=False,  # the key is for this host
        )
        limits = MinuteLimits(settings.requests_per_minute, settings.tokens_per_minute, self._clock, self._sleep)
        return _Connection(loop, client, asyncio.Semaphore(most), limits)


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
    return len(written.encode()) // _BYTES_PER_TOKEN + _most_generated(body)


def _settle(booking: Booking, reply: object) -> None:
    if isinstance(reply, Reply) and reply.prompt_tokens:
        MinuteLimits.settle(booking, reply.prompt_tokens + reply.generated_tokens)


def _most_generated(body: dict[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 0)
