"""Embeds any number of texts in bounded memory, with exact gradients.

A pass of the encoder takes a chunk of texts of like length. The activations of the last chunks are held, as many as
the budget allows. Of those before, only the vectors are kept; when their gradient is known, they are embedded once
more and it is passed on (GradCache, arXiv 2101.06983).

Invariants:
    - Gradients are those of embedding all texts at once, up to rounding.
    - Both passes of a chunk draw the same random numbers: the generator is seeded by step and chunk before each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from causalneg.records import content_id
from causalneg.training.data.store import Data, Kind
from causalneg.training.encoder.encoder import Encoder


@dataclass
class _Chunk:
    """Texts of one pass.

    Attributes:
        kind: of the texts.
        places: int64, which of the kind's texts these are.
        seed: of the pass.
        held: their vectors with the activations behind them, if these are held.
    """

    kind: Kind
    places: np.ndarray
    seed: int
    held: Tensor | None = None


class Passes:
    """The passes of an encoder over the texts of a step.

    Args:
        encoder: embeds.
        data: holds the tokens.
        texts: numbers of the texts of each kind.
        held_tokens: padded tokens whose activations are held.
        seed: of the step's random numbers.
    """

    def __init__(
        self, encoder: Encoder, data: Data, texts: Mapping[Kind, np.ndarray], held_tokens: int, seed: object
    ) -> None:
        self._encoder, self._data, self._texts = encoder, data, texts
        self._chunks: list[_Chunk] = []
        tokens = []
        for kind, numbers in texts.items():
            lengths = data.lengths(kind, numbers)
            for places in encoder.chunks(lengths.tolist()):
                self._chunks.append(_Chunk(kind, np.array(places), _seed(seed, kind, len(self._chunks))))
                tokens.append(int(lengths[places].max(initial=0)) * len(places))
        behind = np.cumsum(tokens[::-1])[::-1]  # tokens of a chunk and of those after it
        self._first_held = int((behind > held_tokens).sum())

    def _embed(self, chunk: _Chunk) -> Tensor:
        torch.manual_seed(chunk.seed)
        numbers = self._texts[chunk.kind][chunk.places]
        return self._encoder.embed(self._data.tokens(chunk.kind, numbers), chunk.kind)

    def forward(self) -> dict[Kind, Tensor]:
        """Return the vectors of each kind's texts, fp32 `[texts, dim]`, without gradients."""
        device = self._encoder.device
        vectors: dict[Kind, Tensor] = {
            kind: torch.empty(len(numbers), self._encoder.dimension, device=device)
            for kind, numbers in self._texts.items()
        }
        for held, chunks in ((False, self._chunks[: self._first_held]), (True, self._chunks[self._first_held :])):
            with torch.set_grad_enabled(held), self._encoder.casting():
                for chunk in chunks:
                    embedded = self._embed(chunk)
                    chunk.held = embedded if held else None
                    vectors[chunk.kind][torch.from_numpy(chunk.places).to(device)] = embedded.detach()
        return vectors

    def backward(self, gradients: Mapping[Kind, Tensor]) -> None:
        """Add to the parameters' gradients what the gradients of the vectors cause."""
        for chunk in reversed(self._chunks[self._first_held :]):
            assert chunk.held is not None
            self._pass_on(chunk, chunk.held, gradients)
            chunk.held = None
        with self._encoder.casting():
            for chunk in reversed(self._chunks[: self._first_held]):
                self._pass_on(chunk, self._embed(chunk), gradients)

    def _pass_on(self, chunk: _Chunk, vectors: Tensor, gradients: Mapping[Kind, Tensor]) -> None:
        gradient = gradients[chunk.kind][torch.from_numpy(chunk.places).to(vectors.device)]
        torch.autograd.backward(vectors, gradient)


def _seed(*parts: object) -> int:
    return int(content_id(*parts), 16) % 2**63
