"""What an LLM engine does for generation, whichever it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Completion:
    """An answer of the LLM.

    Attributes:
        finish_reason: "stop" when the answer is whole, "length" when it was cut.
        probabilities: for each generated token the likeliest tokens with their probabilities, if they were asked for.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    probabilities: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Likelihood:
    """Mean log-probability per token, in nats, of each segment of a text after those before it."""

    mean_logprobs: list[float]
    prompt_tokens: int
    cached_tokens: int = 0


class EngineError(Exception):
    """A request that gave no usable answer.

    Attributes:
        kind: what went wrong, as it stands in failure rows: length, invalid_json, invalid_analysis, invalid_rewrite,
            invalid_judgement, no_content, refusal, timeout, rate_limited,
            server_error, bad_response, too_long, unsupported, refused.
        retryable: whether another attempt may do better.
    """

    def __init__(self, kind: str, message: str, retryable: bool) -> None:
        super().__init__(kind, message, retryable)  # as it was made, so that it can travel between processes
        self.kind, self.message, self.retryable = kind, message, retryable

    def __str__(self) -> str:
        return self.message


class EngineDeadError(Exception):
    """The engine is gone: no further request can be answered before it is started again."""


class Engine(Protocol):
    """Answers chats, under a JSON schema if there is one, and tells how likely a text makes another.

    Attributes:
        repeats: whether it repeats by itself what failed on the way to the model.
    """

    repeats: bool

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

        Args:
            chat: messages with `role` and `content`.
            schema: JSON schema of the answer, or None for free text.
            max_tokens: most tokens of the answer.
            temperature: of the sampling.
            seed: of the sampling.
            top_probabilities: how many of the likeliest tokens to report at each place.

        Raises:
            EngineError: there was no answer.
            EngineDeadError: the engine is gone.
        """

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        """Return how likely each segment of a plain text is after those before it; the first, without its first token.

        Raises:
            EngineError: there was no answer; kind `unsupported` where the engine can't tell.
            EngineDeadError: the engine is gone.
        """

    async def close(self) -> None:
        """Stop the engine, or part from it."""
