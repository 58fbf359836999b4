"""A client for the served retriever; retrievers for LangChain, LlamaIndex and Haystack stand in modules of these names.

Importing it is light: httpx and pydantic, and neither PyTorch nor Ray.
"""

from causalneg.client.conversations import SearchOptions
from causalneg.client.errors import (
    BadAnswerError,
    CausalNegError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    TimedOutError,
    TooLargeError,
    UnauthorizedError,
    UnreachableError,
)
from causalneg.client.http import AsyncClient, Client
from causalneg.filters import Filter
from causalneg.serving.schema import PassageBody, SearchHit, SearchResponse

__all__ = [
    "AsyncClient",
    "BadAnswerError",
    "CausalNegError",
    "Client",
    "Filter",
    "InvalidRequestError",
    "NotFoundError",
    "NotReadyError",
    "OverloadedError",
    "PassageBody",
    "SearchHit",
    "SearchOptions",
    "SearchResponse",
    "TimedOutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnreachableError",
]
