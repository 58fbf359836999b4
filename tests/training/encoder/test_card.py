"""The model card."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from causalneg.config import EncoderSettings, TrainSettings
from causalneg.training.encoder.card import CardFacts, ModelFacts, is_hub_id, model_facts, render
from causalneg.training.encoder.load import load


def _facts(**changed: Any) -> CardFacts:
    known: dict[str, Any] = {
        "name": "my|model",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "model": ModelFacts(
            dimension=384,
            max_length=256,
            pooling="mean",
            attention="bidirectional",
            query_prompt='Query: "\n',
            passage_prompt="",
            dtype="float32",
        ),
        "encoder": EncoderSettings(lora_rank=4),
        "train": TrainSettings().model_dump(),
        "source": "embedded:sample <b>",
        "pairs": 1200,
        "mined": 18_000,
        "generated": 2400,
        "figures": {"dev nDCG@10 before": 0.41234, "dev nDCG@10 after": 0.5},
        "precision": "bf16",
        "steps": 225,
        "versions": {"causalneg": "0.1.0", "torch": "2.13.0"},
        "licence": "apache-2.0",
    }
    return CardFacts(**(known | changed))


def test_the_front_matter_is_what_the_hub_reads() -> None:
    card = ModelCard(render(_facts()))
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.license == "apache-2.0"
    assert {"sentence-transformers", "sentence-similarity", "feature-extraction"} <= set(card.data.tags)
    assert yaml.safe_load(card.content.split("---")[1]) == card.data.to_dict()


def test_it_shows_usage_prompts_settings_and_figures() -> None:
    text = render(_facts())
    assert 'SentenceTransformer("my|model")' in text
    assert "encode_query(" in text
    assert "encode_document(" in text
    assert r'{"query": "Query: \"\n", "document": ""}' in text
    assert r"# my\|model" in text
    assert "embedded:sample &lt;b&gt;" in text
    assert "| dev nDCG@10 before | 0.4123 |" in text
    assert r"| encoder.lora\_rank | 4 |" in text
    assert "| loss.temperature | 0.05 |" in text
    assert "| pairs of a query and a positive | 1,200 |" in text
    assert "| weights | float32 |" in text
    assert "some of them written by an LLM" in text
    assert text.count("encoder.lora") == 3  # once each: rank, alpha, targets


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    text = render(_facts(base_model="embedded:minilm-l6", licence=None, figures={}, generated=0))
    assert "**Unknown: fill it in" in text
    assert ModelCard(text).data.license == "unknown"
    assert ModelCard(text).data.base_model is None
    assert "## Figures" not in text
    assert "written by an LLM" not in text


def test_hub_ids_are_told_from_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_hub_id("org/model-v1.5")
    assert not any(map(is_hub_id, ["embedded:minilm-l6", "/srv/model", "./models/mine", "~/model", "model", "a/b/c"]))
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("org/model")


def test_facts_of_a_model(bert: Path) -> None:
    model = load(bert, EncoderSettings(pooling="last", query_prompt="w1 "), torch.device("cpu"))
    assert model_facts(model) == ModelFacts(
        dimension=16,
        max_length=32,
        pooling="lasttoken",
        attention="bidirectional",
        query_prompt="w1 ",
        passage_prompt="",
        dtype="float32",
    )
