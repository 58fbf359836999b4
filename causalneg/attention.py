"""What the tokens of a model see: measured, and set so that it stays with the saved model."""

from typing import Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from causalneg.errors import UserError

_LENGTH = 6  # tokens of the measurement
_NOISE = 1e-5  # largest relative change by rounding


def _first_changes(model: PreTrainedModel, padding: int) -> bool:
    """Whether the first token's vector depends on the last token, in a batch with so much padding."""
    generator = torch.Generator().manual_seed(0)
    size = cast(nn.Embedding, model.get_input_embeddings()).embedding_dim
    one = torch.randn(_LENGTH + padding, size, generator=generator)
    other = one.clone()
    other[_LENGTH - 1] = torch.randn(size, generator=generator)
    mask = torch.ones(2, _LENGTH + padding, dtype=torch.long)
    mask[:, _LENGTH:] = 0
    embeddings = torch.stack([one, other]).to(model.device, model.dtype)
    with torch.no_grad():
        first = model(inputs_embeds=embeddings, attention_mask=mask.to(model.device)).last_hidden_state[:, 0].float()
    return bool((first[0] - first[1]).abs().max() > _NOISE * first.abs().max())


def measured(model: PreTrainedModel) -> Literal["causal", "bidirectional", "mixed"]:
    """Find out whether tokens see those after them, by changing the last one.

    Padding is tried as well as none, since a batch without it may take another path through the kernels.

    Args:
        model: in eval mode, with its dropout off.

    Returns:
        `mixed` where it depends on the padding.
    """
    changes = [_first_changes(model, padding) for padding in (0, 2)]
    return "mixed" if changes[0] != changes[1] else "bidirectional" if changes[0] else "causal"


def set_attention(model: PreTrainedModel, wanted: Literal["causal", "bidirectional"]) -> None:
    """Make the tokens of a model see what is wanted.

    It is done by `is_causal` of the model's config, which transformers reads at each forward pass since 5.2 and
    saves with the config, so that a plain load does the same. Not every architecture heeds it, so the outcome
    is measured.

    Raises:
        UserError: the model has no such setting.
    """
    if measured(model) == wanted:
        return
    config = model.config.get_text_config()
    config.is_causal = wanted == "causal"
    try:
        reached = measured(model)
    except Exception as error:  # an architecture that does not expect the setting may fail in any way
        raise UserError(_refusal(config.model_type, wanted)) from error
    if reached != wanted:
        raise UserError(_refusal(config.model_type, wanted))


def _refusal(architecture: str, wanted: str) -> str:
    if wanted == "causal":
        return (
            f"train.encoder.attention causal: the tokens of a {architecture} model see each other, and transformers "
            "has no setting that keeps later ones from them; leave it at auto, or take a decoder."
        )
    return (
        f"train.encoder.attention bidirectional: transformers has no setting that lets the tokens of a {architecture} "
        "model see later ones and that stays with the saved model; leave it at auto, or take another model."
    )
