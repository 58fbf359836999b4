"""What is wrong with something that was sent, in the words of whoever sent it."""

from typing import Any, NamedTuple

from pydantic import ValidationError

_VALUE_ERROR = "Value error, "  # stands before the messages of our own checks
_SHOULD_BE = "Input should be "


class Problem(NamedTuple):
    """What is wrong, and where: the names and numbers that lead there in what was sent."""

    place: tuple[int | str, ...]
    message: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.place))}: {self.message}" if self.place else self.message


def first_problem(error: ValidationError, sent: object) -> Problem:
    """Return the first problem of something that was sent.

    Names of classes and of the branches of a union, which pydantic puts into its paths, are of no use to the sender.
    Where several branches of a union fail at one place, what any of them takes is said.

    Args:
        error: of the validation.
        sent: what was validated, as JSON has it.
    """
    found = [
        (_place(e["loc"], sent, e["type"] == "missing"), _message(e))
        for e in error.errors(include_url=False, include_input=False)
    ]
    first = found[0][0]
    within = [place for place, _ in found if place[: len(first)] == first]
    place = max(within, key=len)
    return Problem(place, _joined([message for where, message in found if where == place]))


def _place(loc: tuple[int | str, ...], sent: Any, is_missing: bool) -> tuple[int | str, ...]:  # noqa: ANN401
    """Return the parts of a path that lead somewhere in what was sent, and the name of what is missing there."""
    place: list[int | str] = []
    for part in loc:
        there = range(len(sent)) if isinstance(sent, list) else sent if isinstance(sent, dict) else ()
        if part in there:
            place.append(part)
            sent = sent[part]
    return (*place, loc[-1]) if is_missing else tuple(place)


def _message(error: Any) -> str:  # noqa: ANN401 - one of pydantic's errors
    if error["type"] == "model_type":  # names the class
        return f"{_SHOULD_BE}an object"
    return str(error["msg"]).removeprefix(_VALUE_ERROR)


def _joined(messages: list[str]) -> str:
    """Return the messages as one, those of the same kind with "or" between what they ask for."""
    kinds = list(dict.fromkeys(m.removeprefix(_SHOULD_BE) for m in messages if m.startswith(_SHOULD_BE)))
    others = list(dict.fromkeys(m for m in messages if not m.startswith(_SHOULD_BE)))
    return "; or ".join([_SHOULD_BE + " or ".join(kinds), *others] if kinds else others)
