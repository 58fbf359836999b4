"""What the HTTP interface stands on."""

from typing import NamedTuple, Protocol

import numpy as np

from causalneg.serving.deadline import Deadline
from causalneg.serving.schema import (
    ChangeResponse,
    Cut,
    IndexList,
    Info,
    MergeResponse,
    PassageBody,
    PassageResponse,
    SearchRequest,
    SearchResponse,
    SwapResponse,
    Timings,
)


class Embedded(NamedTuple):
    """Texts as vectors.

    `vectors` float32 `[inputs, dimension]`; per input the number of tokens and whether it was cut.
    """

    vectors: np.ndarray
    tokens: list[int]
    truncated: list[bool]
    timings: Timings


class Service(Protocol):
    """What answers. Every method may raise ApiError.

    `search`, `embed` and `upsert` are cancelled when the client leaves or the deadline passes; the others are not.
    """

    @property
    def waiting(self) -> int:
        """Tokens that wait for the encoder."""

    def ready(self) -> str | None:
        """Return None when queries can be answered, otherwise why not."""

    async def problem(self) -> str | None:
        """Return what does not work though queries are answered, if something does not."""

    def info(self) -> Info:
        """Return what is served."""

    async def search(self, request: SearchRequest, deadline: Deadline) -> SearchResponse:
        """Answer a search, all its queries from one index version."""

    async def embed(
        self,
        inputs: list[str],
        prompt_name: str | None,
        deadline: Deadline,
        *,
        dimensions: int | None,
        normalise: bool,
        cut: Cut | None,
    ) -> Embedded:
        """Encode texts; `cut` None refuses those that are too long with 413.

        An unknown prompt or too many dimensions are 422.
        """

    async def upsert(self, passages: list[PassageBody], deadline: Deadline) -> ChangeResponse:
        """Add passages, or put them in place of those with their ids."""

    async def delete(self, ids: list[str]) -> ChangeResponse:
        """Take passages away."""

    async def passage(self, passage_id: str) -> PassageResponse | None:
        """Return a passage by its id, if it is there."""

    async def versions(self) -> IndexList:
        """Return the index versions that are there."""

    async def activate(self, version: str) -> SwapResponse:
        """Have another version answer."""

    async def roll_back(self) -> SwapResponse:
        """Have the version answer that did before."""

    async def merge(self) -> MergeResponse:
        """Begin to build a version that holds the changes."""
