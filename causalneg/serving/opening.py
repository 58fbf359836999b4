"""Opens what is served: from the settings to a service that answers, with its index, encoder and cross-encoder."""

import os
import sys
from pathlib import Path

from causalneg.config import Config
from causalneg.indexing.catalog import Catalog
from causalneg.indexing.encoders import find_model
from causalneg.indexing.store import OpenVectors, local_vectors
from causalneg.models import ResolvedModel, resolve
from causalneg.serving.encoders import QueryEncoder, open_encoder
from causalneg.serving.holder import Holder
from causalneg.serving.rerank import Reranker
from causalneg.serving.service import LocalService
from causalneg.serving.swap import Peers, Replica, Swapper
from causalneg.workspace import Workspace


def catalog_of(workspace: Workspace) -> Catalog:
    """Return the index versions of a workspace.

    Raises:
        UserError: the workspace is not on this machine.
    """
    return Catalog(workspace.local_folder("index"))


def merge_command(config: Config) -> list[str]:
    """Return the command that merges changes into a new version and leaves it to the server to activate it."""
    flags = ["--merge", "true", "--activate", "false", "--workspace", str(Path(config.workspace).absolute())]
    return ["nice", "-n", "10", sys.executable, "-m", "causalneg.cli", "index", *flags]  # answers come first


def open_service(
    config: Config, peers: Peers | None = None, open_vectors: OpenVectors = local_vectors
) -> tuple[LocalService, Replica]:
    """Open the active index version and everything that answers need.

    Args:
        config: all settings.
        peers: the replicas of the server; this one alone when unset.
        open_vectors: where those of a version lie.

    Returns:
        The service, and what its peers may ask of it.

    Raises:
        UserError: there is no index, it is damaged, or a model is not there.
    """
    import faiss

    settings = config.serve
    faiss.omp_set_num_threads(settings.cores)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a query is short, and replicas share no core
    catalog = catalog_of(Workspace(config.workspace))

    def encoder(model: ResolvedModel) -> QueryEncoder:
        return open_encoder(model, settings.backend, settings.cores)

    holder = Holder(catalog, lambda manifest: find_model(catalog, manifest), encoder, open_vectors)
    replica = Replica(holder)
    swapper = Swapper(catalog, peers or replica, merge_command(config))
    reranker = Reranker(resolve(settings.reranker), settings.cores) if settings.reranker else None
    return LocalService(holder, catalog, swapper, settings, reranker), replica
