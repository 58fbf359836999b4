"""The reranker scores as the cross-encoder does, and refuses what gives no single finite score."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from causalneg.errors import UserError
from causalneg.models import ResolvedModel, resolve
from causalneg.serving.encoders import EncoderFailed
from causalneg.serving.rerank import Reranker

TEXTS = ["The capital of France is Paris.", "", "🚀 漢字", "word " * 1000, "The capital of France is Paris."]


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ResolvedModel]:
    def make(name: str, labels: int = 1, scale: float = 1.0) -> ResolvedModel:
        """Write a small cross-encoder with weights drawn by seed."""
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        folder: Path = tmp_path_factory.mktemp(name)
        base = resolve("embedded:minilm-l6").path
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(
            base, num_labels=labels, num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=64
        )
        model = AutoModelForSequenceClassification.from_config(config)
        model.classifier.weight.data *= scale
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
        return resolve(str(folder))

    return make


def test_scores_are_those_of_the_cross_encoder(cross_encoder: Callable[..., ResolvedModel]) -> None:
    from sentence_transformers import CrossEncoder

    model = cross_encoder("cross", scale=10)
    scores = Reranker(model, 1).score("capital of france", TEXTS)
    own = CrossEncoder(str(model.path), local_files_only=True)
    np.testing.assert_allclose(scores, own.predict([("capital of france", text) for text in TEXTS]), atol=1e-5)
    assert scores.dtype == np.float32
    assert scores[0] == scores[-1] != scores[1]
    assert Reranker(model, 1).score("capital of france", []).shape == (0,)


def test_a_score_that_is_not_finite_is_an_error(cross_encoder: Callable[..., ResolvedModel]) -> None:
    with pytest.raises(EncoderFailed, match="NaN"):
        Reranker(cross_encoder("broken", scale=float("nan")), 1).score("query", TEXTS)


def test_a_classifier_is_no_reranker(cross_encoder: Callable[..., ResolvedModel]) -> None:
    with pytest.raises(UserError, match="gives 3 scores for a pair"):
        Reranker(cross_encoder("classes", labels=3), 1)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"serve.reranker: .* cannot be loaded"):
        Reranker(resolve(str(tmp_path)), 1)
