"""Names of arguments: other libraries' names for ours, and a clear word on those that there are not."""

from collections.abc import Callable, Collection, Mapping
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from causalneg.names import nearest

# Names by which neighbouring libraries know the same thing, each beside ours.
_SAME = (
    ("limit", "k", "top_k", "similarity_top_k", "n", "n_results", "num_results", "size", "max_results"),
    ("filter", "filters", "where", "query_filter"),
    ("score_threshold", "threshold", "min_score", "similarity_cutoff"),
    ("url", "base_url", "endpoint", "host", "address", "server"),
    ("api_key", "key", "token"),
    ("timeout", "request_timeout", "timeout_ms"),
)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def check_names(owner: str, given: Collection[str], known: Collection[str]) -> None:
    """Make sure that all arguments are known.

    Raises:
        TypeError: one is not; the message names the nearest.
    """
    for name in given:
        if name not in known:
            same = [ours for group in _SAME if name in group for ours in group if ours in known]
            hint = f"; did you mean {same[0]!r}?" if same else nearest(name, list(known))
            raise TypeError(f"{owner} has no argument {name!r}" + (hint or f"; it has {', '.join(known)}."))


def renamed(owner: str, given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments under our names.

    Args:
        owner: whose they are, for the message.
        given: the arguments.
        names: from another name to ours.

    Raises:
        TypeError: one is given by two names.
    """
    out: dict[str, Any] = {}
    source: dict[str, str] = {}
    for name, value in given.items():
        ours = names.get(name, name)
        if ours in out:
            raise TypeError(f"{owner} was given {source[ours]!r} and {name!r}, which are the same; give one of them.")
        out[ours], source[ours] = value, name
    return out


def refusing_unknown(init: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a constructor name the nearest argument where it is given one that it has not."""
    known = [name for name in signature(init).parameters if name != "self"]
    owner = init.__qualname__.split(".")[0]

    @wraps(init)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        check_names(owner, kwargs, known)
        return init(*args, **kwargs)

    return checked
