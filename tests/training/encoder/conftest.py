"""Tiny models with random weights: a BERT, and decoders as plain Hugging Face folders."""

from pathlib import Path

import pytest
import torch
from training_samples import DECODER, decoder_tokenizer, tiny_encoder, tiny_llama
from transformers import Qwen3Config, Qwen3ForCausalLM


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT in sentence-transformers layout: mean pooling, limit of 32 tokens, dropout of 0.1."""
    return tiny_encoder(tmp_path_factory.mktemp("bert"), dropout=0.1, spread=0.5)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain llama in bf16 with tied weights, padded on the right."""
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain qwen3, padded on the left."""
    folder = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(**DECODER, head_dim=8)).save_pretrained(folder)
    decoder_tokenizer("left").save_pretrained(folder)
    return folder
