"""The served retriever as a LlamaIndex retriever."""

from typing import Any

from causalneg.client import AsyncClient, Client, Filter, SearchHit, SearchOptions
from causalneg.client.arguments import refusing_unknown

try:
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise ImportError(
        "causalneg.client.llamaindex needs LlamaIndex; install it with `pip install llama-index-core`."
    ) from error


class CausalNegRetriever(BaseRetriever):
    """Finds passages with a causalneg server: text nodes with the passages' ids, and their title among the metadata.

    Args:
        url: the server's address.
        api_key: the environment variable CAUSALNEG_API_KEY unless given.
        similarity_top_k: largest number of nodes; `limit` is another name for it.
        limit: the same.
        filter: conditions on the passages' metadata.
        score_threshold: lowest score of a node.
        hybrid: fuse with BM25 by reciprocal rank.
        rerank: score the best hits anew with the server's cross-encoder.
        timeout: seconds that a search may take in all.
        callback_manager: this and the others are as LlamaIndex's own `BaseRetriever` has them.

    Copies and pickles are as those of `Client`.

    Raises:
        TypeError: there is no such argument, and the message names the nearest; or two names for one were given.
    """

    @refusing_unknown
    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        similarity_top_k: int | None = None,
        limit: int | None = None,
        filter: dict[str, Any] | Filter | None = None,  # noqa: A002 - named as in the search
        score_threshold: float | None = None,
        hybrid: bool = False,
        rerank: bool = False,
        timeout: float = 30.0,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(callback_manager, object_map, objects, verbose)
        if limit is not None and similarity_top_k is not None:
            raise TypeError("similarity_top_k and limit are the same; give one of them.")
        count = limit if similarity_top_k is None else similarity_top_k
        self._client = Client(url, api_key, timeout=timeout)
        self._async_client = AsyncClient(url, api_key, timeout=timeout)
        self._options = SearchOptions(
            limit=10 if count is None else count,
            filter=filter,
            score_threshold=score_threshold,
            hybrid=hybrid,
            rerank=rerank,
        )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(hit) for hit in self._client.search(query_bundle.query_str, **self._options)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(hit) for hit in await self._async_client.search(query_bundle.query_str, **self._options)]


def _node(hit: SearchHit) -> NodeWithScore:
    assert hit.payload is not None  # it was asked for
    metadata = {**hit.payload.metadata, "title": hit.payload.title}
    return NodeWithScore(node=TextNode(id_=hit.id, text=hit.payload.text, metadata=metadata), score=hit.score)
