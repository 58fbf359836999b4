"""How every stage loads an encoder: safetensors alone, no code of its own, and padding that no vector depends on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase

from causalneg.errors import UserError

# Of very different lengths, so that the first is mostly padding beside the others.
_TEXTS = ["rivers", "Which river is the longest?", "one two three four five six seven eight nine ten " * 4]
# Differences of a coordinate of two vectors of length 1 that rounding stays below: with weights in fp32, and in others.
_ROUNDING, _LOW_ROUNDING = 1e-4, 0.03


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Say in a sentence what keeps a folder from being loaded; it may be anything, and come as any error."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UserError(f"The model folder {path} cannot be loaded: {reason}") from error


def open_model(path: Path, device: torch.device | None = None, dtype: torch.dtype | None = None) -> SentenceTransformer:
    """Open a folder in sentence-transformers layout, or what that library makes of another.

    Args:
        path: the folder.
        device: where to put it; where sentence-transformers would when unset.
        dtype: of the weights; as the folder has them when unset.

    Returns:
        the model in eval mode, not yet settled.

    Raises:
        UserError: the folder cannot be loaded.
    """
    weights: dict[str, Any] = {"use_safetensors": True} | ({} if dtype is None else {"dtype": dtype})
    with refusing(path):
        return SentenceTransformer(
            str(path),
            device=None if device is None else str(device),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs=weights,
        ).eval()


def settle(model: SentenceTransformer, path: Path) -> SentenceTransformer:
    """Have padding go behind the texts, and see that no vector depends on it.

    Padding before them shifts the positions of models that count them from the start of the row, as BERT and GPT-2
    do; for others the side makes no difference, since the mask hides what is padding.

    Args:
        model: in eval mode; its tokenizer is changed.
        path: its folder, for messages.

    Returns:
        the model.

    Raises:
        UserError: there is no token to pad with, or a text's vector depends on the texts beside it.
    """
    tokenizer = model.tokenizer
    if isinstance(tokenizer, PreTrainedTokenizerBase):
        tokenizer.padding_side = "right"
        if tokenizer.pad_token_id is None:  # the mask hides it, so any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token_id is None:
            raise UserError(
                f"The tokenizer of {path} has no token to pad with; set pad_token in its tokenizer_config.json."
            )
    with refusing(path):
        together = _vectors(model, _TEXTS)
        alone = np.concatenate([_vectors(model, [text]) for text in _TEXTS])
    difference = float(np.abs(together - alone).max())
    # What is not finite here is not so for another reason, which whoever encodes finds.
    if difference > (_ROUNDING if model.dtype == torch.float32 else _LOW_ROUNDING):
        raise UserError(
            f"The vectors of the model {path} depend on the texts that are encoded beside them (by {difference:.2g}): "
            "it does not leave padding out; take another model."
        )
    return model


def _vectors(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    return np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False))
