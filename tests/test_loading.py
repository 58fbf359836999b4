"""Encoders whose padding shifts positions, and folders that cannot be loaded, in every stage that loads one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from training_samples import decoder_tokenizer, tiny_encoder
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from causalneg.config import EncoderSettings
from causalneg.embedding import encode, load_encoder
from causalneg.errors import UserError
from causalneg.loading import open_model, settle
from causalneg.models import resolve
from causalneg.serving.encoders.prepare import open_encoder
from causalneg.training.encoder.encoder import Encoder

TEXTS = ["w1", "w2 w3 w4", "w5 w6 " * 9]
MODELS = {
    "gpt2": lambda: GPT2Model(
        GPT2Config(
            vocab_size=42, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1,
            initializer_range=0.5,
        )
    ),
    "bert": lambda: BertModel(
        BertConfig(
            vocab_size=42, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            initializer_range=0.5,
        )
    ),
}  # fmt: skip


def left_padded(folder: Path, name: str, pooling: str) -> Path:
    """Write a model that counts positions from the start of the row, with a tokenizer that pads there."""
    torch.manual_seed(0)
    MODELS[name]().save_pretrained(folder / "plain")
    tokenizer = decoder_tokenizer("left")
    tokenizer.pad_token, tokenizer.chat_template = "<eos>", None
    tokenizer.save_pretrained(folder / "plain")
    model = SentenceTransformer(modules=[Transformer(str(folder / "plain")), Pooling(16, pooling)], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def by_itself(model: SentenceTransformer) -> np.ndarray:
    return np.concatenate([model.encode([text], normalize_embeddings=True) for text in TEXTS])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_vectors_do_not_depend_on_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pooling: str
) -> None:
    path = left_padded(tmp_path, name, pooling)
    plain = SentenceTransformer(str(path), device="cpu")
    alone = by_itself(plain)
    assert np.abs(plain.encode(TEXTS, normalize_embeddings=True) - alone).max() > 0.1  # the library as it comes

    mined = encode(load_encoder(resolve(str(path))), TEXTS, "passage", precision="fp32")
    np.testing.assert_allclose(mined, alone, atol=1e-5)

    encoder = Encoder(path, EncoderSettings(), "fp32", torch.device("cpu"))
    trained = encoder.embed(encoder.tokenize(TEXTS, "passage"), "passage").detach().numpy()
    np.testing.assert_allclose(trained, alone, atol=1e-5)
    encoder.save(tmp_path / "trained")
    saved = SentenceTransformer(str(tmp_path / "trained"), device="cpu")
    np.testing.assert_allclose(saved.encode(TEXTS, normalize_embeddings=True), alone, atol=1e-5)

    if pooling == "mean":
        monkeypatch.setenv("CAUSALNEG_CACHE", str(tmp_path / "cache"))
        served = open_encoder(resolve(str(path)), "torch-fp32")
        vectors = served.encode([tokens.ids for tokens in served.tokenise(TEXTS)])
        np.testing.assert_allclose(vectors, alone, atol=1e-5)


def test_a_model_that_takes_padding_for_text_is_refused(tmp_path: Path) -> None:
    path = left_padded(tmp_path, "bert", "mean")
    for file in path.glob("tokenizer_config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_input_names": ["input_ids"]}))
    with pytest.raises(UserError, match="depend on the texts that are encoded beside them"):
        load_encoder(resolve(str(path)))
    with pytest.raises(UserError, match="depend on the texts that are encoded beside them"):
        Encoder(path, EncoderSettings(), "fp32", torch.device("cpu"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_a_sentence_in_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tiny_encoder(tmp_path / "tiny")
    file = path / name
    file.write_bytes(file.read_bytes()[:-40])
    model = resolve(str(path))
    monkeypatch.setenv("CAUSALNEG_CACHE", str(tmp_path / "cache"))
    for load in (
        lambda: load_encoder(model),
        lambda: Encoder(path, EncoderSettings(), "fp32", torch.device("cpu")),
        lambda: open_encoder(model, "torch-fp32"),
    ):
        with pytest.raises(UserError, match=r"cannot be loaded: .+"):
            load()


def test_weights_of_low_precision_are_no_reason_to_refuse(tmp_path: Path) -> None:
    path = tiny_encoder(tmp_path / "tiny", spread=0.5)
    model = open_model(path, torch.device("cpu"), torch.bfloat16)
    assert settle(model, path).dtype == torch.bfloat16
