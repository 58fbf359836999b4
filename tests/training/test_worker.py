"""The worker loop: exact resume, the best checkpoint, early stopping, what is logged."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_samples import prepared, random_workspace, tiny_encoder, tiny_settings

from causalneg.config import TrainSettings
from causalneg.errors import UserError
from causalneg.training import checkpoint
from causalneg.training.data.store import Data
from causalneg.training.dev import Dev
from causalneg.training.encoder.encoder import Encoder
from causalneg.training.log import Log
from causalneg.training.step import Step
from causalneg.training.worker import Run, Summary, means, source_weights
from causalneg.training.workers import Alone


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("model") / "tiny", dropout=0.2)


@pytest.fixture(scope="module")
def data(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    settings = tiny_settings()
    return prepared(random_workspace(folder / "ws", rows=15), folder / "data", _encoder(tiny, settings), settings)


def _encoder(path: Path, settings: TrainSettings) -> Encoder:
    precision = "fp32" if settings.precision == "auto" else settings.precision
    return Encoder(path, settings.encoder, precision, torch.device("cpu"), settings.chunk_tokens)


def _weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.model.state_dict().items()}


class KilledError(Exception):
    """The process died."""


def _train(
    path: Path, data: Data, settings: TrainSettings, folder: Path, die_at: int | None = None
) -> tuple[Encoder, Summary]:
    def progress(done: int, steps: int, record: dict[str, float]) -> None:
        if die_at is not None and done >= die_at:
            raise KilledError

    encoder = _encoder(path, settings)
    run = Run(data, encoder, settings, 5, folder, Log(folder / "log.jsonl"), Alone(), progress)
    return encoder, run()


def test_loss_falls_and_the_summary_tells(tiny: Path, data: Data, tmp_path: Path) -> None:
    _, summary = _train(tiny, data, tiny_settings(), tmp_path)
    assert summary.steps == 9
    assert len(summary.epochs) == 3
    assert summary.epochs[-1]["loss"] < summary.epochs[0]["loss"]
    assert 0 < summary.epochs[0]["generated_mass"] < 1
    assert summary.epochs[0]["entropy"] > 0
    assert summary.dev.keys() == {"before", "best", "best_step"}
    assert 0 <= summary.waiting < 1
    assert summary.rows_per_second > 0


def test_rows_of_queries_held_out_are_not_trained_on(
    tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = Step.__call__

    def watched(self: Step, number: int, rows: np.ndarray, *rest: object) -> torch.Tensor:
        seen.extend(rows.tolist())
        return step(self, number, rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Step, "__call__", watched)
    _train(tiny, data, tiny_settings(loss__candidates="in_batch", loss__share_generated=True), tmp_path)
    assert len(data["rows.held_out"]) == 3
    assert sorted(seen) == sorted(data["rows.train"].tolist() * 3)  # epochs
    assert not set(data["row.query"][seen].tolist()) & set(data["row.query"][data["rows.held_out"]].tolist())


VARIANTS = {
    "plain": {},
    "dropout": {"encoder__dropout": True},
    "lora": {"encoder__lora_rank": 2},
    "global": {"loss__candidates": "global"},
    "curriculum": {"weights": [{"source": "generated", "start": 0.0, "weight": 1.0}], "schedule": "cosine"},
    "fp16": {"precision": "fp16"},
    "few records": {"log_every": 3},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("die_at", [1, 3, 4, 7, 9])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    tiny: Path, data: Data, tmp_path: Path, variant: str, die_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causalneg.training.worker._REPORT_EVERY", 0.0)
    settings = tiny_settings(**VARIANTS[variant])
    whole, expected = _train(tiny, data, settings, tmp_path / "whole")
    with pytest.raises(KilledError):
        _train(tiny, data, settings, tmp_path / "cut", die_at)
    found = checkpoint.newest(tmp_path / "cut")
    assert checkpoint.step_of(found) == die_at - 1 - (die_at - 1) % 2
    resumed, summary = _train(tiny, data, settings, tmp_path / "cut")
    for name, value in _weights(whole).items():
        assert torch.equal(value, _weights(resumed)[name]), name
    assert (summary.epochs, summary.dev) == (expected.epochs, expected.dev)

    def lasting(records: list[dict[str, float]]) -> list[dict[str, float]]:
        return [{n: v for n, v in r.items() if "second" not in n} for r in records]

    logs = [lasting(Log(tmp_path / name / "log.jsonl").read()) for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_checkpoint_that_was_cut_off_is_not_taken(tiny: Path, data: Data, tmp_path: Path) -> None:
    left = tmp_path / ".step-torn"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"torn")
    assert checkpoint.newest(tmp_path) is None
    _train(tiny, data, tiny_settings(), tmp_path)
    assert not left.exists()
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000009"]
    names = sorted(p.name for p in (tmp_path / "step-00000009").iterdir())
    assert names == ["model.safetensors", "optimizer.safetensors", "state.json"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(tiny: Path, data: Data, tmp_path: Path, name: str) -> None:
    _train(tiny, data, tiny_settings(epochs=1), tmp_path)
    path = tmp_path / "step-00000003" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"step-00000003 is damaged .*remove it"):
        _train(tiny, data, tiny_settings(epochs=1), tmp_path)


def test_a_checkpoint_holds_the_settings(tiny: Path, data: Data, tmp_path: Path) -> None:
    settings = tiny_settings(epochs=1, loss__entropy_weight=0.3)
    _train(tiny, data, settings, tmp_path)
    state = json.loads((tmp_path / "step-00000003" / "state.json").read_text())
    assert TrainSettings.model_validate(state["settings"]) == settings


def _watching(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have evaluations find these values, the first one before training."""
    found = iter(values)
    monkeypatch.setattr(Dev, "__call__", lambda self: {"nDCG@10": next(found), "seconds": 0.0})


def test_the_best_weights_are_kept_and_patience_ends_training(
    tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(dev__every=1, dev__patience=3)
    _watching([0.9, 0.1, 0.5, 0.4, 0.5, 0.3, 1.0], monkeypatch)  # before; then a tie is no better
    encoder, summary = _train(tiny, data, settings, tmp_path / "watched")
    assert (summary.steps, summary.stopped_early) == (5, True)
    assert summary.dev == {"before": 0.9, "best": 0.5, "best_step": 2}

    best = checkpoint.load_best(tmp_path / "watched")
    trained = encoder.trained_state()
    assert all(torch.equal(best[name], trained[name]) for name in best)

    # A run that was stopped stays stopped.
    _watching([0.0] * 20, monkeypatch)
    again, summary_again = _train(tiny, data, settings, tmp_path / "watched")
    assert (summary_again.steps, summary_again.stopped_early) == (5, True)
    assert all(torch.equal(best[name], again.trained_state()[name]) for name in best)


def test_what_is_logged(tiny: Path, data: Data, tmp_path: Path) -> None:
    rules = [{"source": "generated", "start": 0.0, "weight": 0.6, "begin": 0.2, "end": 0.8}]
    _train(tiny, data, tiny_settings(weights=rules, log_every=2), tmp_path)
    records = Log(tmp_path / "log.jsonl").read()
    trained = [r for r in records if r["kind"] == "train"]
    assert [r["step"] for r in trained] == [2, 4, 6, 8, 9]
    assert [r["step"] for r in records if r["kind"] == "dev"] == [0, 3, 6, 9]
    assert {
        "loss/total",
        "loss/info_nce",
        "loss/entropy",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
    } <= set(trained[0])
    weights = [r["weight/generated"] for r in trained]
    assert weights == sorted(weights)
    assert (weights[0], weights[-1]) == (0.0, 0.6)
    assert {r["weight/mined"] for r in trained} == {1.0}
    assert all("nDCG@10" in r and "diagnostics/gradient_cosine" in r for r in records if r["kind"] == "dev")


def _refused(encoder: Encoder, data: Data, settings: TrainSettings, folder: Path, break_at: int | None = None) -> str:
    """Train until it is refused, and return the sentence; weights are made NaN after a step if asked for."""

    def progress(done: int, steps: int, record: dict[str, float]) -> None:
        if done == break_at:
            encoder.parameters()[0].data.fill_(torch.nan)

    run = Run(data, encoder, settings, 5, folder, Log(folder / "log.jsonl"), Alone(), progress)
    with pytest.raises(UserError) as refusal:
        run()
    return str(refusal.value)


def test_a_learning_rate_that_breaks_the_weights_is_said(tiny: Path, data: Data, tmp_path: Path) -> None:
    settings = tiny_settings(learning_rate=1e30, warmup=0.0)
    said = _refused(_encoder(tiny, settings), data, settings, tmp_path)
    assert "NaN or infinite at step 2: lower train.learning_rate (1e+30)" in said
    assert "fp16" not in said
    assert said.endswith("there is no checkpoint yet.")


@pytest.mark.parametrize("log_every", [1, 1000])
def test_numbers_that_break_stop_training_and_leave_the_last_good_checkpoint(
    tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    monkeypatch.setattr("causalneg.training.worker._REPORT_EVERY", 0.0)
    settings = tiny_settings(log_every=log_every, dev__every=1000)
    said = _refused(_encoder(tiny, settings), data, settings, tmp_path, break_at=3)
    assert said.startswith("The loss or its gradient is NaN or infinite at step 4:")
    assert said.endswith(f"the last good checkpoint, of step 2, is kept in {tmp_path / 'step-00000002'}.")
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000002"]
    assert all(v.isfinite().all() for v in load_file(tmp_path / "step-00000002" / "model.safetensors").values())


def test_a_weight_that_is_no_number_is_said_before_anything_is_measured(tiny: Path, data: Data, tmp_path: Path) -> None:
    settings = tiny_settings()
    encoder = _encoder(tiny, settings)
    encoder.parameters()[0].data[0, 0] = torch.nan
    said = _refused(encoder, data, settings, tmp_path)
    assert said.startswith("Weights of the encoder are NaN or infinite before the first step: see whether")
    assert not Log(tmp_path / "log.jsonl").read()


def test_an_encoder_that_overflows_in_fp16_is_said(tiny: Path, data: Data, tmp_path: Path) -> None:
    settings = tiny_settings(precision="fp16")
    encoder = _encoder(tiny, settings)
    layer = dict(encoder.model.named_parameters())["0.model.encoder.layer.0.attention.output.dense.weight"]
    layer.data.fill_(1e6)
    said = _refused(encoder, data, settings, tmp_path)
    assert said.startswith("Vectors of the encoder are NaN or infinite before the first step: set train.precision to")


@pytest.mark.parametrize("candidates", ["in_batch", "global"])
def test_pairs_without_any_negatives_train_on_one_anothers_passages(
    tiny: Path, tmp_path: Path, candidates: str
) -> None:
    settings = tiny_settings(mined_per_query=0, generated_per_query=0, loss__candidates=candidates)
    workspace = random_workspace(tmp_path / "ws", rows=15)
    store = prepared(workspace, tmp_path / "data", _encoder(tiny, settings), settings)
    assert (store.facts["rows"], store.facts["without_negative"]) == (15, 15)
    _, summary = _train(tiny, store, settings, tmp_path / "run")
    assert 0 < summary.epochs[-1]["loss"] < summary.epochs[0]["loss"]


def test_a_rule_of_weight_nought_is_training_without_them(tiny: Path, data: Data, tmp_path: Path) -> None:
    folder = tmp_path / "without"
    settings = tiny_settings(generated_per_query=0)
    mined_only = prepared(random_workspace(folder / "ws", rows=15), folder / "data", _encoder(tiny, settings), settings)
    settings = tiny_settings(weights=[{"source": "generated", "weight": 0.0}])
    with_rule = prepared(
        random_workspace(folder / "ws2", rows=15), folder / "data2", _encoder(tiny, settings), settings
    )
    one, _ = _train(tiny, mined_only, tiny_settings(generated_per_query=0), tmp_path / "one")
    two, _ = _train(tiny, with_rule, settings, tmp_path / "two")
    for name, value in _weights(one).items():
        torch.testing.assert_close(value, _weights(two)[name], rtol=1e-4, atol=1e-5)


def test_source_weights_are_those_of_rules_about_the_source_alone() -> None:
    settings = tiny_settings(
        weights=[
            {"source": "generated", "weight": 0.2},
            {"score": "relative", "below": 0.5, "weight": 0.1},
            {"weight": 0.5},
        ]
    )
    assert source_weights(settings, 1.0) == {"mined": 0.5, "generated": pytest.approx(0.1)}
    assert source_weights(tiny_settings(), 1.0) == {}


def test_means_of_nothing_are_left_out() -> None:
    assert means([0.0] * 10, tiny_settings()) == {"loss": 0.0}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_nearly_the_same(tiny: Path, data: Data, tmp_path: Path, precision: str) -> None:
    _, exact = _train(tiny, data, tiny_settings(), tmp_path / "fp32")
    _, low = _train(tiny, data, tiny_settings(precision=precision), tmp_path / precision)
    assert low.epochs[-1]["loss"] == pytest.approx(exact.epochs[-1]["loss"], rel=0.2)


def _mutual_information(tiny: Path, folder: Path, entropy_weight: float) -> float:
    """Train on data with a shortcut, a word that marks generated negatives, and return how much it tells then."""
    settings = tiny_settings(
        epochs=12,
        learning_rate=3e-3,
        batch_size=16,
        dev__share=0.0,
        dev__every=1000,
        loss__entropy_weight=entropy_weight,
        loss__entropy_temperature=0.1,
    )
    workspace = random_workspace(folder / "ws", rows=96, marker="w0 w0 w0")
    store = prepared(workspace, folder / "data", _encoder(tiny, settings), settings)
    _train(tiny, store, settings, folder)
    return float(Log(folder / "log.jsonl").read()[-1]["diagnostics/mutual_information"])


def test_entropy_lowers_the_mutual_information_of_a_planted_shortcut(tiny: Path, tmp_path: Path) -> None:
    without = _mutual_information(tiny, tmp_path / "without", 0.0)
    with_entropy = _mutual_information(tiny, tmp_path / "with", 10.0)
    assert with_entropy < 0.7 * without, (with_entropy, without)
