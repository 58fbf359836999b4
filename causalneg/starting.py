"""The encoder that training starts from: a model with pooling, attention and prompts as wanted, in fp32.

Training loads it by this, and so does the evaluation of what it started from.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers.sentence_transformer.modules.pooling import PoolingMode
from transformers import PreTrainedModel

from causalneg.attention import measured, set_attention
from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.loading import open_model, refusing, settle
from causalneg.models import ResolvedModel, Start
from causalneg.records import content_id

_POOLING_MODES: dict[str, PoolingMode] = {"mean": "mean", "cls": "cls", "last": "lasttoken"}


def start_of(settings: EncoderSettings) -> Start:
    """Return what settings put into a model."""
    return Start(settings.pooling, settings.attention, settings.query_prompt, settings.passage_prompt)


def starting(model: ResolvedModel, settings: EncoderSettings) -> ResolvedModel:
    """Return a model as training starts from it; where that is what its folder holds, the model as it is.

    The one with something put into it has a fingerprint of its own, so that its vectors are kept apart.
    """
    start = start_of(settings)
    if start == Start() and (model.path / "modules.json").is_file() and _is_fp32(model.path):
        return model
    return replace(model, start=start, fingerprint=content_id(model.fingerprint, asdict(start))[:16])


def _is_fp32(path: Path) -> bool:
    """Whether all floating-point weights of a folder are fp32."""
    for file in path.rglob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            if any(weights.get_slice(name).get_dtype() in ("BF16", "F16") for name in weights.keys()):  # noqa: SIM118
                return False
    return True


def load_start(path: Path, start: Start, device: torch.device) -> SentenceTransformer:
    """Load a model as training starts from it.

    Args:
        path: folder in sentence-transformers layout, or a plain Hugging Face one, with safetensors weights. Code that
            comes with it is never run.
        start: is put into the model, and saved with it.
        device: where to put it.

    Returns:
        the model in eval mode; its weights are fp32 whatever the folder holds, since bf16 weights lose small updates.
        Weights that the folder lacks are drawn from one fixed seed.

    Raises:
        UserError: the folder cannot be loaded, or the model cannot be what is wanted.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []), refusing(path):
        torch.manual_seed(0)
        whole = (path / "modules.json").is_file()
        model = open_model(path, device, torch.float32) if whole else _plain(path, device)
    if not isinstance(model[0], Transformer):
        raise UserError(f"The model {path} begins with {type(model[0]).__name__}; only transformers can be trained.")
    model.eval()
    if start.attention != "auto":
        set_attention(transformer_of(model), start.attention)
    _set_pooling(model, start.pooling, path)
    _set_prompts(model, start)
    return settle(model, path)


def first_module(model: SentenceTransformer) -> Transformer:
    """Return the module that makes the inputs and runs the transformer."""
    return cast(Transformer, model[0])


def transformer_of(model: SentenceTransformer) -> PreTrainedModel:
    """Return the transformer of a loaded model."""
    return first_module(model).model


def _kwargs() -> dict[str, Any]:
    return {"local_files_only": True, "trust_remote_code": False}


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


def _set_prompts(model: SentenceTransformer, start: Start) -> None:
    """Store the prompts under the names that `encode_query` and `encode_document` take."""
    for name, wanted in (("query", start.query_prompt), ("document", start.passage_prompt)):
        model.prompts[name] = (model.prompts.get(name) if wanted is None else wanted) or ""
