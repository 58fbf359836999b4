"""Tiny models with random weights: a BERT, and decoders as plain Hugging Face folders."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from training_samples import WORDS, tiny_encoder
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT in sentence-transformers layout: mean pooling, limit of 32 tokens, dropout of 0.1."""
    return tiny_encoder(tmp_path_factory.mktemp("bert"), dropout=0.1, spread=0.5)


def _tokenizer(side: str) -> PreTrainedTokenizerFast:
    words = {word: number for number, word in enumerate(["<unk>", "<eos>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = Whitespace()
    # It has a chat template and no padding token, as many decoders.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        padding_side=side,
        chat_template="{% for m in messages %}w0 w1 {{ m.content }} w2{% endfor %}",
    )


_DECODER = {
    "vocab_size": 42,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "initializer_range": 0.5,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 1,
}


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain llama in bf16 with tied weights, padded on the right."""
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**_DECODER, tie_word_embeddings=True)).bfloat16().save_pretrained(folder)
    _tokenizer("right").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain qwen3, padded on the left."""
    folder = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(**_DECODER, head_dim=8)).save_pretrained(folder)
    _tokenizer("left").save_pretrained(folder)
    return folder
