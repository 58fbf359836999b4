"""Low-rank adapters."""

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.training.encoder.adapters import add_adapters, merged_copy
from causalneg.training.encoder.load import load


def _load(path: Path) -> SentenceTransformer:
    return load(path, EncoderSettings(), torch.device("cpu"))


@pytest.mark.parametrize("targets", [[], ["query", "value"]])
def test_only_adapters_are_trained(bert: Path, targets: list[str]) -> None:
    model = _load(bert)
    model.append(Dense(16, 8))
    before = {name: value.clone() for name, value in model.named_parameters()}
    add_adapters(model, EncoderSettings(lora_rank=2, lora_targets=targets))
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert all("lora_" in name for name in trained)
    # Two matrices for each target of two layers; or for their six linear layers, and that of BERT's pooler.
    assert len(trained) == 2 * (4 if targets else 13)
    model.encode_query(["w1"])
    for name, value in model.named_parameters():
        if name not in trained:
            assert torch.equal(value, before[name.replace(".base_layer", "")])


def test_a_merged_copy_gives_the_vectors_of_the_adapted_model_and_leaves_it_alone(llama: Path) -> None:
    model = _load(llama)
    adapted = add_adapters(model, EncoderSettings(lora_rank=2))
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.normal_(generator=torch.Generator().manual_seed(0), std=0.1)
    texts = ["w1 w2", "w3 w4 w5"]
    expected = model.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    merged = merged_copy(model, adapted)
    found = merged.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    plain = _load(llama)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert not torch.allclose(found, plain.encode(texts, convert_to_tensor=True, normalize_embeddings=True), atol=1e-2)
    again = model.encode(texts, convert_to_tensor=True, normalize_embeddings=True)
    assert torch.equal(again, expected)
    assert any("lora_" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("targets", [["q_proj"], ["query", "q_proj"]])
def test_a_target_that_is_not_there_is_refused_with_those_that_are(bert: Path, targets: list[str]) -> None:
    with pytest.raises(UserError, match="no layer 'q_proj'; its linear ones are dense, key, query, value"):
        add_adapters(_load(bert), EncoderSettings(lora_rank=2, lora_targets=targets))


def test_a_target_that_cannot_be_adapted_is_refused(bert: Path) -> None:
    with pytest.raises(UserError, match=r"lora_targets: .*not supported"):
        add_adapters(_load(bert), EncoderSettings(lora_rank=2, lora_targets=["LayerNorm"]))
