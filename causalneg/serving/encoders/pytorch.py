"""Runs a sentence-transformers model from token ids alone, with PyTorch; and says how they are made."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from causalneg.errors import UserError
from causalneg.loading import open_model, settle
from causalneg.models import ResolvedModel
from causalneg.runtime import supports_bf16
from causalneg.serving.encoders.encoder import DType, Forward, InputLayout, Tokens
from causalneg.serving.schema import Cut

_LONGEST = 8192  # tokens of a text for a model that names no limit
_SAMPLES = ["rivers", "Which river is the longest of all?"]


class SentenceModule(nn.Module):
    """All modules of a model as one function of token ids.

    Args:
        model: in sentence-transformers' form; what it wants beside ids and mask follows from them.
        name: of the model, for messages.

    Raises:
        UserError: it wants more than that.
    """

    def __init__(self, model: SentenceTransformer, name: str) -> None:
        super().__init__()
        self.parts = nn.ModuleList(model)
        self._truncate_dim = model.truncate_dim
        self._flat = isinstance(model[0], StaticEmbedding)
        own = dict(model.preprocess(_SAMPLES))
        known = {"input_ids", "offsets"} if self._flat else {"input_ids", "attention_mask", "token_type_ids"}
        if odd := {key for key, value in own.items() if isinstance(value, Tensor)} - known:
            raise more_than_ids(name, ", ".join(sorted(odd)))
        self._with_types = "token_type_ids" in own
        self._constants = {key: value for key, value in own.items() if not isinstance(value, Tensor)}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return `[rows, dimension]` for int64 `[rows, longest]` ids and mask."""
        features = self._features(input_ids, attention_mask)
        for part in self.parts:
            features = part(features)
        vectors: Tensor = features["sentence_embedding"]
        return vectors if self._truncate_dim is None else vectors[:, : self._truncate_dim]

    def _features(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        if self._flat:
            ends = attention_mask.sum(1).cumsum(0)
            return {"input_ids": input_ids[attention_mask.bool()], "offsets": ends - attention_mask.sum(1)}
        features = {"input_ids": input_ids, "attention_mask": attention_mask, **self._constants}
        if self._with_types:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        return features


def more_than_ids(name: str, odd: str) -> UserError:
    """Return the refusal of a model that cannot be run from token ids."""
    return UserError(
        f"The model {name} takes inputs that are more than token ids ({odd}), which serving does not keep; "
        "take another model."
    )


def load(model: ResolvedModel, threads: int) -> SentenceTransformer:
    """Load a model with fp32 weights, whatever the folder holds; code that comes with it is never run.

    Raises:
        UserError: the folder cannot be loaded, or a text's vector depends on the texts beside it.
    """
    torch.set_num_threads(threads)
    loaded = settle(open_model(model.path, dtype=torch.float32), model.path)
    prompts = {"query": "", "document": ""} | dict(loaded.prompts)
    loaded.prompts = {name: prompt or "" for name, prompt in prompts.items()}
    return loaded


def forward_of(module: SentenceModule, dtype: DType) -> Forward:
    """Return a function that runs a module where it lies, with products in fp32 or bf16."""
    device = next(module.parameters()).device

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            vectors = module(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))
        return np.asarray(vectors.float().cpu().numpy())

    return forward


def has_bf16(model: SentenceTransformer) -> bool:
    """Whether the device that a model lies on has bf16 instructions."""
    return supports_bf16(model.device)


def layout_of(model: SentenceTransformer, name: str) -> InputLayout:
    """Say how a model's inputs are made.

    Raises:
        UserError: it has no tokenizer, or gives no vectors.
    """
    tokenizer, dimension = model.tokenizer, model.get_embedding_dimension()
    if dimension is None or tokenizer is None:
        raise more_than_ids(name, type(model[0]).__name__)
    named = isinstance(tokenizer, PreTrainedTokenizerBase)
    return InputLayout(
        dimension=dimension,
        max_length=_longest(model.max_seq_length),
        prompts={name: prompt or "" for name, prompt in model.prompts.items()},
        pad_id=_pad_id(tokenizer) if named else 0,
        cut="left" if named and tokenizer.truncation_side == "left" else "right",
        split_special_tokens=named and bool(tokenizer.split_special_tokens),
        tokenizer=named and getattr(tokenizer, "backend_tokenizer", None) is not None,
    )


def _longest(limit: float | None) -> int:
    # transformers writes 10**30 where there is no limit, and sentence-transformers infinity
    return int(limit) if limit and limit < 10**9 else _LONGEST


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    found = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    return next((token for token in found if token is not None), 0)


def write_tokenizer(model: SentenceTransformer, path: Path) -> None:
    """Write the tokenizer as it was loaded: settings beside a `tokenizer.json` may change what it does."""
    state = json.loads(model.tokenizer.backend_tokenizer.to_str())
    path.write_text(json.dumps({**state, "truncation": None, "padding": None}, ensure_ascii=False), encoding="utf-8")


class ModelTokeniser:
    """Tokenises with a loaded model, one thread at a time: its tokenizer changes while it works.

    Args:
        model: as `load` gives it.
        layout: of the model.
    """

    def __init__(self, model: SentenceTransformer, layout: InputLayout) -> None:
        self._model, self._layout = model, layout
        self._one_at_a_time = threading.Lock()

    def __call__(self, texts: Sequence[str], prompt: str, cut: Cut) -> list[Tokens]:
        """Tokenise each text behind the prompt, cut at the model's longest."""
        limit = self._layout.max_length
        with self._one_at_a_time:
            # One token more than a model takes tells whether the text was longer.
            longer = self._ids(texts, prompt, cut, limit + 1)
            kept = self._ids(texts, prompt, cut, limit)
        return [Tokens(ids[:limit], len(more) > limit) for ids, more in zip(kept, longer, strict=True)]

    def _ids(self, texts: Sequence[str], prompt: str, cut: Cut, limit: int) -> list[list[int]]:
        if not texts:
            return []
        if isinstance(self._model[0], StaticEmbedding):
            own = self._model.preprocess(list(texts), prompt=prompt or None)
            ends = own["offsets"].tolist()[1:]
            return [ids.tolist() for ids in np.split(own["input_ids"].numpy(), ends)]
        self._model.tokenizer.truncation_side = cut
        lengths = {"text": {"max_length": limit}}
        own = self._model.preprocess(list(texts), prompt=prompt or None, processing_kwargs=lengths)
        return [ids[mask.bool()].tolist() for ids, mask in zip(own["input_ids"], own["attention_mask"], strict=True)]
