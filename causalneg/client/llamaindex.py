"""The served retriever as a LlamaIndex retriever."""

from typing import Any

from causalneg.client import AsyncClient, Client, Filter, SearchHit, SearchOptions

try:
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise ImportError(
        "causalneg.client.llamaindex needs LlamaIndex; install it with `pip install llama-index-core`."
    ) from error


class CausalNegRetriever(BaseRetriever):
    """Finds passages with a causalneg server: text nodes with the passages' ids, and their title among the metadata.

    Args:
        url: the server's address.
        api_key: the environment variable CAUSALNEG_API_KEY unless given.
        limit: largest number of nodes.
        filter: conditions on the passages' metadata.
        score_threshold: lowest score of a node.
        hybrid: fuse with BM25 by reciprocal rank.
        rerank: score the best hits anew with the server's cross-encoder.
        timeout: seconds that a search may take in all.
        base: what LlamaIndex's own `BaseRetriever` takes, as `callback_manager`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        limit: int = 10,
        filter: dict[str, Any] | Filter | None = None,  # noqa: A002 - named as in the search
        score_threshold: float | None = None,
        hybrid: bool = False,
        rerank: bool = False,
        timeout: float = 30.0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self._client = Client(url, api_key, timeout=timeout)
        self._async_client = AsyncClient(url, api_key, timeout=timeout)
        self._options = SearchOptions(
            limit=limit, filter=filter, score_threshold=score_threshold, hybrid=hybrid, rerank=rerank
        )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(hit) for hit in self._client.search(query_bundle.query_str, **self._options)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(hit) for hit in await self._async_client.search(query_bundle.query_str, **self._options)]


def _node(hit: SearchHit) -> NodeWithScore:
    assert hit.payload is not None  # it was asked for
    metadata = {**hit.payload.metadata, "title": hit.payload.title}
    return NodeWithScore(node=TextNode(id_=hit.id, text=hit.payload.text, metadata=metadata), score=hit.score)
