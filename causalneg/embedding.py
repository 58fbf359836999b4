"""Encodes texts with a sentence-transformers model."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from causalneg.errors import UserError
from causalneg.models import ResolvedModel
from causalneg.runtime import cores, supports_bf16

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Precision = Literal["auto", "fp32", "bf16"]


@lru_cache(maxsize=1)
def load_encoder(model: ResolvedModel, threads: int | None = None) -> "SentenceTransformer":
    """Load an encoder, or return the one this process loaded last; code that comes with a model is never run.

    Raises:
        UserError: its folder cannot be loaded, or a text's vector depends on the texts beside it.
    """
    import torch

    from causalneg.loading import open_model, settle

    torch.set_num_threads(threads or cores())
    if model.start is not None:
        from sentence_transformers.util import get_device_name

        from causalneg.starting import load_start

        return load_start(model.path, model.start, torch.device(get_device_name()))
    return settle(open_model(model.path), model.path)


def load_cross_encoder(model: ResolvedModel) -> "CrossEncoder":
    """Load a cross-encoder; code that comes with a model is never run.

    Raises:
        UserError: its folder cannot be loaded.
    """
    from sentence_transformers import CrossEncoder

    from causalneg.loading import refusing

    with refusing(model.path):
        return CrossEncoder(
            str(model.path),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )


def encode(
    encoder: "SentenceTransformer",
    texts: Sequence[str],
    kind: Literal["query", "passage"],
    batch_size: int = 32,
    precision: Precision = "auto",
) -> np.ndarray:
    """Encode texts with the model's own prompt for queries or passages.

    Queries are few and encoded with fp32 products. Passages are many; bf16 products are twice as fast or more
    where the device has them, and their cosine to the fp32 vectors is above 0.9999.

    Returns:
        float32 `[len(texts), dimension]`, rows of length 1.

    Raises:
        UserError: a vector is not finite.
    """
    import torch

    function = encoder.encode_query if kind == "query" else encoder.encode_document
    low = precision == "bf16" or (precision == "auto" and supports_bf16(encoder.device))
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=low and kind == "passage"):
        vectors = function(list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"The encoder gave a {kind} a vector with NaN or infinity; train it again or name another.")
    return vectors
