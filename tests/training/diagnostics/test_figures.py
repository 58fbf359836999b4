"""The figures against plain loops, autograd, and cases with a known answer."""

import math

import pytest
import torch
from torch import Tensor

from causalneg.config import LossSettings
from causalneg.training.diagnostics.figures import Figures, measure, query_gradients

SETTINGS = LossSettings(temperature=0.2, entropy_temperature=0.3)
OF_SOURCE = {
    "mutual_information",
    "mutual_information_low",
    "mutual_information_high",
    "auc",
    "within_query_auc",
    "generated_mass",
    "expected_mass",
    "entropy_ratio",
    "generated_cosine",
    "gradient_share",
    "gradient_cosine",
}
Rows = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _rows(counts: list[tuple[int, int]], seed: int = 0, dim: int = 8, width: int = 7, moved: float = 0.0) -> Rows:
    """Draw rows with so many (mined, generated) negatives; padded places hold NaN and are marked as generated."""
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, dim, generator=generator) + 0.5, dim=-1)

    query, positive, negatives = unit(len(counts)), unit(len(counts)), unit(len(counts), width)
    place = torch.arange(width)
    mask = torch.stack([place < mined + made for mined, made in counts])
    generated = torch.stack([place >= mined for mined, _ in counts])
    towards = negatives + moved * query[:, None]
    negatives = torch.where(generated[:, :, None], torch.nn.functional.normalize(towards, dim=-1), negatives)
    return query, positive, negatives.masked_fill(~mask[:, :, None], torch.nan), mask, generated


def test_by_hand() -> None:
    counts = [(2, 2), (3, 1), (4, 0), (0, 3), (1, 3)]
    query, positive, negatives, mask, generated = rows = _rows(counts)
    found = measure(*rows, SETTINGS, seed=0)
    cosines: list[tuple[list[float], list[float]]] = []
    for r in range(len(counts)):
        kinds: tuple[list[float], list[float]] = ([], [])
        for i in range(mask.shape[1]):
            if mask[r, i]:
                kinds[int(generated[r, i])].append(float(query[r].double() @ negatives[r, i].double()))
        cosines.append(kinds)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    assert (found.rows, found.generated_rows) == (5, 4)
    assert found.positive_cosine == pytest.approx(mean([float(q @ p) for q, p in zip(query, positive, strict=True)]))
    assert found.mined_cosine == pytest.approx(mean([s for mined, _ in cosines for s in mined]))
    assert found.generated_cosine == pytest.approx(mean([s for _, made in cosines for s in made]))

    masses, expected, ratios = [], [], []
    for mined, made in cosines:
        if not made:
            continue
        exps = [math.exp(s / 0.3) for s in made]
        masses.append(sum(exps) / (sum(exps) + sum(math.exp(s / 0.3) for s in mined)))
        expected.append(len(made) / (len(made) + len(mined)))
        if len(made) >= 2:
            ratios.append(-sum(e / sum(exps) * math.log(e / sum(exps)) for e in exps) / math.log(len(made)))
    assert found.generated_mass == pytest.approx(mean(masses))
    assert found.expected_mass == pytest.approx(mean(expected))
    assert found.entropy_ratio == pytest.approx(mean(ratios))

    both = [(mined, made) for mined, made in cosines if mined and made]
    within = [(g > m) + 0.5 * (g == m) for mined, made in both for g in made for m in mined]
    over = [
        (g > m) + 0.5 * (g == m)
        for g in [s for _, made in both for s in made]
        for m in [s for ms, _ in both for s in ms]
    ]
    assert found.within_query_auc == pytest.approx(mean(within))
    assert found.auc == pytest.approx(mean(over))
    assert found.mutual_information is None  # too few


def test_gradients_are_those_of_autograd() -> None:
    """With respect to the embedding before it is normalised, at length 1."""
    counts = [(2, 2), (3, 1), (5, 2), (1, 4), (4, 0), (0, 3)]
    query, positive, negatives, mask, generated = _rows(counts)
    query, positive = query.double(), positive.double()
    negatives = negatives.nan_to_num(0.0).double()
    raw = query.clone().requires_grad_()
    unit = torch.nn.functional.normalize(raw, dim=-1)
    total = torch.zeros((), dtype=torch.float64)
    for r in range(len(counts)):
        scores = torch.cat([positive[r : r + 1], negatives[r, mask[r]]]) @ unit[r] / 0.2
        total = total - scores.log_softmax(0)[0]
    total.backward()
    parts = query_gradients(query, positive, negatives, mask, generated, 0.2)
    torch.testing.assert_close(sum(parts), raw.grad, rtol=1e-5, atol=1e-6)  # queries have length 1 in single precision


def test_gradient_share_and_cosine() -> None:
    rows = _rows([(2, 2), (3, 1), (4, 0), (0, 3), (1, 3)])
    query, positive, negatives, mask, generated = rows
    shares, cosines = [], []
    for r in (0, 1, 4):
        candidates = torch.cat([positive[r : r + 1], negatives[r, mask[r]]]).double()
        p = (candidates @ query[r].double() / SETTINGS.temperature).softmax(0)[1:]
        flat = torch.eye(8).double() - torch.outer(query[r], query[r]).double()
        by = [flat @ (p[kind] @ candidates[1:][kind]) for kind in (~generated[r, mask[r]], generated[r, mask[r]])]
        shares.append(float(by[1].norm() / (by[0].norm() + by[1].norm())))
        cosines.append(float(torch.nn.functional.cosine_similarity(by[0], by[1], dim=0)))
    found = measure(*rows, SETTINGS, seed=0)
    assert found.gradient_share == pytest.approx(sum(shares) / 3, rel=1e-5)
    assert found.gradient_cosine == pytest.approx(sum(cosines) / 3, rel=1e-5)


def test_alike_sources_cannot_be_told_apart() -> None:
    found = measure(*_rows([(4, 3)] * 80), SETTINGS, seed=0)
    assert found.mutual_information_low == 0.0
    assert found.mutual_information is not None
    assert found.mutual_information < 0.05
    assert found.auc == pytest.approx(0.5, abs=0.05)
    assert found.within_query_auc == pytest.approx(0.5, abs=0.06)
    assert found.generated_mass == pytest.approx(found.expected_mass, abs=0.05)


def test_sources_apart() -> None:
    found = measure(*_rows([(4, 3)] * 80, moved=20.0), SETTINGS, seed=0)
    entropy = -(3 / 7 * math.log(3 / 7) + 4 / 7 * math.log(4 / 7))
    assert found.mutual_information == pytest.approx(entropy, abs=0.03)
    assert found.auc is not None
    assert found.auc > 0.99
    assert found.entropy_ratio == pytest.approx(1.0, abs=0.01)
    assert found.generated_mass is not None
    assert found.expected_mass is not None
    assert found.generated_mass > found.expected_mass
    assert found.gradient_share is not None
    assert 0.0 <= found.gradient_share <= 1.0


def test_equal_similarities_count_half() -> None:
    query = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[[0.6, 0.8], [0.6, -0.8], [0.6, 0.8]]])
    found = measure(
        query, query, negatives, torch.ones(1, 3).bool(), torch.tensor([[False, True, True]]), SETTINGS, seed=0
    )
    assert (found.auc, found.within_query_auc) == (0.5, 0.5)
    assert found.entropy_ratio == pytest.approx(1.0)
    assert found.gradient_share == pytest.approx(0.0, abs=1e-6)  # one up and one down: their pulls cancel


@pytest.mark.parametrize("counts", [[(4, 0), (2, 0)], []], ids=["mined only", "no row"])
def test_without_generated_negatives(counts: list[tuple[int, int]]) -> None:
    rows = _rows(counts) if counts else tuple(t[:0] for t in _rows([(1, 1)]))
    found = measure(*rows, SETTINGS, seed=0)
    assert all(getattr(found, name) is None for name in OF_SOURCE)
    assert (found.positive_cosine is None) == (not counts)
    assert (found.mined_cosine is None) == (not counts)


def test_generated_only() -> None:
    found = measure(*_rows([(0, 3), (0, 1)]), SETTINGS, seed=0)
    assert (found.generated_mass, found.expected_mass) == (1.0, 1.0)
    assert (found.auc, found.gradient_share, found.mined_cosine) == (None, None, None)
    assert found.entropy_ratio is not None


def test_low_temperature_leaves_no_nan() -> None:
    """A positive that takes all there is still leaves shares to compare."""
    query, _, negatives, mask, generated = _rows([(3, 2)] * 4)
    found = measure(query, query, negatives, mask, generated, LossSettings(temperature=1e-5), seed=0)
    assert all(v is None or math.isfinite(v) for v in found.model_dump().values())


def test_any_dtype_and_no_gradients() -> None:
    query, positive, negatives, mask, generated = _rows([(4, 3)] * 20)
    rows = (query.bfloat16().requires_grad_(), positive.bfloat16(), negatives.bfloat16(), mask, generated)
    found = measure(*rows, SETTINGS, seed=0)
    assert isinstance(found, Figures)
    assert rows[0].grad is None
    assert found.auc == pytest.approx(measure(query, *rows[1:], SETTINGS, seed=0).auc, abs=0.05)
