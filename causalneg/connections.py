"""HTTP clients that ask this machine directly, and other machines through the proxies that the environment names."""

import ipaddress
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from causalneg.errors import UserError

_HTTP = TypeVar("_HTTP", httpx.Client, httpx.AsyncClient)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine: a proxy would look for it on its own."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def connect(kind: Callable[..., _HTTP], url: str, **settings: Any) -> _HTTP:
    """Make an HTTP client for the server at an address; it connects when it is first used.

    Args:
        kind: `httpx.Client` or `httpx.AsyncClient`.
        url: the server's address.
        settings: what httpx takes otherwise.

    Raises:
        UserError: the environment names a proxy for other machines that can't be used.
    """
    try:
        return kind(trust_env=not is_loopback(httpx.URL(url).host), **settings)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise UserError(
            f"The proxy that the environment names for {url} can't be used: {str(error).rstrip('.')}. Mend HTTP_PROXY, "
            "HTTPS_PROXY, ALL_PROXY or NO_PROXY."
        ) from error
