"""The served retriever as a LangChain retriever, and its model as LangChain embeddings."""

from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr, SecretStr

from causalneg.client import AsyncClient, Client, Filter, SearchHit, SearchOptions

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


class CausalNegRetriever(BaseRetriever):
    """Finds passages with a causalneg server: documents with their text, and id, title and score as metadata.

    What a passage has as metadata is the document's too, but for these three names. `invoke` takes the options of a
    search as keywords, in place of the retriever's own for that call.

    Attributes:
        url: the server's address.
        api_key: the environment variable CAUSALNEG_API_KEY unless given.
        timeout: seconds that a search may take in all.
        limit: largest number of documents; the others are as in `SearchOptions`.
    """

    url: str = "http://127.0.0.1:8000"
    api_key: SecretStr | None = None
    timeout: float = 30.0
    limit: int = 10
    filter: dict[str, Any] | Filter | None = None
    score_threshold: float | None = None
    hybrid: bool = False
    rerank: bool = False

    _client: Client = PrivateAttr()
    _async_client: AsyncClient = PrivateAttr()

    def model_post_init(self, context: Any) -> None:  # noqa: ANN401 - pydantic's
        """Make the clients; they connect when first used."""
        super().model_post_init(context)
        key = self.api_key.get_secret_value() if self.api_key else None
        self._client = Client(self.url, key, timeout=self.timeout)
        self._async_client = AsyncClient(self.url, key, timeout=self.timeout)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: "Unpack[SearchOptions]"
    ) -> list[Document]:
        return [_document(hit) for hit in self._client.search(query, **self._options(options))]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: "Unpack[SearchOptions]"
    ) -> list[Document]:
        return [_document(hit) for hit in await self._async_client.search(query, **self._options(options))]

    def _options(self, options: SearchOptions) -> SearchOptions:
        own = SearchOptions(
            limit=self.limit,
            filter=self.filter,
            score_threshold=self.score_threshold,
            hybrid=self.hybrid,
            rerank=self.rerank,
        )
        return {**own, **options, "with_payload": True}


class CausalNegEmbeddings(Embeddings):
    """Encodes texts with the model that a causalneg server serves, queries and passages each with its prompt.

    Args:
        url: the server's address.
        api_key: the environment variable CAUSALNEG_API_KEY unless given.
        dimensions: cut the vectors to so many, of length 1 again.
        timeout: seconds that a request may take in all.
    """

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


def _document(hit: SearchHit) -> Document:
    assert hit.payload is not None  # it was asked for
    metadata = {**hit.payload.metadata, "id": hit.id, "title": hit.payload.title, "score": hit.score}
    return Document(id=hit.id, page_content=hit.payload.text, metadata=metadata)
