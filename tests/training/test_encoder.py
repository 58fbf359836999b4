"""The encoder at training against sentence-transformers' own encoding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from causalneg.models import resolve
from causalneg.training.encoder import Encoder, length_sorted_chunks

TEXTS = ["short", "a somewhat longer text about the weather in Lisbon " * 9, "", "two words", "x " * 300]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(resolve("embedded:minilm-l6").path, 48, "fp32", torch.device("cpu"))


def _peer(max_length: int) -> SentenceTransformer:
    peer = SentenceTransformer(str(resolve("embedded:minilm-l6").path), device="cpu", local_files_only=True)
    peer.max_seq_length = max_length
    return peer


def test_vectors_are_those_of_sentence_transformers_in_the_order_of_the_texts(encoder: Encoder) -> None:
    found = encoder.embed(TEXTS, "passage").detach().numpy()
    np.testing.assert_allclose(found, _peer(48).encode_document(TEXTS, normalize_embeddings=True), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_prompts_are_those_of_sentence_transformers(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = _peer(48)
    prompts = {"query": "search for: ", "document": "passage: "}
    peer.prompts.update(prompts)
    monkeypatch.setattr(encoder.model, "prompts", prompts)
    np.testing.assert_allclose(
        encoder.embed(TEXTS, "query").detach().numpy(),
        peer.encode_query(TEXTS, normalize_embeddings=True),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        encoder.embed(TEXTS, "passage").detach().numpy(),
        peer.encode_document(TEXTS, normalize_embeddings=True),
        atol=1e-5,
    )


def test_padding_on_the_left_changes_nothing(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Position ids of BERT start at the left, so only texts without padding can be compared.
    text = [TEXTS[1]]
    right = encoder.embed(text, "passage")
    monkeypatch.setattr(encoder.model.tokenizer, "padding_side", "left")
    mixed = encoder.embed([TEXTS[0], *text], "passage")
    torch.testing.assert_close(mixed[1:], right, atol=1e-5, rtol=1e-5)


def test_gradients_do_not_depend_on_chunks(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = next(p for p in encoder.model.parameters() if p.ndim == 2)
    direction = torch.randn(len(TEXTS), 384, generator=torch.Generator().manual_seed(0))

    def gradient() -> torch.Tensor:
        loss = (encoder.embed(TEXTS, "passage") * direction).sum()
        return torch.autograd.grad(loss, weight)[0]

    whole = gradient()
    monkeypatch.setattr("causalneg.training.encoder._CHUNK_TOKENS", {"cpu": 48})
    torch.testing.assert_close(gradient(), whole, rtol=1e-3, atol=1e-4)


def test_the_saved_model_is_plain_and_keeps_its_own_limit(encoder: Encoder, tmp_path: Path) -> None:
    encoder.embed(TEXTS, "passage")
    encoder.save(tmp_path / "model")
    loaded = SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    assert loaded.max_seq_length == 256
    assert not list((tmp_path / "model").rglob("*.bin"))
    loaded.max_seq_length = 48
    np.testing.assert_allclose(
        loaded.encode_query(TEXTS, normalize_embeddings=True),
        encoder.embed(TEXTS, "query").detach().numpy(),
        atol=1e-5,
    )


def test_bf16_is_close_to_fp32(encoder: Encoder) -> None:
    other = Encoder(resolve("embedded:minilm-l6").path, 48, "bf16", torch.device("cpu"))
    vectors = other.embed(TEXTS, "passage")
    assert vectors.dtype == torch.float32
    assert (vectors * encoder.embed(TEXTS, "passage")).sum(1).min() > 0.99
    assert all(p.dtype == torch.float32 for p in other.model.parameters())


def test_chunks_hold_every_text_once_within_the_budget() -> None:
    lengths = [5, 100, 7, 30, 30, 2, 64]
    chunks = list(length_sorted_chunks(lengths, 64))
    assert sorted(i for chunk in chunks for i in chunk) == list(range(7))
    assert chunks[0] == [1]
    assert all(len(c) == 1 or max(lengths[i] for i in c) * len(c) <= 64 for c in chunks)
    assert list(length_sorted_chunks([], 64)) == []
