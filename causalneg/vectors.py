"""The corpus's vectors under an encoder, kept in the workspace and shared by every stage that needs them."""

from collections.abc import Iterable
from functools import partial

import numpy as np

from causalneg.config import EncodeSettings
from causalneg.console import Reporter
from causalneg.embedding import encode, load_encoder
from causalneg.features import CorpusFeatures, corpus_features, text_features
from causalneg.models import ResolvedModel
from causalneg.stages import revised
from causalneg.workspace import Workspace


def _folder(model: ResolvedModel, settings: EncodeSettings) -> str:
    return revised(f"embeddings/{model.fingerprint}-{settings.precision}", "embeddings")


class _PassageEncoder:
    """From texts to vectors, float32 `[texts, dimension]`, each of length 1."""

    def __init__(self, model: ResolvedModel, settings: EncodeSettings) -> None:
        self._encoder, self._settings = load_encoder(model), settings

    def __call__(self, texts: list[str]) -> np.ndarray:
        return encode(self._encoder, texts, "passage", self._settings.batch_size, self._settings.precision)


def embed_corpus(
    workspace: Workspace,
    model: ResolvedModel,
    settings: EncodeSettings,
    report: Reporter,
    only: np.ndarray | None = None,
) -> CorpusFeatures:
    """Return the vectors of the corpus, float32 `[passages, dimension]`; no text is encoded twice.

    Args:
        workspace: holds the corpus and the vectors.
        model: the encoder.
        settings: how passages are encoded.
        report: shows the progress.
        only: numbers in the corpus of the passages that are needed; all when unset.

    Raises:
        UserError: the encoder gives vectors that are not finite.
    """
    make = partial(_PassageEncoder, model, settings)
    folder = _folder(model, settings)
    return corpus_features(workspace, folder, make, report, "encoding", only, settings.workers, settings.gpus)


def embed_texts(
    workspace: Workspace, model: ResolvedModel, settings: EncodeSettings, blocks: Iterable[list[str]]
) -> CorpusFeatures:
    """Return the vectors of any passages' texts, float32 `[texts, dimension]`; no text is encoded twice.

    Raises:
        UserError: the encoder gives vectors that are not finite.
    """
    return text_features(workspace, _folder(model, settings), partial(_PassageEncoder, model, settings), blocks)
