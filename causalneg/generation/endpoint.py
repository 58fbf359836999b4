"""A model at an OpenAI-compatible endpoint: what it is, how it wants to be asked, and the engine that asks it."""

import asyncio
from dataclasses import dataclass

from causalneg.config import EngineSettings
from causalneg.generation.engines import Engine
from causalneg.generation.engines.dialect import Dialect
from causalneg.generation.engines.listing import Described
from causalneg.records import content_id
from causalneg.workspace import Workspace


@dataclass(frozen=True)
class Endpoint:
    """A model at an address.

    Attributes:
        llm: the name to ask for it by.
        fingerprint: what the endpoint tells of its revision.
        settings: with the address, the name of its key's variable, and limits.
    """

    llm: str
    fingerprint: str
    settings: EngineSettings

    def __str__(self) -> str:
        return f"{self.llm} at {self.settings.url}"

    @property
    def _dialect_file(self) -> str:
        return f"drafts/dialect-{content_id(self.settings.url, self.llm, self.fingerprint)}.json"

    def dialect(self, workspace: Workspace) -> Dialect:
        """Return what earlier requests found out about the parameters that it takes."""
        name = self._dialect_file
        return Dialect.model_validate_json(workspace.read_bytes(name)) if workspace.exists(name) else Dialect()

    def connect(self, workspace: Workspace) -> Engine:
        """Return an engine that asks it, and remembers in the workspace which parameters it takes.

        Raises:
            UserError: the address or the key can't be right.
        """
        from causalneg.generation.engines.http import HttpEngine

        def learned(dialect: Dialect) -> None:
            workspace.write_bytes(self._dialect_file, dialect.model_dump_json().encode())

        return HttpEngine(self.llm, self.settings, self.dialect(workspace), learned)


def describe(llm: str, settings: EngineSettings) -> Described:
    """Return what an endpoint tells of a model.

    Raises:
        UserError: it can't be reached, or has no such model.
    """
    return asyncio.run(_describe(llm, settings))


async def _describe(llm: str, settings: EngineSettings) -> Described:
    from causalneg.generation.engines.http import HttpEngine

    engine = HttpEngine(llm, settings)
    try:
        return await engine.describe()
    finally:
        await engine.close()
