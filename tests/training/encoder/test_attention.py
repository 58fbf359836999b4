"""What tokens see: on random small models of many architectures."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from causalneg.attention import measured, set_attention
from causalneg.errors import UserError

SIZE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
DECODERS = {
    "llama": LlamaConfig(**SIZE, **TOKENS, num_key_value_heads=1),
    "qwen3": Qwen3Config(**SIZE, **TOKENS, num_key_value_heads=1, head_dim=8),
    "mistral with a window": MistralConfig(**SIZE, **TOKENS, num_key_value_heads=1, sliding_window=16),
    "gemma2": Gemma2Config(**SIZE, **TOKENS, num_key_value_heads=1, head_dim=8),
    "gpt2": GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, **TOKENS),
}


def _model(config: PreTrainedConfig, kernel: str | None = None) -> PreTrainedModel:
    torch.manual_seed(0)
    fresh = type(config).from_dict(config.to_dict())
    return AutoModel.from_config(fresh, attn_implementation=kernel).eval()


def _first_changes(model: PreTrainedModel, pads: int) -> bool:
    """Whether the first token's vector changes with the last of six."""
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 30]])
    ids = torch.cat([ids, torch.zeros(2, pads, dtype=torch.long)], 1)
    mask = torch.ones_like(ids)
    mask[:, 6:] = 0
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    return not torch.allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_a_decoder_sees_later_tokens_only_where_it_shall(name: str, kernel: str) -> None:
    model = _model(DECODERS[name], kernel)
    assert measured(model) == "causal"
    assert [_first_changes(model, pads) for pads in (0, 3)] == [False, False]
    set_attention(model, "bidirectional")
    assert measured(model) == "bidirectional"
    assert [_first_changes(model, pads) for pads in (0, 3)] == [True, True]
    set_attention(model, "causal")
    assert [_first_changes(model, pads) for pads in (0, 3)] == [False, False]


def test_what_a_model_has_already_is_left_alone() -> None:
    decoder, encoder = _model(DECODERS["llama"]), _model(BertConfig(**SIZE))
    set_attention(decoder, "causal")
    set_attention(encoder, "bidirectional")
    assert not hasattr(decoder.config, "is_causal")
    assert not hasattr(encoder.config, "is_causal")


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_an_encoder_is_not_made_causal(kernel: str) -> None:
    with pytest.raises(UserError, match="causal: the tokens of a bert model see each other"):
        set_attention(_model(BertConfig(**SIZE), kernel), "causal")


def test_a_decoder_without_the_setting_is_refused() -> None:
    with pytest.raises(UserError, match=r"bidirectional: transformers has no setting .* mpt"):
        set_attention(_model(MptConfig(vocab_size=50, d_model=16, n_layers=2, n_heads=2, **TOKENS)), "bidirectional")
