"""What a browser shows: the search page and the documentation. Both load nothing from another host."""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

_PAGES = Path(__file__).parent.parent / "page"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def _page(name: str, **more: str) -> HTMLResponse:
    """Return a page that may run its own script, take its own style, and ask its own server: nothing else.

    Args:
        name: file of the page.
        more: sources to allow beside, by directive: `script`, `style`, `img`.
    """
    html = (_PAGES / name).read_text(encoding="utf-8")
    sources = {"script": more.get("script", ""), "style": more.get("style", ""), "img": "data: " + more.get("img", "")}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        sources[kind] += f" 'sha256-{digest}'"
    allowed = "; ".join(f"{kind}-src {value.strip()}" for kind, value in sources.items())
    policy = f"default-src 'none'; {allowed}; connect-src 'self'; base-uri 'none'; form-action 'none'"
    return HTMLResponse(html, headers={"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"})


def routes() -> APIRouter:
    """Return the routes of this group; they are open to all and not in the document of the interface."""
    from swagger_ui_bundle import swagger_ui_path

    router = APIRouter(include_in_schema=False)
    search_page = _page("search.html")
    # Swagger UI sets styles on its elements as it goes.
    docs_page = _page("docs.html", script="'self'", style="'self' 'unsafe-inline'", img="'self'")

    @router.get("/")
    async def page() -> HTMLResponse:
        return search_page

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return docs_page

    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        router.add_api_route(f"/docs/{name}", _file(swagger_ui_path / name), methods=["GET"])
    return router


def _file(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(path)

    return send
