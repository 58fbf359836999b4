"""What training starts from, for those who only look at it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from causalneg.config import EncoderSettings
from causalneg.embedding import encode, load_encoder
from causalneg.models import Start, resolve
from causalneg.starting import starting
from causalneg.training.encoder.encoder import Encoder

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling": "mean", "attention": "bidirectional"},
        {"pooling": "cls", "query_prompt": "w0 ", "passage_prompt": "w1 w2 "},
    ],
)
@pytest.mark.parametrize("name", ["bert", "llama", "qwen3"])
def test_it_embeds_as_the_model_that_training_saves_at_once(
    name: str, settings: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = request.getfixturevalue(name)
    wanted = EncoderSettings(**settings)
    Encoder(path, wanted, "fp32", torch.device("cpu")).save(tmp_path / "model")
    for kind in ("query", "passage"):
        trained = encode(load_encoder(resolve(str(tmp_path / "model"))), TEXTS, kind, precision="fp32")
        base = encode(load_encoder(starting(resolve(str(path)), wanted)), TEXTS, kind, precision="fp32")
        np.testing.assert_allclose(base, trained, atol=1e-6)


def test_a_model_that_training_leaves_as_it_is_keeps_its_vectors(bert: Path, llama: Path, tmp_path: Path) -> None:
    model, plain = resolve(str(bert)), resolve(str(llama))
    assert starting(model, EncoderSettings(query_length=8, lora_rank=2)) is model
    others = [
        starting(model, EncoderSettings(pooling="cls")),
        starting(model, EncoderSettings(query_prompt="")),
        starting(plain, EncoderSettings()),
    ]
    assert [m.start for m in others] == [Start(pooling="cls"), Start(query_prompt=""), Start()]
    assert len({m.fingerprint for m in (model, plain, *others)}) == 5

    low = SentenceTransformer(str(bert), device="cpu").bfloat16()
    low.save_pretrained(str(tmp_path / "low"), create_model_card=False)
    start = starting(resolve(str(tmp_path / "low")), EncoderSettings())
    assert load_encoder(start).dtype == torch.float32
