"""A service in this process over a workspace, as the tests of it need it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from causalneg.config import load_config
from causalneg.serving.deadline import Deadline
from causalneg.serving.opening import open_service
from causalneg.serving.schema import SearchRequest, SearchResponse
from causalneg.serving.service import LocalService
from causalneg.workspace import Workspace


def with_service(workspace: Workspace, use: Callable[[LocalService], Awaitable[None]], **settings: Any) -> None:
    """Open a service with some of the settings of `serve`, and close it after use."""
    flags = {f"serve.{name}": value for name, value in {"backend": "torch-fp32", **settings}.items()}
    config = load_config(flags={"workspace": workspace.root, **flags})

    async def main() -> None:
        service, _ = open_service(config)
        try:
            await use(service)
        finally:
            await service.close()

    asyncio.run(main())


def soon() -> Deadline:
    return Deadline(60)


async def search(service: LocalService, **request: Any) -> SearchResponse:
    return await service.search(SearchRequest(**request), soon())


def ids_of(answer: SearchResponse) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in answer.results]
