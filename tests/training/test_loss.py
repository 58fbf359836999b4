"""The loss against a plain-Python one, and its invariants."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from causalneg.training.loss import LossSums, loss_sums

TAU, TAU_ENT, WEIGHT = 0.05, 0.1, 0.05


class Case(NamedTuple):
    """A batch; negatives `[rows, width, dim]` with their masks."""

    query: Tensor
    positive: Tensor
    negatives: Tensor
    mask: Tensor
    generated: Tensor

    def rows(self, rows: slice) -> "Case":
        """Return some of the rows."""
        return Case(*(t[rows] for t in self))


def _case(counts: Sequence[tuple[int, int]], width: int, seed: int = 0, dim: int = 8) -> Case:
    """Draw vectors; row r has counts[r] = (mined, generated) negatives, and noise where it is padded."""
    generator = torch.Generator().manual_seed(seed)

    def vectors(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, dim, generator=generator)
        # Alike enough that no softmax is saturated.
        return torch.nn.functional.normalize(drawn + 3.0, dim=-1).requires_grad_()

    mask, generated = torch.zeros(len(counts), width).bool(), torch.zeros(len(counts), width).bool()
    for r, (mined, made) in enumerate(counts):
        mask[r, : mined + made] = True
        generated[r, mined : mined + made] = True
    return Case(vectors(len(counts)), vectors(len(counts)), vectors(len(counts), width), mask, generated)


def _sums(case: Case) -> LossSums:
    return loss_sums(*case, temperature=TAU, entropy_temperature=TAU_ENT)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _plain(case: Case) -> dict[str, float]:
    """The formulas of the paper, one row at a time, with floats of Python."""
    info, entropies, balances, masses = [], [], [], []
    for r in range(len(case.query)):
        q, p = case.query[r].tolist(), case.positive[r].tolist()
        chosen = [
            (case.negatives[r, n].tolist(), bool(case.generated[r, n]))
            for n in range(case.mask.shape[1])
            if case.mask[r, n]
        ]
        logits = [_dot(q, d) / TAU for d in [p] + [vector for vector, _ in chosen]]
        info.append(math.log(math.fsum(math.exp(s) for s in logits)) - logits[0])
        n_g = sum(made for _, made in chosen)
        if not n_g:
            continue
        weights = [math.exp(_dot(q, vector) / TAU_ENT) for vector, _ in chosen]
        probabilities = [w / math.fsum(weights) for w in weights]
        of_generated = [x for x, (_, made) in zip(probabilities, chosen, strict=True) if made]
        mass = math.fsum(of_generated)
        entropies.append(-math.fsum(x / mass * math.log(x / mass) for x in of_generated))
        balances.append((mass - n_g / len(chosen)) ** 2)
        masses.append(mass)
    total = math.fsum(info) / len(info)
    if entropies:
        total += WEIGHT * (math.fsum(balances) - math.fsum(entropies)) / len(entropies)
    return {
        "info_nce": math.fsum(info),
        "entropy": math.fsum(entropies),
        "balance": math.fsum(balances),
        "generated_mass": math.fsum(masses),
        "generated_rows": len(masses),
        "total": total,
    }


COUNTS = [
    [(15, 3), (15, 3)],
    [(14, 3), (2, 1), (0, 3), (5, 0), (1, 0), (0, 1)],
    [(3, 0), (2, 0)],
]


@pytest.mark.parametrize("counts", COUNTS)
def test_value_is_that_of_the_formulas(counts: list[tuple[int, int]]) -> None:
    case = _case(counts, 18)
    sums, expected = _sums(case), _plain(case)
    total = sums.total(len(counts), int(sums.generated_rows), WEIGHT)
    found = {name: float(getattr(sums, name).detach()) for name in expected if name != "total"}
    assert found | {"total": float(total.detach())} == pytest.approx(expected, rel=2e-5, abs=1e-6)
    assert int(sums.rows) == len(counts)


def test_known_values() -> None:
    # Equal scores everywhere: InfoNCE is log of the candidates, entropy log of the generated, balance 0.
    vector = torch.tensor([1.0, 0.0])
    case = Case(
        vector.expand(1, 2),
        vector.expand(1, 2),
        vector.expand(1, 4, 2),
        torch.ones(1, 4).bool(),
        torch.tensor([[False, False, True, True]]),
    )
    sums = _sums(case)
    assert float(sums.info_nce) == pytest.approx(math.log(5))
    assert float(sums.entropy) == pytest.approx(math.log(2))
    assert float(sums.balance) == pytest.approx(0.0, abs=1e-12)
    assert float(sums.generated_mass) == pytest.approx(0.5)
    assert float(sums.expected_mass) == pytest.approx(0.5)


def _gradients(case: Case, parts: Sequence[slice]) -> list[Tensor]:
    """Gradients of the whole batch's loss, computed part by part as workers do and added up."""
    leaves = [case.query, case.positive, case.negatives]
    generated_rows = int((case.generated & case.mask).any(dim=1).sum())
    result = [torch.zeros_like(leaf) for leaf in leaves]
    for part in parts:
        share = _sums(case.rows(part)).total(len(case.query), generated_rows, WEIGHT)
        for total, gradient in zip(result, torch.autograd.grad(share, leaves), strict=True):
            total += gradient
    return result


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_two_workers_are_one(counts: list[tuple[int, int]], cut: int) -> None:
    # So λ weighs the same however many workers there are, also when a part is empty or has no generated ones.
    case = _case(counts, 18)
    whole = _sums(case)
    parts = [_sums(case.rows(s)) for s in (slice(0, cut), slice(cut, None))]
    for name in LossSums._fields:
        added = sum(float(getattr(p, name).detach()) for p in parts)
        assert added == pytest.approx(float(getattr(whole, name).detach()), rel=1e-5, abs=1e-6)
    one = _gradients(case, [slice(None)])
    two = _gradients(case, [slice(0, cut), slice(cut, None)])
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("counts", COUNTS)
def test_padding_changes_nothing(counts: list[tuple[int, int]]) -> None:
    widest = max(m + g for m, g in counts)
    wide = _case(counts, widest + 5)
    narrow = Case(
        wide.query, wide.positive, wide.negatives[:, :widest], wide.mask[:, :widest], wide.generated[:, :widest]
    )
    for a, b in zip(_sums(wide), _sums(narrow), strict=True):
        torch.testing.assert_close(a, b)
    gradient = _gradients(wide, [slice(None)])[2]
    assert gradient[~wide.mask].abs().sum() == 0
    noisy = wide._replace(negatives=torch.where(wide.mask[..., None], wide.negatives, torch.tensor(-7.0)))
    for a, b in zip(_sums(wide), _sums(noisy), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("part", ["entropy", "balance"])
def test_only_generated_negatives_get_the_entropy_gradient(part: str) -> None:
    case = _case(COUNTS[1], 18)
    query, positive, negatives = torch.autograd.grad(
        getattr(_sums(case), part),
        [case.query, case.positive, case.negatives],
        allow_unused=True,
        materialize_grads=True,
    )
    assert query.abs().sum() == 0
    assert positive.abs().sum() == 0
    assert negatives[~case.generated].abs().sum() == 0
    several = case.generated & (case.mask.sum(1, keepdim=True) > 1)
    assert (negatives[several].abs().sum(-1) > 0).any()


@pytest.mark.parametrize("counts", [[(0, 0)], [(3, 0)], [(3, 1)], [(0, 1)], [(0, 3)], [(0, 0), (2, 2)]])
def test_gradients_are_finite_in_odd_rows(counts: list[tuple[int, int]]) -> None:
    case = _case(counts, 4)
    for gradient in _gradients(case, [slice(None)]):
        assert gradient.isfinite().all()
    sums = _sums(case)
    if sum(g for _, g in counts) == 1:
        assert float(sums.entropy.detach()) == 0.0


def test_entropy_gradient_evens_out_the_generated_ones() -> None:
    case = _case([(2, 3)], 5)
    step = torch.autograd.grad(-_sums(case).entropy, case.negatives)[0]
    after = case._replace(negatives=(case.negatives - 0.01 * step).detach())
    assert float(_sums(after).entropy.detach()) > float(_sums(case).entropy.detach())
