"""An OpenAI-compatible endpoint as an engine: vLLM's server, another one, or a service."""

import asyncio
import itertools
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from causalneg.config import EngineSettings
from causalneg.errors import UserError
from causalneg.generation.engines import Completion, EngineError, Likelihood
from causalneg.generation.engines.alignment import owners
from causalneg.generation.engines.answers import ChatReply, TextLogprobs, TextReply
from causalneg.generation.engines.dialect import Dialect
from causalneg.generation.engines.limits import Clock, Sleep
from causalneg.generation.engines.listing import Cards, Described, find
from causalneg.generation.engines.transport import RefusedError, Transport

_MOST_TOP_LOGPROBS = 20  # what OpenAI and vLLM allow unless told otherwise
_DESCRIBE_SECONDS = 30
_MOST_MODELS = 20  # named in a message


def _keep_nothing(_dialect: Dialect) -> None:
    """Forget what was found out, with the engine."""


class HttpEngine:
    """An engine behind an OpenAI-compatible endpoint. It connects at the first request.

    Args:
        model: name by which the endpoint knows the model.
        settings: its address, limits, and the name of the environment variable with its key.
        dialect: what is known about the parameters that the endpoint takes.
        learned: called with the dialect when an endpoint answered in a new one.
        clock: tells the time in seconds, for the limits.
        sleep: waits for some seconds.

    Raises:
        UserError: the address or the key can't be right.
    """

    repeats = True

    def __init__(
        self,
        model: str,
        settings: EngineSettings,
        dialect: Dialect | None = None,
        learned: Callable[[Dialect], None] = _keep_nothing,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._model, self._settings, self._learned = model, settings, learned
        self._transport = Transport(settings, clock, sleep)
        self._known = dialect or Dialect()  # the endpoint has answered in it, or in the one that is tried
        self._tried = self._known
        self._opened: asyncio.Event | None = None  # set when the first request has ended, in whatever way

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
        budget = max_tokens + self._settings.reasoning_tokens
        sampling = {"max_tokens": budget, "temperature": temperature, "seed": seed}
        body: dict[str, Any] = {"model": self._model, "messages": chat, **sampling}
        if schema is not None:
            named = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if top_probabilities > 0:
            body |= {"logprobs": True, "top_logprobs": min(top_probabilities, _MOST_TOP_LOGPROBS)}
        reply = await self._chat(body)
        if reply.refusal is not None:
            said = self._transport.quoted(reply.refusal)
            raise EngineError("refusal", f"the model refused: {said}", retryable=False)
        return Completion(
            reply.text or "",
            reply.finish_reason,
            reply.prompt_tokens,
            reply.cached_tokens,
            reply.generated_tokens,
            reply.probabilities,
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
        told = reply.choices[0].logprobs or TextLogprobs()
        tokens, logprobs = told.tokens or [], told.token_logprobs or []
        # The last one is the token that had to be generated.
        length = reply.prompt_tokens or len(tokens) - 1
        if not 0 < length <= len(tokens) == len(logprobs):
            raise EngineError(
                "unsupported", f"{self._transport.url} tells no log-probabilities of a prompt", retryable=False
            )
        found = owners(tokens[:length], segments)
        if found is None:
            found = await self._counted_owners(length, segments)
        own: list[list[float]] = [[] for _ in segments]
        for owner, logprob in zip(found, logprobs[1:length], strict=True):
            if logprob is not None:
                own[owner].append(logprob)
        return Likelihood([sum(values) / max(1, len(values)) for values in own], length, reply.cached_tokens)

    async def describe(self) -> Described:
        """Return what the endpoint tells of the model; without a list of models its name alone.

        Raises:
            UserError: the endpoint can't be reached or has no such model.
        """
        url = self._transport.url
        try:
            async with asyncio.timeout(_DESCRIBE_SECONDS):
                cards = (await self._transport.ask("models", None, Cards)).data or []
        except RefusedError as error:
            if error.problem.status in (404, 405, 501):
                return Described(self._model, self._model, listed=False)
            if error.problem.status == 403:
                raise self._transport.no_access(error.problem) from error
            raise self._no_list(error) from error
        except (EngineError, TimeoutError) as error:
            raise self._no_list(error) from error
        described = find(cards, self._model)
        if described is None:
            others = ", ".join(card.id for card in cards[:_MOST_MODELS]) or "none"
            more = ", …" if len(cards) > _MOST_MODELS else ""
            raise UserError(
                f"The endpoint {url} has no model {self._model!r}; it has {self._transport.quoted(others)}{more}."
            )
        return described

    async def close(self) -> None:
        """Part from the endpoint."""
        await self._transport.close()

    def _no_list(self, error: Exception) -> UserError:
        reason = str(error) or f"no answer within {_DESCRIBE_SECONDS} s"
        return UserError(
            f"The endpoint {self._transport.url} does not tell its models ({reason}); check that it is running and "
            "that this address is whole, as http://127.0.0.1:8001/v1 is."
        )

    async def _chat(self, body: dict[str, Any]) -> ChatReply:
        """Ask; the first request goes alone, so that only one finds out what the endpoint refuses.

        The others wait for its answer, or until it has to wait itself.
        """
        if self._opened is not None:
            await self._opened.wait()
            return await self._spoken(body)
        self._opened = asyncio.Event()
        try:
            return await self._spoken(body, self._opened.set)
        finally:
            self._opened.set()

    async def _spoken(self, body: dict[str, Any], setback: Callable[[], None] = lambda: None) -> ChatReply:
        """Ask in the dialect that the endpoint is known to take; where it refuses a parameter, in another one."""
        extra = self._settings.extra_body
        sent = self._tried
        while True:
            whole = {n: v for n, v in (sent.spoken(body) | extra).items() if v is not None}
            try:
                reply = await self._transport.ask("chat/completions", whole, ChatReply, setback)
            except RefusedError as error:
                after = sent.after(error.problem, body)
                if after is None:
                    self._tried = self._known  # what was tried did not help
                    raise self._meaning(error) from error
                sent = self._tried = self._tried.joined(after)
            else:
                self._learn(sent)
                return reply

    def _learn(self, dialect: Dialect) -> None:
        known = self._known.joined(dialect)
        if known != self._known:
            self._known = known
            self._tried = self._tried.joined(known)
            self._learned(known)

    def _meaning(self, error: RefusedError) -> Exception:
        """Return a refusal as a sentence for the user where it holds for every request."""
        if error.problem.status == 403:
            return self._transport.no_access(error.problem)
        if error.problem.status == 404:
            return UserError(
                f"{error}; check that there is a model {self._model!r} at {self._transport.url}, and that this address "
                "is whole, as http://127.0.0.1:8001/v1 is."
            )
        return EngineError(error.kind, str(error), retryable=False)

    async def _echo(self, prompt: str, options: dict[str, Any]) -> TextReply:
        """Ask for one token after a plain text; not all endpoints that chat do that too."""
        body = {"model": self._model, "prompt": prompt, "max_tokens": 1, "temperature": 0, **options}
        try:
            return await self._transport.ask("completions", body, TextReply)
        except RefusedError as error:
            kind = "too_long" if error.kind == "too_long" else "unsupported"
            raise EngineError(kind, str(error), retryable=False) from error

    async def _counted_owners(self, length: int, segments: Sequence[str]) -> list[int]:
        """Find the segments of a text's tokens, without the first, by the number of tokens before each segment.

        For endpoints that write the halves of a character as replacement characters, or change the text.
        """
        starts = itertools.accumulate(segments[:-1])
        replies = await asyncio.gather(*(self._echo(text, {}) for text in starts if text))
        counts = [reply.prompt_tokens for reply in replies]
        if not all(counts):
            raise EngineError("unsupported", f"{self._transport.url} counts no tokens", retryable=False)
        skipped = len(segments) - 1 - len(counts)  # empty ones at the start
        return [skipped + bisect_right(counts, index) for index in range(1, length)]
