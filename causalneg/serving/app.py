"""The Ray Serve application: encoder and index together in each replica."""

import threading
from pathlib import Path

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from causalneg.config import ServeSettings
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.indexing.store import open_index
from causalneg.models import ResolvedModel
from causalneg.serving.api import Info, Payload, SearchHit, create_app

_REQUESTS_PER_REPLICA = 32


class LocalRetriever:
    """Encodes queries and searches the index in this process.

    Raises:
        UserError: the index is damaged or does not belong to the model.
    """

    def __init__(self, folder: Path, model: ResolvedModel) -> None:
        self._index = open_index(folder, model.fingerprint)
        # One thread for the one core that Ray sets aside: a query is short, and replicas share no core.
        self._encoder = load_encoder(model, threads=1)
        size = self._encoder.get_embedding_dimension()
        if size != self._index.manifest.dimension:
            there = self._index.manifest.dimension
            raise UserError(
                f"The index {folder} has {there} dimensions, the model {model.name} {size}; "
                "run `causalneg index` again."
            )
        # A tokenizer must not be used by two threads at once: it changes its own truncation and padding.
        self._encoding = threading.Lock()

    def search(self, queries: list[str], limit: int) -> list[list[SearchHit]]:
        """Return the hits of each query, best first."""
        with self._encoding:
            vectors = encode(self._encoder, queries, "query")
        answers = []
        for hits in self._index.search(vectors, limit):
            passages = [self._index.passage(hit.row) for hit in hits]
            answers.append(
                [
                    SearchHit(id=hit.id, score=hit.score, payload=Payload(title=p.title, text=p.text))
                    for hit, p in zip(hits, passages, strict=True)
                ]
            )
        return answers

    def info(self) -> Info:
        """Return what is served."""
        manifest = self._index.manifest
        return Info(
            model=manifest.model.name,
            model_fingerprint=manifest.model.fingerprint,
            index_version=manifest.version,
            rows=manifest.rows,
            dimension=manifest.dimension,
        )


def application(folder: Path, model: ResolvedModel, settings: ServeSettings) -> Application:
    """Return the application that serves an index version.

    Args:
        folder: `index/<version>`, at the same path on every node.
        model: the encoder of the queries.
        settings: limits and number of replicas.
    """

    def build() -> FastAPI:  # called in each replica
        return create_app(LocalRetriever(folder, model), settings)

    deployment = serve.deployment(
        name="retriever",
        num_replicas=settings.replicas,
        max_ongoing_requests=_REQUESTS_PER_REPLICA,
        ray_actor_options={"num_cpus": 1},
    )(serve.ingress(build)())
    return deployment.bind()
