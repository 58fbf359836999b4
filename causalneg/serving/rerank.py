"""Scores hits anew with a cross-encoder, which reads query and passage together."""

from collections.abc import Sequence

import numpy as np

from causalneg.embedding import load_cross_encoder
from causalneg.errors import UserError
from causalneg.models import ResolvedModel
from causalneg.serving.encoders.encoder import EncoderFailed


class Reranker:
    """A loaded cross-encoder; to be used from one thread at a time.

    Args:
        model: a sentence-transformers CrossEncoder with one output.
        threads: to compute with.

    Raises:
        UserError: it has more outputs, or cannot be loaded.
    """

    def __init__(self, model: ResolvedModel, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        try:
            self._model = load_cross_encoder(model)
        except UserError as error:
            raise UserError(f"serve.reranker: {error}") from error
        if self._model.num_labels != 1:
            raise UserError(
                f"serve.reranker: {model.name} gives {self._model.num_labels} scores for a pair; "
                "name a cross-encoder that gives one."
            )

    def score(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """Score texts for a query.

        Returns:
            float32 `[len(texts)]`, higher for what answers better.

        Raises:
            EncoderFailed: a score is not finite.
        """
        if not texts:
            return np.empty(0, dtype=np.float32)
        pairs = [(query, text) for text in texts]
        scores = np.asarray(self._model.predict(pairs, show_progress_bar=False), dtype=np.float32)
        if not np.isfinite(scores).all():
            raise EncoderFailed("The reranker gave a passage a score that is NaN or infinity.")
        return scores
