"""The encoder at training: tokenises once, embeds token ids with gradients, saves."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers.modeling_layers import GradientCheckpointingLayer

from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.starting import transformer_of
from causalneg.training.encoder.inputs import TASKS, Inputs, Kind
from causalneg.training.encoder.load import load

if TYPE_CHECKING:
    from peft import PeftModel

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Padded tokens of one forward pass: what a processor's caches hold, and what fills a GPU.
_CHUNK_TOKENS = {"cpu": 2048, "cuda": 16_384}


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


def has_cpp_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a processor."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", default)) is not None


class Encoder:
    """A sentence-transformers model at training.

    Weights are fp32 whatever the folder holds, and so is what `save` writes. All that is drawn at construction
    (adapters, weights that the folder lacks) is drawn from one fixed seed, the same in every worker.

    With dropout off nothing in `embed` is random, so its result depends neither on chunks nor on the number of
    workers. With it on, the caller seeds torch before each chunk.

    Args:
        path: folder in sentence-transformers layout, or a plain Hugging Face one, with safetensors weights.
        settings: how texts are embedded and which weights are trained.
        precision: of the matrix products.
        device: where to compute.
        chunk_tokens: padded tokens of one forward pass; by the device when unset.

    Attributes:
        model: the model; its `encode` leaves nothing behind, as `embed` sets the mode each time.
        dimension: of the vectors.
        dropout: whether `embed` uses dropout; unset it while measuring.

    Raises:
        UserError: the folder, the model or a setting does not allow it.
    """

    def __init__(
        self,
        path: Path,
        settings: EncoderSettings,
        precision: Precision,
        device: torch.device,
        chunk_tokens: int | None = None,
    ) -> None:
        self.precision, self.device = precision, device
        self.dropout = settings.dropout
        self._budget = chunk_tokens or _CHUNK_TOKENS.get(device.type, _CHUNK_TOKENS["cuda"])
        self._adapted: PeftModel | None = None
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            self.model = load(path, settings, device)
            if settings.lora_rank:
                from causalneg.training.encoder.adapters import add_adapters

                self._adapted = add_adapters(self.model, settings)
        self.dimension = int(self.model.get_embedding_dimension() or 0)
        self._inputs = Inputs(self.model, settings, path)
        self._recomputed: list[nn.Module] = []
        if settings.gradient_checkpointing:
            self._recompute(path)
        if settings.compile:
            if device.type == "cpu" and not has_cpp_compiler():
                raise UserError(
                    "train.encoder.compile needs a C++ compiler, and none is found; install g++, or unset it."
                )
            self.model.compile(dynamic=True)

    def _recompute(self, path: Path) -> None:
        """Switch gradient checkpointing on."""
        try:
            transformer_of(self.model).gradient_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise UserError(f"train.encoder.gradient_checkpointing: {path} does not support it; unset it.") from error
        self._recomputed = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        if not self.dropout and not self._recomputes_the_same():
            raise UserError(
                f"train.encoder.gradient_checkpointing: the layers of {path} use dropout of their own in it; "
                "set train.encoder.dropout, too, or unset it."
            )

    def _recomputes_the_same(self) -> bool:
        ids = self.tokenize(["one two three four five six seven eight nine ten"] * 2, "passage")
        with torch.no_grad():
            expected = self.embed(ids, "passage")
        return torch.allclose(self.embed(ids, "passage"), expected, atol=1e-3)

    def _set_mode(self) -> None:
        self.model.train(self.dropout)
        if torch.is_grad_enabled():
            # transformers recomputes only in layers at training; what is inside them stays as it is.
            for layer in self._recomputed:
                layer.training = True

    def casting(self) -> AbstractContextManager[Any]:
        """Return the context of `precision`; with it around several passes, weights are cast once for all of them.

        Passes with and without gradients must not share one: what is cast without has none for the others.
        """
        return torch.autocast(self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32")

    def bytes_per_token(self) -> float:
        """Measure what the activations of a full pass of the longest passages take, bytes per padded token."""
        budget = self.longest("passage")
        text = " ".join(["word"] * budget)
        ids = self.tokenize([text], "passage") * max(1, self._budget // budget)
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
            self.embed(ids, "passage")
        for parameter in self.model.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        return sum(kept.values()) / sum(len(tokens) for tokens in ids)

    def longest(self, kind: Kind) -> int:
        """Return the longest text of a kind, tokens."""
        return self._inputs.longest(kind)

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[np.ndarray]:
        """Tokenise texts behind the prompt of their kind, with special tokens, cut at its longest length.

        Returns:
            int32 token ids of each text, at least one.
        """
        return self._inputs.tokenize(texts, kind)

    def chunks(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group texts for `embed`.

        Args:
            lengths: tokens of each text.

        Returns:
            positions into `lengths`, the longest texts first.
        """
        return list(length_sorted_chunks(lengths, self._budget))

    def embed(self, ids: Sequence[np.ndarray], kind: Kind) -> Tensor:
        """Embed texts in one forward pass, with gradients.

        Args:
            ids: token ids of each text, as `tokenize` gives them; one or more.
            kind: of all of them.

        Returns:
            fp32 `[len(ids), dimension]` in the order given, rows of length 1.
        """
        self._set_mode()
        features = self._inputs.features(ids, kind)
        on_device = {name: v.to(self.device) if isinstance(v, Tensor) else v for name, v in features.items()}
        with self.casting():
            vectors = self.model(on_device, task=TASKS[kind])["sentence_embedding"]
        # A model that keeps only the first dimensions is cut before the length is set, as `encode` does.
        return nn.functional.normalize(vectors.float()[:, : self.dimension], dim=1)

    def _trained(self) -> dict[str, nn.Parameter]:
        # Tied weights come once here, under their first name.
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights that are trained: all, or the adapters."""
        return list(self._trained().values())

    def trained_state(self) -> dict[str, Tensor]:
        """Return what training changes, by name: tensors that share the weights' memory."""
        return {name: value.detach() for name, value in self._trained().items()}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Put the weights of `trained_state` in place.

        Raises:
            UserError: names or shapes are those of another model or of other settings.
        """
        trained = self._trained()
        odd = trained.keys() ^ state.keys()
        odd |= {name for name in trained.keys() & state.keys() if trained[name].shape != state[name].shape}
        if odd:
            raise UserError(
                f"The weights of the checkpoint are not those of this encoder ({len(odd)} differ, as {min(odd)}); "
                "was it made with another model or other settings? Remove it to train anew."
            )
        with torch.no_grad():
            for name, value in trained.items():
                value.copy_(state[name])

    def save(self, folder: Path) -> None:
        """Write the model in fp32, so that plain `SentenceTransformer(folder)` loads it.

        Adapters are added to the weights of a copy: training can go on after it, and needs memory for the copy.
        """
        model = self.model
        if self._adapted is not None:
            from causalneg.training.encoder.adapters import merged_copy

            model = merged_copy(self.model, self._adapted)
        model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
