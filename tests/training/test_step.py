"""A step's gradients: the same for any number of workers, any budget, and by plain autograd on whole texts."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training_samples import prepared, random_workspace, tiny_encoder, tiny_settings

from causalneg.config import TrainSettings
from causalneg.training.data.store import Data
from causalneg.training.encoder.encoder import Encoder
from causalneg.training.objective.loss import LossSums
from causalneg.training.step import Step, held_tokens
from causalneg.training.workers import Alone

ROWS = np.array([7, 2, 0, 5, 11, 4, 9])
PARTS = {
    "published": {},
    "no entropy": {"loss__entropy_weight": 0.0},
    "entropy alone": {"loss__contrastive_weight": 0.0, "loss__entropy_weight": 1.0},
    "weights": {"weights": [{"source": "generated", "weight": 0.2}, {"score": "cross", "below": 0.5, "weight": 0.0}]},
    "false negatives": {"loss__false_negative_margin": 0.02, "loss__exempt_generated": False},
    "matryoshka": {"loss__matryoshka_dims": [4, 8]},
    "distillation": {"loss__distillation": "kl"},
    "margins": {"loss__distillation": "margin_mse", "loss__hardness": 3.0},
    "shared": {"loss__share_generated": True},
}


class Several:
    """Workers in threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._tensors: dict[int, Tensor] = {}

    def worker(self, rank: int) -> "OneOfSeveral":
        return OneOfSeveral(self, rank)

    def add_up(self, rank: int, tensor: Tensor) -> None:
        self._tensors[rank] = tensor.detach().clone()
        self._barrier.wait(60)
        tensor.copy_(sum((self._tensors[r] for r in range(self.size)), torch.zeros_like(tensor)))
        self._barrier.wait(60)


class OneOfSeveral:
    """One of workers in threads."""

    def __init__(self, all_of_them: Several, rank: int) -> None:
        self._all, self.rank, self.size = all_of_them, rank, all_of_them.size

    def add_up(self, tensor: Tensor) -> None:
        self._all.add_up(self.rank, tensor)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def stores(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[TrainSettings], Data]:
    folder = tmp_path_factory.mktemp("stores")
    workspace = random_workspace(folder / "ws")
    made: dict[str, Data] = {}

    def store(settings: TrainSettings) -> Data:
        key = str(settings.weights)
        if key not in made:
            made[key] = prepared(workspace, folder / f"data{len(made)}", _encoder(model, settings), settings)
        return made[key]

    return store


def _encoder(model: Path, settings: TrainSettings) -> Encoder:
    return Encoder(model, settings.encoder, "fp32", torch.device("cpu"), settings.chunk_tokens)


def _gradients(
    model: Path, data: Data, settings: TrainSettings, workers: int = 1
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients and sums of a step, added up over workers."""
    several = Several(workers)
    encoders = [_encoder(model, settings) for _ in range(workers)]
    sums: dict[int, Tensor] = {}

    def work(rank: int) -> None:
        worker = several.worker(rank) if workers > 1 else Alone()
        sums[rank] = Step(encoders[rank], data, settings, 3, worker)(5, ROWS, 0.5)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sums) == workers, "a worker failed"
    gradients = {
        name: sum(
            (g for e in encoders if (g := dict(e.model.named_parameters())[name].grad) is not None), torch.zeros(())
        )
        for name, _ in encoders[0].model.named_parameters()
    }
    total = sum(sums.values(), torch.zeros(len(LossSums._fields)))
    return gradients, dict(zip(LossSums._fields, total.tolist(), strict=True))


def _settings(part: str, candidates: str, **fields: object) -> TrainSettings:
    return tiny_settings(dev__share=0.0, loss__candidates=candidates, **{**PARTS[part], **fields})


def _same(one: tuple[dict[str, Tensor], dict[str, float]], other: tuple[dict[str, Tensor], dict[str, float]]) -> None:
    assert one[1] == pytest.approx(other[1], rel=1e-5, abs=1e-5)
    largest = max(float(g.abs().max()) for g in one[0].values())
    assert largest > 0
    for name, gradient in one[0].items():
        torch.testing.assert_close(gradient, other[0][name], rtol=1e-5, atol=1e-5 * max(1.0, largest), msg=name)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("candidates", ["own", "global"])
def test_any_number_of_workers_is_one(
    model: Path, stores: Callable[[TrainSettings], Data], part: str, candidates: str
) -> None:
    settings = _settings(part, candidates)
    data = stores(settings)
    one = _gradients(model, data, settings)
    for workers in (2, 3):
        _same(one, _gradients(model, data, settings, workers))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("candidates", ["own", "in_batch", "global"])
def test_a_budget_of_nearly_nothing_changes_nothing(
    model: Path, stores: Callable[[TrainSettings], Data], part: str, candidates: str
) -> None:
    whole = _settings(part, candidates)
    data = stores(whole)
    one = _gradients(model, data, whole)
    for held, chunk in ((1e-9, 16), (2e-3, 64), (1.0, 16)):
        _same(one, _gradients(model, data, _settings(part, candidates, held_gib=held, chunk_tokens=chunk)))


def test_more_workers_than_rows(model: Path, stores: Callable[[TrainSettings], Data]) -> None:
    settings = _settings("published", "global")
    _same(_gradients(model, stores(settings), settings), _gradients(model, stores(settings), settings, 9))
    settings = _settings("published", "own")
    _same(_gradients(model, stores(settings), settings), _gradients(model, stores(settings), settings, 9))


def test_both_passes_draw_the_same_dropout(model: Path, tmp_path: Path) -> None:
    shaky = tiny_encoder(tmp_path / "shaky", dropout=0.3)
    settings = tiny_settings(dev__share=0.0, encoder__dropout=True, chunk_tokens=32)
    data = prepared(random_workspace(tmp_path / "ws"), tmp_path / "data", _encoder(shaky, settings), settings)
    one = _gradients(shaky, data, settings.model_copy(update={"held_gib": 1.0}))
    # A single run of rows, so that chunks and their seeds are the same.
    in_batch = settings.model_copy(
        update={"loss": settings.loss.model_copy(update={"candidates": "in_batch"}), "held_gib": 1.0}
    )
    held = _gradients(shaky, data, in_batch)
    twice = _gradients(shaky, data, in_batch.model_copy(update={"held_gib": 1e-9}))
    _same(held, twice)
    calm = _gradients(
        shaky, data, settings.model_copy(update={"encoder": settings.encoder.model_copy(update={"dropout": False})})
    )
    assert one[1]["info_nce"] != pytest.approx(calm[1]["info_nce"], rel=1e-3)


def _plain(model: Path, data: Data, settings: TrainSettings) -> float:
    """InfoNCE of the rows by sentence-transformers' own encoding and loops over Python floats."""
    encoder = _encoder(model, settings)

    def vector(kind: str, number: int) -> np.ndarray:
        with torch.no_grad():
            return encoder.embed(data.tokens(kind, [number]), kind)[0].double().numpy()  # type: ignore[arg-type]

    key = data["passage.key"]
    rows = []
    for r in ROWS:
        own = slice(data["row.start"][r], data["row.start"][r + 1])
        negatives = list(zip(data["negative.passage"][own], data["negative.generated"][own], strict=True))
        rows.append((data["row.query"][r], data["row.positive"][r], negatives))
    total = 0.0
    for query, positive, negatives in rows:
        q = vector("query", query)
        known = {
            int(key[n]) for n in data["known.passage"][data["known.start"][query] : data["known.start"][query + 1]]
        }
        candidates = [n for n, _ in negatives]
        if settings.loss.candidates != "own":
            taken = {int(key[n]) for n in candidates} | known
            for _, other_positive, other_negatives in rows:
                for n, generated in [(other_positive, False), *other_negatives]:
                    if int(key[n]) not in taken and (settings.loss.share_generated or not generated):
                        taken.add(int(key[n]))
                        candidates.append(n)
        scores = np.array([q @ vector("passage", n) for n in (positive, *candidates)]) / settings.loss.temperature
        total += float(np.log(np.exp(scores - scores[0]).sum()))
    return total


@pytest.mark.parametrize(
    ("candidates", "share"), [("own", False), ("in_batch", False), ("global", False), ("global", True)]
)
def test_candidates_are_those_said(
    model: Path, stores: Callable[[TrainSettings], Data], candidates: str, share: bool
) -> None:
    settings = _settings("published", candidates, loss__share_generated=share)
    found = _gradients(model, stores(settings), settings)[1]["info_nce"]
    assert found == pytest.approx(_plain(model, stores(settings), settings), rel=1e-4)


def test_gradients_are_the_slope_of_the_loss(model: Path, stores: Callable[[TrainSettings], Data]) -> None:
    settings = _settings("no entropy", "global")
    data = stores(settings)
    gradients, _ = _gradients(model, data, settings)
    step = 1e-3
    name = max(gradients, key=lambda n: float(gradients[n].abs().max()))
    values = []
    for sign in (1, -1):
        encoder = _encoder(model, settings)
        weight = dict(encoder.model.named_parameters())[name]
        place = int(gradients[name].abs().argmax())
        with torch.no_grad():
            weight.view(-1)[place] += sign * step
        values.append(float(Step(encoder, data, settings, 3, Alone())(5, ROWS, 0.5)[0]) / len(ROWS))
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(float(gradients[name].flatten()[place]), rel=2e-2)


def test_memory_for_activations_is_measured_in_tokens(model: Path) -> None:
    settings = tiny_settings()
    encoder = _encoder(model, settings)
    each = encoder.bytes_per_token()
    assert each == encoder.bytes_per_token()
    # Two layers of width 16 and 32 keep hundreds of numbers for each token, and not their weights.
    assert 1_000 < each < 20_000
    assert held_tokens(encoder, each * 500 / 1024**3) in (499, 500)
    assert held_tokens(encoder, 1e-12) == 1
    state = torch.random.get_rng_state()
    encoder.bytes_per_token()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None for p in encoder.parameters())
