"""A sentence-transformers model that embeds texts with gradients."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

Precision = Literal["fp32", "bf16"]

# Padded tokens of one forward pass: what a processor's caches hold, and what fills a GPU.
_CHUNK_TOKENS = {"cpu": 2048, "cuda": 16_384}
_EAGER_LENGTH = 512  # tokens


def length_sorted_chunks(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group texts of like length so that a group, padded to its longest, has at most `budget` tokens.

    Args:
        lengths: tokens of each text.
        budget: padded tokens of a group; a single longer text is a group of its own.

    Yields:
        positions into `lengths`, the longest texts first.
    """
    chunk: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda p: -lengths[p]):
        if chunk and lengths[chunk[0]] * (len(chunk) + 1) > budget:
            yield chunk
            chunk = []
        chunk.append(position)
    if chunk:
        yield chunk


class Encoder:
    """A sentence-transformers model at training.

    Weights are fp32 whatever the folder holds, since bf16 weights lose small updates. Dropout is off: nothing
    in a step is random, so its result depends neither on chunks nor on the number of workers, and a resumed
    run is exact.

    Args:
        path: folder in sentence-transformers layout with safetensors weights.
        max_length: longest text at training, tokens; the saved model keeps its own limit.
        precision: of the matrix products.
        device: where to compute.
    """

    def __init__(self, path: Path, max_length: int, precision: Precision, device: torch.device) -> None:
        self.model = SentenceTransformer(
            str(path),
            device=str(device),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        self.model.float().eval()
        transformer = self.model.transformers_model
        if transformer is not None and device.type == "cpu" and max_length <= _EAGER_LENGTH:
            # The fused kernel's backward pass is slow on processors: a step takes half the time without it.
            transformer.set_attn_implementation("eager")
        self._own_max_length = self.model.max_seq_length
        self._max_length = min(max_length, self._own_max_length or max_length)
        self.precision, self.device = precision, device

    def _features(self, texts: Sequence[str], kind: Literal["query", "passage"]) -> dict[str, Any]:
        """Tokenise with the prompt that `encode_query` or `encode_document` would take."""
        names = ("query",) if kind == "query" else ("document", "passage", "corpus")
        prompt = next((self.model.prompts[n] for n in names if n in self.model.prompts), None)
        task = "query" if kind == "query" else "document"
        self.model.max_seq_length = self._max_length
        try:
            return dict(self.model.preprocess(list(texts), prompt=prompt, task=task))
        finally:
            self.model.max_seq_length = self._own_max_length

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def embed(self, texts: Sequence[str], kind: Literal["query", "passage"]) -> Tensor:
        """Embed texts with gradients.

        Returns:
            fp32 `[len(texts), dim]` in the order of the texts, rows of length 1.
        """
        features = self._features(texts, kind)
        mask = features["attention_mask"]
        lengths = mask.sum(1).tolist()
        left = self.model.tokenizer.padding_side == "left"
        vectors, positions = [], []
        for chunk in length_sorted_chunks(lengths, _CHUNK_TOKENS[self.device.type]):
            longest = lengths[chunk[0]]
            columns = slice(mask.shape[1] - longest, None) if left else slice(0, longest)
            part = {
                name: value[chunk][:, columns].to(self.device)
                if isinstance(value, Tensor) and value.shape[:2] == mask.shape
                else value
                for name, value in features.items()
            }
            with self._autocast():
                out = self.model(part, task="query" if kind == "query" else "document")
            vectors.append(torch.nn.functional.normalize(out["sentence_embedding"].float(), dim=1))
            positions += chunk
        back = torch.empty(len(positions), dtype=torch.long)
        back[torch.tensor(positions)] = torch.arange(len(positions))
        return torch.cat(vectors)[back.to(self.device)]

    def save(self, folder: Path) -> None:
        """Write the model so that plain `SentenceTransformer(folder)` loads it."""
        self.model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
