"""Loading: pooling, prompts, padding, and what a user may get wrong."""

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.training.encoder.load import load

CPU = torch.device("cpu")


def _saved(model: SentenceTransformer, folder: Path) -> Path:
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.mark.parametrize(("wanted", "mode"), [("auto", "mean"), ("cls", "cls"), ("last", "lasttoken")])
def test_pooling_is_the_models_own_or_the_one_wanted(bert: Path, wanted: str, mode: str) -> None:
    model = load(bert, EncoderSettings(pooling=wanted), CPU)
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"]
    assert model[1].pooling_mode == mode


def test_a_plain_decoder_is_pooled_by_what_its_tokens_see(llama: Path) -> None:
    assert load(llama, EncoderSettings(), CPU)[1].pooling_mode == "lasttoken"
    assert load(llama, EncoderSettings(attention="bidirectional"), CPU)[1].pooling_mode == "mean"
    assert load(llama, EncoderSettings(pooling="cls"), CPU)[1].pooling_mode == "cls"


def test_a_new_pooling_leaves_the_prompt_out_where_the_old_did(bert: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(bert), device="cpu")
    model.set_pooling_include_prompt(False)
    path = _saved(model, tmp_path / "model")
    assert not load(path, EncoderSettings(pooling="cls"), CPU)[1].include_prompt
    assert load(bert, EncoderSettings(pooling="cls"), CPU)[1].include_prompt


def test_weights_are_fp32_and_dropout_is_off(bert: Path, llama: Path, tmp_path: Path) -> None:
    made = SentenceTransformer(str(bert), device="cpu")
    made.append(Dense(16, 8))
    low = _saved(made.bfloat16(), tmp_path / "model")
    assert SentenceTransformer(str(low), device="cpu").dtype == torch.bfloat16
    for path in (low, llama):
        model = load(path, EncoderSettings(), CPU)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert not model.training


def test_a_decoder_without_a_padding_token_pads_with_its_end_token(llama: Path) -> None:
    assert load(llama, EncoderSettings(), CPU).tokenizer.pad_token == "<eos>"  # noqa: S105 - no password


def test_a_pooling_that_later_layers_cannot_take_is_refused(bert: Path, tmp_path: Path) -> None:
    first = SentenceTransformer(str(bert), device="cpu")[0]
    modules = [first, Pooling(16, ("mean", "cls")), Dense(32, 8)]
    path = _saved(SentenceTransformer(modules=modules, device="cpu"), tmp_path / "model")
    assert load(path, EncoderSettings(), CPU).get_embedding_dimension() == 8
    with pytest.raises(UserError, match="layers behind the pooling"):
        load(path, EncoderSettings(pooling="cls"), CPU)


def test_a_model_without_pooling_has_none_to_replace(bert: Path, tmp_path: Path) -> None:
    first = SentenceTransformer(str(bert), device="cpu")[0]
    path = _saved(SentenceTransformer(modules=[first, Normalize()], device="cpu"), tmp_path / "model")
    with pytest.raises(UserError, match="no pooling to replace"):
        load(path, EncoderSettings(pooling="cls"), CPU)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path, EncoderSettings(), CPU)
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(tmp_path, EncoderSettings(), CPU)


def test_a_model_without_a_transformer_is_refused(tmp_path: Path) -> None:
    words = StaticEmbedding(Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")), embedding_dim=4)  # noqa: S106
    path = _saved(SentenceTransformer(modules=[words], device="cpu"), tmp_path / "model")
    with pytest.raises(UserError, match="begins with StaticEmbedding"):
        load(path, EncoderSettings(), CPU)


def test_a_wrong_attention_is_refused(bert: Path) -> None:
    with pytest.raises(UserError, match="attention causal"):
        load(bert, EncoderSettings(attention="causal"), CPU)
