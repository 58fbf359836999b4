"""Loads a model as the settings want it: pooling, attention, prompts, fp32 weights."""

from pathlib import Path
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers.sentence_transformer.modules.pooling import PoolingMode
from transformers import PreTrainedModel

from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.training.encoder.attention import measured, set_attention

_POOLING_MODES: dict[str, PoolingMode] = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
# The names that `encode_query` and `encode_document` look for, in their order.
_PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
_EAGER_LENGTH = 512  # tokens


def load(path: Path, settings: EncoderSettings, device: torch.device) -> SentenceTransformer:
    """Load a model for training.

    Args:
        path: folder in sentence-transformers layout, or a plain Hugging Face one, with safetensors weights. Code that
            comes with it is never run.
        settings: its pooling, attention and prompts are put into the model, and are saved with it.
        device: where to put it.

    Returns:
        the model in eval mode; its weights are fp32 whatever the folder holds, since bf16 weights lose small updates.

    Raises:
        UserError: the folder cannot be loaded, or the model cannot be what the settings want.
    """
    try:
        model = _with_modules(path, device) if (path / "modules.json").is_file() else _plain(path, device)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"The model folder {path} cannot be loaded: {reason}") from error
    if not isinstance(model[0], Transformer):
        raise UserError(f"The model {path} begins with {type(model[0]).__name__}; only transformers can be trained.")
    model.eval()
    if settings.attention != "auto":
        set_attention(transformer_of(model), settings.attention)
    _set_pooling(model, settings.pooling, path)
    _set_prompts(model, settings)
    _set_padding(model, path)
    if device.type == "cpu" and max(settings.query_length, settings.passage_length) <= _EAGER_LENGTH:
        # The fused kernel's backward pass is slow on processors: a step takes half the time without it.
        transformer_of(model).set_attn_implementation("eager")
    return model


def first_module(model: SentenceTransformer) -> Transformer:
    """Return the module that makes the inputs and runs the transformer."""
    return cast(Transformer, model[0])


def transformer_of(model: SentenceTransformer) -> PreTrainedModel:
    """Return the transformer of a loaded model."""
    return first_module(model).model


def _kwargs() -> dict[str, Any]:
    return {"local_files_only": True, "trust_remote_code": False}


def _with_modules(path: Path, device: torch.device) -> SentenceTransformer:
    return SentenceTransformer(
        str(path),
        device=str(device),
        **_kwargs(),
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )


def _plain(path: Path, device: torch.device) -> SentenceTransformer:
    # Texts go in as they are: sentence-transformers would put them into the chat template of a model that has one.
    transformer = Transformer(
        str(path),
        model_kwargs={**_kwargs(), "use_safetensors": True, "dtype": torch.float32},
        processor_kwargs=_kwargs(),
        config_kwargs=_kwargs(),
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    return SentenceTransformer(modules=[transformer], device=str(device))


def _set_pooling(model: SentenceTransformer, wanted: str, path: Path) -> None:
    """Put the wanted pooling into the place of the model's own, or behind a plain model."""
    names = [name for name, module in model.named_children() if isinstance(module, Pooling)]
    if not names and len(model) == 1 and first_module(model).module_output_name == "token_embeddings":
        if wanted == "auto":
            # Where tokens see only what is before them, the last alone has seen the whole text.
            wanted = "last" if measured(transformer_of(model)) == "causal" else "mean"
        model.append(Pooling(first_module(model).get_embedding_dimension(), _POOLING_MODES[wanted]))
    elif wanted != "auto":
        if not names:
            raise UserError(
                f"train.encoder.pooling {wanted}: the model {path} has no pooling to replace; leave it at auto."
            )
        own = getattr(model, names[0])
        pooling = Pooling(own.embedding_dimension, _POOLING_MODES[wanted], own.include_prompt)
        if pooling.pooling_output_dimension != own.pooling_output_dimension and names[0] != str(len(model) - 1):
            raise UserError(
                f"train.encoder.pooling {wanted}: the layers behind the pooling of {path} want the vectors of its own, "
                "which are longer; leave it at auto."
            )
        setattr(model, names[0], pooling)


def _set_prompts(model: SentenceTransformer, settings: EncoderSettings) -> None:
    """Store the prompts under the names that `encode_query` and `encode_document` look for first."""
    own = dict(model.prompts)
    for name, wanted in (("query", settings.query_prompt), ("document", settings.passage_prompt)):
        default = own.get(model.default_prompt_name or "")
        found = next((own[n] for n in _PROMPT_NAMES[name] if n in own), default)
        model.prompts[name] = (found if wanted is None else wanted) or ""


def _set_padding(model: SentenceTransformer, path: Path) -> None:
    """Give a tokenizer without a padding token another to pad with: the attention mask hides it."""
    tokenizer = model.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"The tokenizer of {path} has no token to pad with; set pad_token in its tokenizer_config.json."
        )
