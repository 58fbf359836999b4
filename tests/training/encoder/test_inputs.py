"""Token ids alone make the inputs that the model makes from texts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers.processors import TemplateProcessing

from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.training.encoder.inputs import Inputs, Kind
from causalneg.training.encoder.load import load

TEXTS = ["w1 w2", "w3", "w4 " * 20, "w5 w6 w7"]


def _load(path: Path, **settings: Any) -> tuple[SentenceTransformer, EncoderSettings]:
    wanted = EncoderSettings(**({"query_length": 8, "passage_length": 8} | settings))
    return load(path, wanted, torch.device("cpu")), wanted


@pytest.mark.parametrize("name", ["bert", "llama", "qwen3"])
@pytest.mark.parametrize("kind", ["query", "passage"])
def test_inputs_are_those_of_the_model(name: str, kind: Kind, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    model, settings = _load(path, query_prompt="w9 ", passage_prompt="")
    inputs = Inputs(model, settings, path)
    model.max_seq_length = 8
    own = model.preprocess(TEXTS, prompt="w9 " if kind == "query" else None)
    found = inputs.features(inputs.tokenize(TEXTS, kind), kind)
    assert found.keys() == own.keys()
    assert ("token_type_ids" in found) == (name == "bert")
    for key, value in own.items():
        assert torch.equal(value, found[key]) if isinstance(value, torch.Tensor) else value == found[key]


def test_a_chat_template_of_the_model_stays_around_its_texts(llama: Path, tmp_path: Path) -> None:
    # Loaded by sentence-transformers itself, a plain folder with a chat template puts texts into it.
    made = SentenceTransformer(str(llama), device="cpu", local_files_only=True)
    made.tokenizer.pad_token = "<eos>"  # noqa: S105 - no password
    made.save_pretrained(str(tmp_path / "chat"), create_model_card=False)
    model, settings = _load(tmp_path / "chat")
    inputs = Inputs(model, settings, tmp_path)
    assert inputs.tokenize(["w5"], "query")[0].tolist() == [2, 3, 7, 4]
    assert inputs.features(inputs.tokenize(["w5"], "query"), "query")["modality"] == "message"


def test_many_texts_keep_their_order(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = _load(bert)
    inputs = Inputs(model, settings, bert)
    whole = inputs.tokenize(TEXTS, "passage")
    monkeypatch.setattr("causalneg.training.encoder.inputs._BLOCK", 3)
    assert [i.tolist() for i in inputs.tokenize(TEXTS, "passage")] == [i.tolist() for i in whole]
    assert [len(i) for i in whole] == [4, 3, 8, 5]


def test_a_model_that_takes_more_than_token_ids_is_refused(bert: Path) -> None:
    model, settings = _load(bert)
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:1 [SEP]:0", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    with pytest.raises(UserError, match=r"more than token ids \(token_type_ids\)"):
        Inputs(model, settings, bert)


def test_a_prompt_that_leaves_no_room_is_refused(bert: Path) -> None:
    model, settings = _load(bert, query_prompt="w1 " * 6)
    with pytest.raises(UserError, match=r"raise train.encoder.query_length, or shorten train.encoder.query_prompt"):
        Inputs(model, settings, bert)
