"""What is wrong with something that was sent, in the words of whoever sent it."""

from typing import Any

from pydantic import ValidationError

_VALUE_ERROR = "Value error, "  # stands before the messages of our own checks
_SHOULD_BE = "Input should be "


def problem(error: ValidationError, sent: object) -> str:
    """Return where the first problem is, as a path into what was sent, and what it is.

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
    words = _joined([message for where, message in found if where == place])
    return f"{'.'.join(map(str, place))}: {words}" if place else words


def _place(loc: tuple[int | str, ...], sent: Any, is_missing: bool) -> tuple[int | str, ...]:  # noqa: ANN401
    """Return the parts of a path that lead somewhere in what was sent, and the name of what is missing there."""
    place: list[int | str] = []
    for part in loc:
        if (isinstance(sent, dict) and part in sent) or (isinstance(sent, list) and part in range(len(sent))):
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
