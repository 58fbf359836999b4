"""The encoder at training against sentence-transformers' own encoding."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch._dynamo.utils import counters
from transformers import BertModel, OPTConfig, OPTModel

from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.models import resolve
from causalneg.training.encoder.encoder import Encoder, Precision, has_cpp_compiler, length_sorted_chunks

TEXTS = ["w1", "w2 w3 w4 w5 w6", "", "w7 w8", "w9 " * 30, "w10 w11 w12 w13 w14 w15 w16"]
PROMPTS = {"query_prompt": "w20 w21 ", "passage_prompt": "w22 "}


def make(path: Path, precision: Precision = "fp32", chunk_tokens: int | None = None, **settings: Any) -> Encoder:
    lengths = {"query_length": 12, "passage_length": 16}
    return Encoder(path, EncoderSettings(**(lengths | settings)), precision, torch.device("cpu"), chunk_tokens)


def vectors(encoder: Encoder, kind: str = "passage", texts: list[str] = TEXTS) -> torch.Tensor:
    return encoder.embed(encoder.tokenize(texts, kind), kind)


def plain(path: Path, length: int = 16) -> SentenceTransformer:
    model = SentenceTransformer(str(path), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})
    model.max_seq_length = length
    return model


def assert_saved_alike(encoder: Encoder, folder: Path, texts: list[str] = TEXTS) -> None:
    """Compare with the saved folder, loaded plainly."""
    encoder.save(folder)
    for kind, length in (("query", 12), ("passage", 16)):
        model = plain(folder, length)
        function = model.encode_query if kind == "query" else model.encode_document
        np.testing.assert_allclose(
            function(texts, normalize_embeddings=True), vectors(encoder, kind, texts).detach().numpy(), atol=1e-5
        )


def train_a_little(encoder: Encoder) -> None:
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    target = torch.randn(3, encoder.dimension, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        torch.manual_seed(0)
        optimizer.zero_grad()
        (vectors(encoder, texts=TEXTS[3:]) * target).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("prompts", [{}, PROMPTS])
def test_vectors_are_those_of_sentence_transformers_in_the_order_of_the_texts(
    qwen3: Path, pooling: str, side: str, prompts: dict[str, str]
) -> None:
    encoder = make(qwen3, pooling=pooling, **prompts)
    peer = make(qwen3, pooling=pooling, **prompts).model
    encoder.model.tokenizer.padding_side = peer.tokenizer.padding_side = side
    peer.max_seq_length = 12
    texts = [t for t in TEXTS if t]  # sentence-transformers gives an empty text of this tokenizer no vector
    found = vectors(encoder, "query", texts).detach().numpy()
    np.testing.assert_allclose(found, peer.encode_query(texts, normalize_embeddings=True), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    peer.max_seq_length = 16
    found = vectors(encoder, "passage", texts).detach().numpy()
    np.testing.assert_allclose(found, peer.encode_document(texts, normalize_embeddings=True), atol=1e-5)
    assert encoder.dimension == found.shape[1] == 16


def test_a_real_model_gives_the_vectors_of_sentence_transformers() -> None:
    path = resolve("embedded:minilm-l6").path
    texts = ["short", "a somewhat longer text about the weather in Lisbon " * 9, "", "two words"]
    encoder = make(path, query_length=48, **PROMPTS)
    peer = plain(path, 48)
    found = vectors(encoder, "query", texts).detach().numpy()
    expected = peer.encode(texts, prompt=PROMPTS["query_prompt"], normalize_embeddings=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_the_prompt_stays_out_of_the_mean_where_the_model_wants_it(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = make(request.getfixturevalue(name), pooling="mean").model
    made.set_pooling_include_prompt(False)
    made.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    encoder = make(tmp_path / "model", **PROMPTS)
    assert_saved_alike(encoder, tmp_path / "saved", texts := [t for t in TEXTS if t])
    kept = make(request.getfixturevalue(name), pooling="mean", **PROMPTS)
    assert not torch.allclose(vectors(encoder, "query", texts), vectors(kept, "query", texts), atol=1e-3)


def test_prompts_of_the_model_are_used_and_can_be_replaced(bert: Path, tmp_path: Path) -> None:
    model = plain(bert, 32)
    model.prompts.update(query="w20 ", document="w21 ")
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    own = make(tmp_path / "model", query_prompt="")
    assert own.model.prompts == {"query": "", "document": "w21 "}
    assert own.tokenize(["w1"], "query")[0].tolist() == [2, 6, 3]
    assert own.tokenize(["w1"], "passage")[0].tolist() == [2, 26, 6, 3]
    assert_saved_alike(own, tmp_path / "saved")


def test_token_ids_are_cut_at_the_length_of_their_kind_and_at_the_models_limit(bert: Path) -> None:
    encoder = make(bert, passage_length=500)
    long = "w9 " * 100
    assert [len(encoder.tokenize([long], kind)[0]) for kind in ("query", "passage")] == [12, 32]
    assert encoder.tokenize([long], "query")[0].dtype == np.int32
    assert encoder.tokenize([], "query") == []


def test_a_text_without_tokens_has_a_vector(qwen3: Path) -> None:
    found = vectors(make(qwen3), texts=["", ""])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_a_plain_decoder_reads_texts_as_they_are_and_pools_the_last_token(llama: Path, tmp_path: Path) -> None:
    encoder = make(llama)
    assert encoder.tokenize(["w0 w3"], "query")[0].tolist() == [2, 5]
    assert encoder.model[1].pooling_mode == "lasttoken"
    assert all(p.dtype == torch.float32 for p in encoder.model.parameters())
    assert_saved_alike(encoder, tmp_path / "saved", [t for t in TEXTS if t])


def test_a_plain_encoder_is_pooled_by_the_mean(bert: Path) -> None:
    encoder = make(bert.parent / "plain")
    assert encoder.model[1].pooling_mode == "mean"
    torch.testing.assert_close(vectors(encoder), vectors(make(bert)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bert", {}),
        ("bert", {"pooling": "last"}),
        ("bert", {"lora_rank": 2}),
        ("qwen3", {"lora_rank": 2, "lora_targets": ["q_proj", "v_proj"], "attention": "bidirectional"}),
        ("qwen3", {}),
        ("llama", {"attention": "bidirectional"}),
        ("llama", {"gradient_checkpointing": True, "dropout": True}),
    ],
)
def test_the_saved_model_is_plain(
    name: str, settings: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    encoder = make(request.getfixturevalue(name), **settings)
    before = vectors(encoder, texts=TEXTS[3:]).detach()
    train_a_little(encoder)
    assert not torch.allclose(before, vectors(encoder, texts=TEXTS[3:]), atol=1e-2)
    encoder.dropout = False
    assert_saved_alike(encoder, tmp_path / "saved", [t for t in TEXTS if t])
    files = [p for p in (tmp_path / "saved").rglob("*") if p.is_file()]
    assert not [p for p in files if p.suffix == ".bin" or "adapter" in p.name]
    assert not [p for p in files if p.suffix == ".json" and "eager" in p.read_text()]
    assert plain(tmp_path / "saved").dtype == torch.float32
    if name == "bert":
        model = SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)
        assert model.max_seq_length == 32


def test_every_worker_begins_with_the_same_weights(bert: Path) -> None:
    encoders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        encoders.append(make(bert, lora_rank=2))
    one, other = (encoder.trained_state() for encoder in encoders)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_training_goes_on_after_saving(bert: Path, tmp_path: Path) -> None:
    one, other = make(bert, lora_rank=2), make(bert, lora_rank=2)
    one.save(tmp_path / "saved")
    train_a_little(one)
    train_a_little(other)
    torch.testing.assert_close(vectors(one), vectors(other))


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}])
def test_gradients_do_not_depend_on_chunks(llama: Path, settings: dict[str, Any]) -> None:
    encoder = make(llama, chunk_tokens=32, **settings)
    ids = encoder.tokenize(TEXTS, "passage")
    direction = torch.randn(len(TEXTS), 16, generator=torch.Generator().manual_seed(0))
    whole = torch.autograd.grad((encoder.embed(ids, "passage") * direction).sum(), encoder.parameters())
    chunks = encoder.chunks([len(i) for i in ids])
    assert len(chunks) > 1
    for chunk in chunks:
        (encoder.embed([ids[p] for p in chunk], "passage") * direction[chunk]).sum().backward()
    for value, expected in zip(encoder.parameters(), whole, strict=True):
        torch.testing.assert_close(value.grad, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}])
def test_trained_state_goes_round(llama: Path, settings: dict[str, Any]) -> None:
    trained, fresh = make(llama, **settings), make(llama, **settings)
    train_a_little(trained)
    state = {name: value.clone() for name, value in trained.trained_state().items()}
    assert len(state) == len(trained.parameters())
    places = [p.data_ptr() for p in fresh.parameters()]
    fresh.load_trained_state(state)
    assert places == [p.data_ptr() for p in fresh.parameters()]
    assert torch.equal(vectors(fresh), vectors(trained))


def test_a_state_of_other_settings_is_refused(bert: Path) -> None:
    encoder = make(bert)
    with pytest.raises(UserError, match="checkpoint"):
        encoder.load_trained_state(make(bert, lora_rank=2).trained_state())
    state = encoder.trained_state()
    with pytest.raises(UserError, match="checkpoint"):
        encoder.load_trained_state({name: value[:1] for name, value in state.items()})


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close_to_fp32(bert: Path, precision: Precision) -> None:
    encoder = make(bert, precision)
    found = vectors(encoder)
    assert found.dtype == torch.float32
    assert (found * vectors(make(bert))).sum(1).min() > 0.99
    assert all(p.dtype == torch.float32 for p in encoder.model.parameters())


def test_dropout_follows_the_seed_and_can_be_switched_off(bert: Path) -> None:
    encoder = make(bert, dropout=True)
    torch.manual_seed(3)
    one = vectors(encoder)
    assert not torch.allclose(one, vectors(encoder), atol=1e-3)
    encoder.model.encode(["w1"])
    torch.manual_seed(3)
    assert torch.equal(one, vectors(encoder))
    encoder.dropout = False
    assert torch.equal(vectors(encoder), vectors(make(bert)))


@pytest.mark.parametrize("settings", [{"dropout": True}, {}, {"lora_rank": 2}])
def test_gradient_checkpointing_computes_layers_again_and_changes_nothing(bert: Path, settings: dict[str, Any]) -> None:
    gradients, calls = [], []
    for recompute in (False, True):
        encoder = make(bert, gradient_checkpointing=recompute, **settings)
        encoder.model[0].model.encoder.layer[0].intermediate.register_forward_hook(lambda *_: calls.append(1))
        torch.manual_seed(0)
        loss = (vectors(encoder) * torch.arange(16.0)).sum()
        gradients.append(torch.autograd.grad(loss, encoder.parameters(), allow_unused=True))
        assert len(calls) == (3 if recompute else 1)
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_gradient_checkpointing_that_would_bring_dropout_is_refused(
    bert: Path, qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # OPT's layers use dropout themselves, and not by modules in them.
    size = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "word_embed_proj_dim": 16,
    }
    OPTModel(OPTConfig(vocab_size=42, **size, dropout=0.1, pad_token_id=1)).save_pretrained(tmp_path)
    for file in (*qwen3.glob("tokenizer*"), *qwen3.glob("*.jinja")):
        shutil.copy(file, tmp_path)
    with pytest.raises(UserError, match="use dropout of their own"):
        make(tmp_path, gradient_checkpointing=True)
    encoder = make(tmp_path, gradient_checkpointing=True, dropout=True)
    encoder.dropout = False
    with torch.no_grad():
        torch.testing.assert_close(vectors(encoder), vectors(make(tmp_path)))
    monkeypatch.setattr(BertModel, "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match="does not support it"):
        make(bert, gradient_checkpointing=True)


def test_compiling_leaves_the_names_of_the_weights(bert: Path) -> None:
    assert make(bert, compile=True).trained_state().keys() == make(bert).trained_state().keys()


@pytest.mark.skipif(not has_cpp_compiler(), reason="needs a C++ compiler")
def test_a_compiled_model_embeds_trains_and_saves_the_same(bert: Path, tmp_path: Path) -> None:
    torch.compiler.reset()
    graphs = counters["stats"]["unique_graphs"]
    compiled, eager = make(bert, compile=True, lora_rank=2), make(bert, lora_rank=2)
    for encoder in (compiled, eager):
        train_a_little(encoder)
    torch.testing.assert_close(vectors(compiled), vectors(eager), atol=1e-4, rtol=1e-4)
    assert_saved_alike(compiled, tmp_path / "saved")
    assert counters["stats"]["unique_graphs"] > graphs
    assert not counters["graph_break"]


def test_compiling_without_a_compiler_is_refused(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"C\+\+ compiler"):
        make(bert, compile=True)


def test_chunks_hold_every_text_once_within_the_budget(bert: Path) -> None:
    lengths = [5, 100, 7, 30, 30, 2, 64]
    chunks = make(bert, chunk_tokens=64).chunks(lengths)
    assert chunks == list(length_sorted_chunks(lengths, 64))
    assert sorted(i for chunk in chunks for i in chunk) == list(range(7))
    assert chunks[0] == [1]
    assert all(len(c) == 1 or max(lengths[i] for i in c) * len(c) <= 64 for c in chunks)
    assert list(length_sorted_chunks([], 64)) == []
