"""The served retriever as a LangChain retriever, and its model as LangChain embeddings."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from causalneg.client import AsyncClient, Client, Filter, SearchHit, SearchOptions
from causalneg.client.arguments import check_names, refusing_unknown, renamed

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
except ImportError as error:
    raise ImportError(
        "causalneg.client.langchain needs LangChain; install it with `pip install langchain-core`."
    ) from error

if TYPE_CHECKING:
    from typing import Unpack

_NAMES = {"k": "limit", "top_k": "limit"}  # as other retrievers of LangChain have it
_OPTIONS = [*(name for name in SearchOptions.__annotations__ if name != "with_payload"), *_NAMES]
_AnyClient = TypeVar("_AnyClient", Client, AsyncClient)


class CausalNegRetriever(BaseRetriever):
    """Finds passages with a causalneg server: documents with their text, and id, title and score as metadata.

    What a passage has as metadata is the document's too, but for these three names. `invoke` takes the options of a
    search as keywords, in place of the retriever's own for that call. Copies and pickles are as those of `Client`.

    Attributes:
        url: the server's address.
        api_key: the environment variable CAUSALNEG_API_KEY unless given.
        timeout: seconds that a search may take in all.
        limit: largest number of documents, also given as `k` or `top_k`; the others are as in `SearchOptions`.
        search_kwargs: options of a search, as `{"k": 3, "filter": …}`, in place of the retriever's own.

    Raises:
        TypeError: there is no such argument; the message names the nearest.
    """

    url: str = "http://127.0.0.1:8000"
    api_key: SecretStr | None = None
    timeout: float = 30.0
    limit: int = 10
    filter: dict[str, Any] | Filter | None = None
    score_threshold: float | None = None
    hybrid: bool = False
    rerank: bool = False
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    _clients: dict[tuple[object, ...], Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:  # noqa: ANN401 - pydantic's
        if not isinstance(given, dict):
            return given
        named = renamed(cls.__name__, given, _NAMES)
        check_names(cls.__name__, named, [*cls.model_fields, *_NAMES])
        return named

    def model_post_init(self, context: Any) -> None:  # noqa: ANN401 - pydantic's
        """Check what the clients and the searches would refuse."""
        super().model_post_init(context)
        self._client(Client)
        self._options({})

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: "Unpack[SearchOptions]"
    ) -> list[Document]:
        return [_document(hit) for hit in self._client(Client).search(query, **self._options(options))]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: "Unpack[SearchOptions]"
    ) -> list[Document]:
        return [_document(hit) for hit in await self._client(AsyncClient).search(query, **self._options(options))]

    def _client(self, kind: type[_AnyClient]) -> _AnyClient:
        """Return the client for the address and key that the retriever, or a changed copy of it, has now."""
        key = self.api_key.get_secret_value() if self.api_key else None
        made_of = (kind, self.url, key, self.timeout)
        if made_of not in self._clients:
            self._clients[made_of] = kind(self.url, key, timeout=self.timeout)
        return self._clients[made_of]

    def _options(self, options: Mapping[str, Any]) -> SearchOptions:
        own = SearchOptions(
            limit=self.limit,
            filter=self.filter,
            score_threshold=self.score_threshold,
            hybrid=self.hybrid,
            rerank=self.rerank,
        )
        # LangChain itself reads `verbose`, and leaves it among the keywords.
        given = {name: value for name, value in options.items() if name != "verbose"}
        return {**own, **_named("search_kwargs", self.search_kwargs), **_named("invoke", given), "with_payload": True}


class CausalNegEmbeddings(Embeddings):
    """Encodes texts with the model that a causalneg server serves, queries and passages each with its prompt.

    Args:
        url: the server's address.
        api_key: the environment variable CAUSALNEG_API_KEY unless given.
        dimensions: cut the vectors to so many, of length 1 again.
        timeout: seconds that a request may take in all.

    Raises:
        TypeError: there is no such argument; the message names the nearest.
    """

    @refusing_unknown
    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        dimensions: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._client = Client(url, api_key, timeout=timeout)
        self._async_client = AsyncClient(url, api_key, timeout=timeout)
        self._dimensions = dimensions

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Encode passages."""
        return self._client.embed(texts, "passage", self._dimensions).tolist() if texts else []

    def embed_query(self, text: str) -> list[float]:
        """Encode a query."""
        return self._client.embed(text, "query", self._dimensions).tolist()

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Encode passages."""
        return (await self._async_client.embed(texts, "passage", self._dimensions)).tolist() if texts else []

    async def aembed_query(self, text: str) -> list[float]:
        """Encode a query."""
        return (await self._async_client.embed(text, "query", self._dimensions)).tolist()


def _named(owner: str, options: Mapping[str, Any]) -> SearchOptions:
    """Return options of a search under our names."""
    check_names(owner, options, _OPTIONS)
    return SearchOptions(**renamed(owner, options, _NAMES))  # type: ignore[typeddict-item] # they were checked


def _document(hit: SearchHit) -> Document:
    assert hit.payload is not None  # it was asked for
    metadata = {**hit.payload.metadata, "id": hit.id, "title": hit.payload.title, "score": hit.score}
    return Document(id=hit.id, page_content=hit.payload.text, metadata=metadata)
