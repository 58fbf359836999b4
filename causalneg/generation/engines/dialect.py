"""Which parameters an endpoint takes: found out by what it refuses, once, and then replaced or left out."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from causalneg.generation.engines.answers import Problem

Body = dict[str, Any]

_MAY_NAME = {200, 400, 403, 404, 422, 501}  # statuses by which a parameter is refused
# Words by which a parameter is refused, and not the value that it has: «not supported», «unknown name», …
_REFUSES = re.compile(
    r"unsupported|(?:not|n't)(?: \w+)? support|unrecogni[sz]ed|unknown|unexpected|unavailable|missing field"
    r"|not (?:permitted|allowed|enabled|available|implemented)"
    r"|cannot find field|extra (?:inputs|fields)|only the default|deserialize",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Way:
    """Another way to send a parameter, or to go without it.

    Attributes:
        said: how that is, in words that follow the parameter's name.
        change: from the body as it was first to be sent to the new one.
    """

    said: str
    change: Callable[[Body], Body]


@dataclass(frozen=True)
class Quirk:
    """A parameter that not all endpoints take.

    Attributes:
        parameter: its name in the body of a request.
        names: words by which a refusal may name it.
        ways: other ways, in the order in which they are tried.
    """

    parameter: str
    names: tuple[str, ...]
    ways: tuple[Way, ...]


def _without(*parameters: str) -> Way:
    return Way("is left out", lambda body: {name: value for name, value in body.items() if name not in parameters})


def _renamed(old: str, new: str) -> Way:
    return Way(f"is sent as {new}", lambda body: {new if name == old else name: v for name, v in body.items()})


def _schema(body: Body) -> Body:
    return dict(body["response_format"]["json_schema"]["schema"])


def _loose_schema(body: Body) -> Body:
    named = {"name": "answer", "schema": _schema(body)}
    return body | {"response_format": {"type": "json_schema", "json_schema": named}}


def _schema_in_prompt(body: Body) -> Body:
    """Put the schema behind the instructions, for endpoints that hold an answer to no schema."""
    told = (
        f"The answer must be a JSON object that follows this JSON schema, and nothing else: {json.dumps(_schema(body))}"
    )
    first, *others = body["messages"]
    chat = [first | {"content": f"{first['content']}\n\n{told}"}, *others]
    return {name: value for name, value in body.items() if name != "response_format"} | {"messages": chat}


def _json_object(body: Body) -> Body:
    return _schema_in_prompt(body) | {"response_format": {"type": "json_object"}}


QUIRKS = (
    Quirk("max_tokens", ("max_tokens",), (_renamed("max_tokens", "max_completion_tokens"),)),
    Quirk("temperature", ("temperature",), (_without("temperature"),)),
    Quirk("seed", ("seed",), (_without("seed"),)),
    Quirk(
        "response_format",
        ("response_format", "json_schema", "json_object", "structured_output", "structured output", "schema"),
        (
            Way("is sent without «strict»", _loose_schema),
            Way("is sent as json_object, with the schema in the prompt", _json_object),
            Way("is left out, with the schema in the prompt", _schema_in_prompt),
        ),
    ),
    Quirk("logprobs", ("logprobs", "top_logprobs"), (_without("logprobs", "top_logprobs"),)),
)


class Dialect(BaseModel):
    """Which way of each parameter an endpoint takes; 0 is the usual one, and so for those that are not named.

    It never loops: each refusal moves a parameter on to a way that was not tried yet.
    """

    ways: dict[str, int] = {}

    def spoken(self, body: Body) -> Body:
        """Return a request's body as the endpoint takes it."""
        for quirk in QUIRKS:
            way = self.ways.get(quirk.parameter, 0)
            if way and quirk.parameter in body:
                body = quirk.ways[way - 1].change(body)
        return body

    def after(self, problem: Problem, body: Body) -> "Dialect | None":
        """Return what to try after `spoken(body)` was refused; None where no parameter with another way is meant."""
        ways = dict(self.ways)
        for quirk in QUIRKS:
            way = ways.get(quirk.parameter, 0)
            if quirk.parameter in body and way < len(quirk.ways) and _is_refused(quirk, problem):
                ways[quirk.parameter] = way + 1
        return Dialect(ways=ways) if ways != self.ways else None

    def joined(self, other: "Dialect") -> "Dialect":
        """Return the dialect that holds what both have found out."""
        names = self.ways.keys() | other.ways.keys()
        return Dialect(ways={n: max(self.ways.get(n, 0), other.ways.get(n, 0)) for n in sorted(names)})

    def words(self) -> list[str]:
        """Return what is not sent in the usual way, in words."""
        return [f"{q.parameter} {q.ways[way - 1].said}" for q in QUIRKS if (way := self.ways.get(q.parameter, 0))]


def _is_refused(quirk: Quirk, problem: Problem) -> bool:
    """Whether a problem says that a parameter, and not its value, is at fault.

    OpenAI names it in a field of its own, FastAPI by its place; others name it in their words alone.
    """
    if problem.status not in _MAY_NAME:
        return False
    words = any(re.search(rf"(?<![\w-]){name}(?!\w)", problem.message, re.IGNORECASE) for name in quirk.names)
    named = words or not problem.parameters.isdisjoint(quirk.names)
    return named and (problem.code.startswith("unsupported") or bool(_REFUSES.search(problem.message)))
