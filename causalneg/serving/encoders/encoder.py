"""What encodes texts, whatever runs the model: token ids are padded, run through it, and checked."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from causalneg.serving.schema import Cut

DType = Literal["float32", "bfloat16"]

# int64 `[rows, longest]` ids and mask to float32 `[rows, dimension]`.
Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]

_LARGEST_BATCH = 16_384  # padded tokens that are run at once; bounds the memory
_SLACK = 16  # tokens that padding may add to a text before it is run apart; running apart costs about as much


class EncoderFailed(RuntimeError):  # noqa: N818 - says what happened
    """A model gave a vector that nothing can be found with."""


class Tokens(NamedTuple):
    """A text as a model reads it, special tokens included.

    Attributes:
        ids: token ids, at most the model's longest.
        truncated: whether the text was longer.
    """

    ids: list[int]
    truncated: bool


class InputLayout(BaseModel):
    """How a model's inputs are made from texts.

    Attributes:
        dimension: of its vectors.
        max_length: of a text, tokens with special ones.
        prompts: by name; `query` and `document` are always there.
        pad_id: token that shorter texts are filled up with; the mask hides it.
        cut: the side at which the model itself drops what is too long.
        split_special_tokens: whether a special token's name in a text is taken as text.
        tokenizer: whether the tokenizer can be run without the model.
    """

    model_config = ConfigDict(frozen=True)

    dimension: int
    max_length: int
    prompts: dict[str, str]
    pad_id: int
    cut: Cut
    split_special_tokens: bool
    tokenizer: bool


class Tokeniser(Protocol):
    """Turns texts into token ids; called from several threads."""

    def __call__(self, texts: Sequence[str], prompt: str, cut: Cut) -> list[Tokens]:
        """Tokenise each text behind the prompt, cut at the model's longest."""


class QueryEncoder(Protocol):
    """Turns texts into vectors.

    Attributes:
        name: the backend: torch-fp32, torch-bf16, onnx or openvino.
        dimension: of the vectors.
        max_length: of a text, tokens with special ones.
        prompts: by name; `query` and `document` are always there, empty where the model has none.
        dtype: of the products: float32 or bfloat16.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def dimension(self) -> int: ...  # noqa: D102
    @property
    def max_length(self) -> int: ...  # noqa: D102
    @property
    def prompts(self) -> dict[str, str]: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102

    def tokenise(self, texts: Sequence[str], prompt: str = "", cut: Cut | None = None) -> list[Tokens]:
        """Tokenise texts behind a prompt; may be called from several threads."""

    def encode(self, ids: Sequence[Sequence[int]], normalise: bool = True) -> np.ndarray:
        """Encode token ids; to be called from one thread at a time."""


class Encoder:
    """A `QueryEncoder` around a tokenizer and something that runs the model.

    Args:
        name: the backend.
        dtype: of the products.
        layout: how inputs are made.
        tokeniser: makes ids.
        forward: runs the model.
    """

    def __init__(self, name: str, dtype: DType, layout: InputLayout, tokeniser: Tokeniser, forward: Forward) -> None:
        self.name, self.dtype = name, dtype
        self.dimension, self.max_length = layout.dimension, layout.max_length
        self.prompts = layout.prompts
        self._layout, self._tokeniser, self._forward = layout, tokeniser, forward

    def tokenise(self, texts: Sequence[str], prompt: str = "", cut: Cut | None = None) -> list[Tokens]:
        """Tokenise texts as sentence-transformers does; may be called from several threads.

        Args:
            texts: any, also empty ones.
            prompt: what stands before each.
            cut: the side at which a longer text loses tokens; the model's own when unset. Special tokens stay.
        """
        return self._tokeniser(texts, prompt, cut or self._layout.cut)

    def encode(self, ids: Sequence[Sequence[int]], normalise: bool = True) -> np.ndarray:
        """Encode token ids; to be called from one thread at a time.

        Args:
            ids: as `tokenise` gives them, in any order; runtimes do not notice ids beyond the vocabulary.
            normalise: make rows of length 1; otherwise they are as the model gives them.

        Returns:
            float32 `[len(ids), dimension]`.

        Raises:
            EncoderFailed: a vector is not finite, or has no direction to normalise.
        """
        vectors = np.empty((len(ids), self.dimension), dtype=np.float32)
        for group in _groups([len(tokens) for tokens in ids]):
            vectors[group] = self._forward(*self._padded([ids[row] for row in group]))
        if not np.isfinite(vectors).all():
            raise EncoderFailed("The encoder gave a text a vector with NaN or infinity.")
        return _unit(vectors) if normalise else vectors

    def _padded(self, ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Make input ids and mask; a text without any tokens gets one to pad with, so that it has a vector.

        Padding goes behind the text also for models that were trained with it before: the mask hides it either way,
        but decoders have nothing to attend to in padding that comes first, which some runtimes answer with NaN.
        """
        longest = max(1, *(len(tokens) for tokens in ids))
        padded = np.full((len(ids), longest), self._layout.pad_id, dtype=np.int64)
        mask = np.zeros_like(padded)
        for row, tokens in enumerate(ids):
            tokens = tokens or [self._layout.pad_id]
            padded[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return padded, mask


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise EncoderFailed("The encoder gave a text a vector of zeros.")
    return vectors / lengths


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Put rows of like length together, longest first, so that padding at most doubles a text of some length."""
    groups: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        full = bool(groups) and (len(groups[-1]) + 1) * longest > _LARGEST_BATCH
        if not groups or full or 2 * lengths[row] + _SLACK < longest:
            groups.append([])
            longest = max(1, lengths[row])
        groups[-1].append(row)
    return groups


def padded_tokens(lengths: Sequence[int]) -> int:
    """Return how many tokens, padding included, are run when texts of these lengths are encoded together."""
    return sum(len(group) * max(1, lengths[group[0]]) for group in _groups(lengths))
