"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) by peft."""

import copy
from typing import TYPE_CHECKING

from sentence_transformers import SentenceTransformer
from torch import nn

from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.starting import first_module, transformer_of

if TYPE_CHECKING:
    from peft import PeftModel


def add_adapters(model: SentenceTransformer, settings: EncoderSettings) -> "PeftModel":
    """Freeze a model and put trainable adapters into its transformer, in place.

    An adapter of rank r adds `lora_alpha / r` times a product of two matrices to a layer; at first it is zero.

    Returns:
        peft's view of the transformer, for `merged_copy`.

    Raises:
        UserError: a target is no layer that can be adapted.
    """
    from peft import LoraConfig, get_peft_model

    transformer = transformer_of(model)
    for target in settings.lora_targets:
        _check_target(transformer, target)
    model.requires_grad_(False)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # peft divides it by the rank
        target_modules=settings.lora_targets or "all-linear",
    )
    try:
        return get_peft_model(transformer, config)
    except ValueError as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"train.encoder.lora_targets: {reason}") from error


def _check_target(transformer: nn.Module, target: str) -> None:
    # peft passes over a name that fits nothing where another fits.
    named = [name for name, _ in transformer.named_modules()]
    if not any(name == target or name.endswith(f".{target}") for name in named):
        linear = {name.rsplit(".", 1)[-1] for name, module in transformer.named_modules() if _is_linear(module)}
        raise UserError(
            f"train.encoder.lora_targets: the model has no layer {target!r}; its linear ones are "
            f"{', '.join(sorted(linear))}."
        )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's linear layer


def merged_copy(model: SentenceTransformer, adapted: "PeftModel") -> SentenceTransformer:
    """Copy a model with its adapters added to its weights, so that nothing of peft is left in the copy."""
    # Copied together, the two copies share the transformer as the two originals do.
    model, adapted = copy.deepcopy((model, adapted))
    first_module(model).model = adapted.merge_and_unload()
    return model
