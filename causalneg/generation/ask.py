"""Asks an engine until there is an answer of the right form, and counts what that takes."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from causalneg.generation.engines import Completion, Engine, EngineError
from causalneg.generation.free import AnswerError
from causalneg.generation.prompts import messages
from causalneg.generation.rows import Usage
from causalneg.records import content_id

Answer = TypeVar("Answer")

_CHOICE_TOKENS = 16  # room for {"choice":12}
_NO_CONTENT = (
    "the model spent {tokens} tokens and wrote no answer; one that reasons needs more: set --engine.reasoning-tokens, "
    "as 4096, or have it reason less by --engine.extra-body"
)


class UnusableAnswerError(EngineError):
    """The model answered, and no attempt gave an answer that serves."""


@dataclass(frozen=True)
class Lost:
    """A negative that was not to be had.

    Attributes:
        part: names what was to be made, the same whenever it is tried.
        error: why.
    """

    part: str
    error: EngineError


async def settled(calls: Iterable[Awaitable[Answer]]) -> list[Answer | EngineError]:
    """Wait until all calls have ended; an error stands for each that gave no answer. Any other exception is raised."""
    ended = await asyncio.gather(*calls, return_exceptions=True)
    for end in ended:
        if isinstance(end, BaseException) and not isinstance(end, EngineError):
            raise end
    return [end for end in ended if isinstance(end, EngineError) or not isinstance(end, BaseException)]


async def answered(calls: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """Wait until all calls have ended, so that all are counted, and return their answers.

    Raises:
        EngineError: the first of those that gave none.
    """
    ended = await settled(calls)
    for end in ended:
        if isinstance(end, EngineError):
            raise end
    return [end for end in ended if not isinstance(end, EngineError)]


def choice_schema(options: int) -> dict[str, Any]:
    """Return the schema of an answer that names one of `options` numbered options."""
    return {
        "type": "object",
        "properties": {"choice": {"enum": list(range(1, options + 1))}},
        "required": ["choice"],
        "additionalProperties": False,
    }


def parse_choice(text: str, options: int) -> int:
    """Return the chosen number.

    Raises:
        AnswerError: the answer is not what the schema asks for. It is never repaired.
    """
    try:
        answer = json.loads(text)
    except json.JSONDecodeError as error:
        raise AnswerError("invalid_json", f"the answer is no JSON: {text!r}") from error
    number = answer.get("choice") if isinstance(answer, dict) and len(answer) == 1 else None
    if type(number) is not int or not 1 <= number <= options:
        raise AnswerError("invalid_json", f"the answer names none of {options} options: {text!r}")
    return number


class Asker:
    """An engine asked on behalf of one pair.

    Args:
        engine: answers.
        attempts: how often a request is made at most.
        key: what makes the seeds of this pair's requests its own.
        judge_tokens: budget of a judgement's first attempt.
        judge: answers what is asked of a judge; the same engine without.
    """

    def __init__(
        self, engine: Engine, attempts: int, key: str, judge_tokens: int = 128, judge: Engine | None = None
    ) -> None:
        self._engine, self._attempts, self._key = engine, attempts, key
        self._judge = judge or engine
        self.judge_tokens = judge_tokens
        self.usage = Usage()
        self.attempts = 0  # of the request that took most

    def _count(self, prompt: int, cached: int, generated: int = 0) -> None:
        self.usage += Usage(requests=1, prompt_tokens=prompt, cached_tokens=cached, generated_tokens=generated)

    async def ask(
        self,
        chat: Callable[[int], list[dict[str, str]]],
        parse: Callable[[Completion, int], Answer],
        what: str,
        schema: dict[str, Any] | None,
        max_tokens: int,
        temperature: float = 0.0,
        top_probabilities: int = 0,
        judging: bool = False,
    ) -> Answer:
        """Ask until an answer can be parsed: each attempt with another seed, after a cut answer with twice the budget.

        After one that is empty, as of a model that reasons, with more.

        Args:
            chat: from a seed to the messages.
            parse: from the answer and the seed to what is wanted; raises AnswerError.
            what: names the request, so that its seed is its own.
            schema: JSON schema of the answer.
            max_tokens: budget of the first attempt.
            temperature: of the first attempt; at 0 the same prompt would give the same answer, so later ones take 0.7.
            top_probabilities: how many tokens' probabilities to report at each place.
            judging: whether it is the judge that is asked.

        Raises:
            EngineError: no attempt gave an answer; with the kind of the last.
        """
        budget, engine = max_tokens, self._judge if judging else self._engine

        async def attempt(number: int) -> Answer:
            nonlocal budget
            seed = int(content_id(self._key, what, number)[:8], 16)
            heat = temperature if not number else max(temperature, 0.7)
            done = await engine.complete(chat(seed), schema, budget, heat, seed, top_probabilities)
            self._count(done.prompt_tokens, done.cached_tokens, done.generated_tokens)
            if done.finish_reason not in ("stop", "length"):
                raise AnswerError("refusal", f"the answer ended with {done.finish_reason!r}")
            if not done.text.strip():
                budget += 2 * max(budget, done.generated_tokens)
                raise AnswerError("no_content", _NO_CONTENT.format(tokens=done.generated_tokens))
            if done.finish_reason == "length":
                budget *= 2
                raise AnswerError("length", f"the answer was cut: …{done.text[-60:]!r}")
            return parse(done, seed)

        return await self._repeat(attempt, engine)

    async def _repeat(self, attempt: Callable[[int], Awaitable[Answer]], engine: Engine) -> Answer:
        """Make attempts, numbered from 0, until one gives an answer.

        An answer that does not serve is asked for again. A request that failed is made again where that may help and
        the engine has not done so by itself.
        """
        failed = EngineError("bad_response", "no attempt was made", retryable=True)
        for number in range(self._attempts):
            self.attempts = max(self.attempts, number + 1)
            try:
                return await attempt(number)
            except AnswerError as error:
                failed = UnusableAnswerError(error.kind, str(error), retryable=True)
            except EngineError as error:
                failed = error
                if engine.repeats or not error.retryable:
                    break
        raise failed

    async def choose(self, name: str, options: Sequence[str], what: str, **values: str) -> int:
        """Let the LLM choose among options and return the position of its choice.

        The options are shuffled by a seed of the row, since small models tend to take the first.

        Args:
            name: of the prompt.
            options: to choose among; a single one is taken without asking.
            what: names the request, so that its seed is its own.
            values: fill the prompt.
        """
        if len(options) == 1:
            return 0

        def order(seed: int) -> list[int]:
            return random.Random(seed).sample(range(len(options)), len(options))  # noqa: S311 - a shuffle, no secret

        def chat(seed: int) -> list[dict[str, str]]:
            listed = "\n".join(f"{number}. {options[at]}" for number, at in enumerate(order(seed), 1))
            return messages(name, options=listed, **values)

        def parse(done: Completion, seed: int) -> int:
            return order(seed)[parse_choice(done.text, len(options)) - 1]

        return await self.ask(chat, parse, f"{name} {what}", choice_schema(len(options)), _CHOICE_TOKENS)

    async def likelihood(self, segments: Sequence[str]) -> list[float]:
        """Return the mean log-probability of each segment of a text after those before it."""

        async def attempt(_number: int) -> list[float]:
            done = await self._engine.likelihood(segments)
            self._count(done.prompt_tokens, done.cached_tokens)
            return done.mean_logprobs

        return await self._repeat(attempt, self._engine)
