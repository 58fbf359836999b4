"""Proxies of the environment: for other machines, never for this one."""

import socket
from collections.abc import Iterator

import pytest
from client_servers import Ask, found, scripted

from causalneg.connections import is_loopback
from causalneg.errors import UserError

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A proxy that the environment names for everything; gives what it was asked."""
    with scripted(found("from the proxy")) as (proxy, requests):
        _set(monkeypatch, HTTP_PROXY=proxy, HTTPS_PROXY=proxy, ALL_PROXY=proxy)
        yield requests


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in VARIABLES:
        for spelling in (name, name.lower()):
            monkeypatch.delenv(spelling, raising=False)
            if name in variables:
                monkeypatch.setenv(spelling, variables[name])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"])  # noqa: S104
def test_this_machine_is_asked_directly(host: str, ask: Ask, proxied: list[bytes]) -> None:
    with scripted(found("direct")) as (url, requests):
        assert ask(url.replace("127.0.0.1", host), "search", "q")[0].id == "direct"
    assert len(requests) == 1
    assert proxied == []


def test_the_loopback_of_ipv6_is_asked_directly(ask: Ask, proxied: list[bytes]) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener, scripted(found("direct"), listener=listener) as (_, requests):
        assert ask(f"http://[::1]:{listener.getsockname()[1]}", "search", "q")[0].id == "direct"
    assert len(requests) == 1
    assert proxied == []


def test_another_machine_is_asked_through_the_proxy(ask: Ask, proxied: list[bytes]) -> None:
    assert ask("http://retriever.example:8000", "search", "q")[0].id == "from the proxy"
    assert proxied[0].startswith(b"POST http://retriever.example:8000/v1/search ")


def test_a_proxy_that_cannot_be_used_is_named(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, ALL_PROXY="gopher://user:secret@proxy.example")
    with pytest.raises(UserError, match=r"http://retriever\.example can't be used.*ALL_PROXY") as refused:
        ask("http://retriever.example", "search", "q")
    assert "secret" not in str(refused.value)
    with scripted(found("direct")) as (url, _):
        assert ask(url, "search", "q")[0].id == "direct"


@pytest.mark.parametrize("host", ["localhost.", "a.localhost", "LOCALHOST", "::1", "[::1]", "127.8.8.8"])
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example", "10.0.0.1", "128.0.0.1", "::2", "mylocalhost", ""])
def test_names_of_other_machines(host: str) -> None:
    assert not is_loopback(host)
