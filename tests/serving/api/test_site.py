"""The page and the documentation: self-contained, and nothing may be slipped in."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient
from serving_samples import Echo

from causalneg.config import ServeSettings
from causalneg.serving.api import create_app
from causalneg.serving.keys import Keys
from causalneg.serving.metrics import Metrics

VOID = {"meta", "link", "input", "br"}
HANDLERS = re.compile(r"on[a-z]+")


class Checked(HTMLParser):
    """Collects what a page holds, and refuses one whose elements are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.inline: list[tuple[str, str]] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.add(value or "")
            if name in ("src", "href", "action"):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.inline.append((self.open[-1], data))


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(create_app(Echo(), ServeSettings(), Metrics(), Keys()))


def _checked(html: str) -> Checked:
    page = Checked()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_from_its_own_server_only(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"(https?:)?//[a-z0-9]", response.text.replace("// ", ""), re.IGNORECASE)
    page = _checked(response.text)
    for address in page.addresses:
        assert address == "data:," or client.get(f"/{address}").status_code == 200
    assert not any(HANDLERS.fullmatch(name) for name in page.attributes)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_policy_allows_just_the_scripts_that_are_there(client: TestClient, path: str) -> None:
    response = client.get(path)
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in policy["script-src"]
    (script,) = [text for kind, text in _checked(response.text).inline if kind == "script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"].removeprefix("'self' ") == f"'sha256-{digest}'"


def test_the_page_puts_answers_in_as_text(client: TestClient) -> None:
    html = client.get("/").text
    for way_in in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert way_in not in html
    assert "textContent" in html


def test_the_script_finds_its_elements(client: TestClient) -> None:
    html = client.get("/").text
    assert set(re.findall(r'at\("([a-z-]+)"\)', html)) <= _checked(html).ids
