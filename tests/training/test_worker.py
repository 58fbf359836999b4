"""The worker loop: schedule, exact resume, parts of a batch."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from causalneg.config import TrainSettings
from causalneg.records import Source
from causalneg.training import checkpoint
from causalneg.training.batch import NegativeText, TrainingRow
from causalneg.training.encoder import Encoder
from causalneg.training.worker import Alone, Summary, learning_rate, train

WORDS = [f"w{i}" for i in range(40)]
SETTINGS = TrainSettings(
    epochs=3, batch_size=4, precision="fp32", max_length=16, learning_rate=1e-3, checkpoint_every=2
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two small layers with random weights in sentence-transformers layout."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(vocab_size=45, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    )
    bert.save_pretrained(folder / "bert")
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def _encoder(path: Path) -> Encoder:
    return Encoder(path, SETTINGS.max_length, "fp32", torch.device("cpu"))


def _rows(count: int = 10) -> list[TrainingRow]:
    """Rows of random words; every third has no generated negative."""
    generator = torch.Generator().manual_seed(1)

    def text() -> str:
        length = int(torch.randint(2, 12, (1,), generator=generator))
        return " ".join(WORDS[i] for i in torch.randint(0, 40, (length,), generator=generator).tolist())

    return [
        TrainingRow(
            text(),
            text(),
            (
                *(NegativeText(text(), Source.MINED) for _ in range(1 + r % 4)),
                *(NegativeText(text(), Source.GENERATED) for _ in range(r % 3)),
            ),
        )
        for r in range(count)
    ]


def _weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.model.state_dict().items()}


class KilledError(Exception):
    """The process died."""


def _train(encoder: Encoder, folder: Path, die_at: int | None = None) -> Summary:
    def progress(done: int, steps: int, loss: float) -> None:
        if die_at is not None and done >= die_at:
            raise KilledError

    return train(_rows(), encoder, SETTINGS, 5, folder, Alone(), progress)


def test_loss_falls_and_the_summary_tells(tiny: Path, tmp_path: Path) -> None:
    summary = _train(_encoder(tiny), tmp_path)
    assert summary.steps == 9
    assert len(summary.epochs) == 3
    assert summary.epochs[-1]["loss"] < summary.epochs[0]["loss"]
    assert 0 < summary.epochs[0]["generated_mass"] < 1
    assert summary.epochs[0]["entropy"] > 0


@pytest.mark.parametrize("die_at", [1, 3, 4, 7, 9])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tiny: Path, tmp_path: Path, die_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causalneg.training.worker._REPORT_EVERY", 0.0)
    whole = _encoder(tiny)
    expected = _train(whole, tmp_path / "whole")
    with pytest.raises(KilledError):
        _train(_encoder(tiny), tmp_path / "cut", die_at)
    found = checkpoint.newest(tmp_path / "cut")
    assert checkpoint.step_of(found) == (9 if die_at == 9 else die_at - die_at % 2)
    resumed = _encoder(tiny)
    summary = _train(resumed, tmp_path / "cut")
    for name, value in _weights(whole).items():
        assert torch.equal(value, _weights(resumed)[name]), name
    assert summary.epochs == expected.epochs


def test_a_checkpoint_that_was_cut_off_is_not_taken(tiny: Path, tmp_path: Path) -> None:
    left = tmp_path / ".step-torn"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"torn")
    assert checkpoint.newest(tmp_path) is None
    _train(_encoder(tiny), tmp_path)
    assert not left.exists()
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000009"]
    names = sorted(p.name for p in (tmp_path / "step-00000009").iterdir())
    assert names == ["model.safetensors", "optimizer.safetensors", "state.json"]


def test_small_micro_batches_train_the_same_encoder(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = _encoder(tiny), _encoder(tiny)
    _train(one, tmp_path / "one")
    monkeypatch.setattr("causalneg.training.worker._MICRO_TOKENS", SETTINGS.max_length)
    _train(many, tmp_path / "many")
    for name, value in _weights(one).items():
        torch.testing.assert_close(value, _weights(many)[name], rtol=1e-3, atol=1e-4)


def test_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(step, 10, 0.2, 1.0) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert [learning_rate(step, 2, 0.0, 1.0) for step in range(2)] == [1.0, 0.5]
