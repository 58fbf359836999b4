"""What an LLM engine does for generation, whichever it is."""

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Completion:
    """An answer of the LLM.

    Attributes:
        finish_reason: "stop" when the answer is whole, "length" when it was cut.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class Likelihood:
    """Mean log-probability per token of a continuation, in nats."""

    mean_logprob: float
    prompt_tokens: int


class EngineError(Exception):
    """A request that gave no usable answer.

    Attributes:
        kind: what went wrong, as it stands in failure rows.
        retryable: whether another attempt may do better.
    """

    def __init__(self, kind: str, message: str, retryable: bool) -> None:
        super().__init__(message)
        self.kind, self.retryable = kind, retryable


class EngineDeadError(Exception):
    """The engine is gone: no pair's fault, and no further request can be answered."""


class Engine(Protocol):
    """Answers chats under a JSON schema, and tells how likely a text makes another."""

    async def complete(
        self,
        chat: list[dict[str, str]],
        schema: dict[str, Any],
        max_tokens: int,
        temperature: float,
        seed: int,
    ) -> Completion:
        """Answer a chat with JSON that follows the schema.

        Raises:
            EngineError: there was no answer.
        """

    async def likelihood(self, prefix: str, continuation: str) -> Likelihood:
        """Return how likely `continuation` is after `prefix`.

        Raises:
            EngineError: there was no answer.
        """
