"""The loss against a plain-Python one, and its invariants."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_loss import Case, draw, plain_sums
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from causalneg.config import LossSettings
from causalneg.errors import UserError
from causalneg.margins import relative_score
from causalneg.training.objective.loss import Counts, LossSums, Shared, count, loss

PUBLISHED = LossSettings()
COUNTS = [
    [(15, 3), (15, 3)],
    [(14, 3), (2, 1), (0, 3), (5, 0), (1, 0), (0, 1)],
    [(3, 0), (2, 0)],
]
ODD = [[(0, 0)], [(3, 0)], [(3, 1)], [(0, 1)], [(0, 3)], [(0, 0), (2, 2)]]
# Every part alone, and all at once.
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "weights": {"draw": {"weights": True}},
    "hardness": {"hardness": 5.0},
    "false negatives": {"false_negative_margin": 0.05},
    "false negatives, relative": {"false_negative_margin": 0.05, "false_negative_kind": "relative"},
    "false negatives, generated too": {"false_negative_margin": 0.05, "exempt_generated": False},
    "kl": {"distillation": "kl", "distillation_temperature": 2.0, "draw": {"teacher": True}},
    "margin_mse": {"distillation": "margin_mse", "distillation_temperature": 3.0, "draw": {"teacher": True}},
    "teacher unused": {"draw": {"teacher": True}},
    "shared": {"draw": {"extra": 7}},
    "everything": {
        "contrastive_weight": 0.7,
        "entropy_weight": 2.0,
        "hardness": 3.0,
        "false_negative_margin": 0.02,
        "exempt_generated": False,
        "distillation": "kl",
        "distillation_weight": 0.4,
        "draw": {"weights": True, "teacher": True, "extra": 7},
    },
}


def _variant(name: str, counts: Sequence[tuple[int, int]], width: int) -> tuple[Case, LossSettings]:
    values = dict(VARIANTS[name])
    drawn = values.pop("draw", {})
    return draw(counts, width, **drawn), LossSettings(**values)


def _count(case: Case) -> Counts:
    return count(case.mask.numpy(), case.generated.numpy(), _numpy(case.teacher), _numpy(case.log_weight))


def _numpy(tensor: Tensor | None) -> Any:  # noqa: ANN401
    return None if tensor is None else tensor.numpy()


def _values(sums: LossSums) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in sums._asdict().items()}


def _total(case: Case, settings: LossSettings, counts: Counts | None = None) -> Tensor:
    return loss(
        *case[:5],
        settings,
        counts=counts or _count(case),
        log_weight=case.log_weight,
        teacher=case.teacher,
        shared=case.shared,
    )[0]


def _gradients(
    case: Case, settings: LossSettings, parts: Sequence[slice] = (slice(None),), counts: Counts | None = None
) -> list[Tensor]:
    """Gradients of the whole batch's loss, computed part by part as workers do and added up."""
    counts = counts or _count(case)
    result = [torch.zeros_like(leaf) for leaf in case.leaves]
    for part in parts:
        share = _total(case.rows(part), settings, counts)
        for total, gradient in zip(result, torch.autograd.grad(share, case.leaves), strict=True):
            total += gradient
    return result


def _assert_same(a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("counts", [*COUNTS, *ODD])
@pytest.mark.parametrize("variant", VARIANTS)
def test_value_is_that_of_the_formulas(variant: str, counts: list[tuple[int, int]]) -> None:
    case, settings = _variant(variant, counts, 18)
    sums, expected = case.sums(settings), plain_sums(case, settings)
    found = _values(sums) | {"total": float(sums.total(_count(case), settings).detach())}
    assert found == pytest.approx(expected, rel=2e-5, abs=2e-6)
    assert float(_total(case, settings).detach()) == pytest.approx(expected["total"], rel=2e-5, abs=2e-6)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=5),
    st.integers(0, 1000),
    st.sampled_from(list(VARIANTS)),
    st.sampled_from([0.02, 0.1, 1.0]),
)
def test_value_is_that_of_the_formulas_for_any_batch(
    counts: list[tuple[int, int]], seed: int, variant: str, temperature: float
) -> None:
    values = dict(VARIANTS[variant])
    case = draw(counts, 8, seed, **values.pop("draw", {}))
    settings = LossSettings(**values, temperature=temperature, entropy_temperature=2 * temperature)
    expected = plain_sums(case, settings)
    del expected["total"]
    assert _values(case.sums(settings)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_variants_try_what_they_say() -> None:
    case, settings = _variant("everything", COUNTS[1], 18)
    found = _values(case.sums(settings))
    assert found["false_negatives"] > 0
    assert found["distillation"] > 0
    assert 0 < found["teacher_rows"] < found["rows"]
    assert (case.mask & (case.log_weight == -math.inf)).any()
    assert len(torch.unique(case.shared.mask)) == 2
    for kind in ("false negatives", "false negatives, relative", "false negatives, generated too"):
        assert _values(_variant(kind, COUNTS[0], 18)[0].sums(_variant(kind, COUNTS[0], 18)[1]))["false_negatives"] > 0


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
    found = _values(case.sums(PUBLISHED))
    assert found["info_nce"] == pytest.approx(math.log(5))
    assert found["entropy"] == pytest.approx(math.log(2))
    assert found["balance"] == pytest.approx(0.0, abs=1e-12)
    assert found["generated_mass"] == pytest.approx(0.5)
    assert found["expected_mass"] == pytest.approx(0.5)
    # A weight counts like so many of it, the hardness like a factor of exp of it.
    weighted = case._replace(log_weight=torch.tensor([[math.log(3), -math.inf, 0, 0]]))
    assert _values(weighted.sums(PUBLISHED))["info_nce"] == pytest.approx(math.log(1 + 3 + 0 + 1 + 1))
    hard = LossSettings(hardness=math.log(2))
    assert _values(case.sums(hard))["info_nce"] == pytest.approx(math.log(1 + 4 * 2))
    shared = Shared(vector.expand(2, 2), torch.tensor([[True, False]]), torch.zeros(2).bool(), torch.zeros(2))
    assert _values(case._replace(shared=shared).sums(PUBLISHED))["info_nce"] == pytest.approx(math.log(6))


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("cut", [0, 1, 2])
@pytest.mark.parametrize("variant", ["published", "everything"])
def test_two_workers_are_one(variant: str, counts: list[tuple[int, int]], cut: int) -> None:
    # So λ weighs the same however many workers there are, also when a part is empty or has no generated ones.
    case, settings = _variant(variant, counts, 18)
    settings = settings.model_copy(update={"matryoshka_dims": [3]})
    if case.shared:  # as with `global`: the positives of both parts, one's own left out
        others = ~torch.eye(len(counts)).bool()
        passages = torch.cat([case.positive, case.shared.passages])
        generated = torch.cat([torch.zeros(len(counts)).bool(), case.shared.generated])
        log_weight = torch.cat([torch.zeros(len(counts)), case.shared.log_weight])
        case = case._replace(
            shared=Shared(passages, torch.cat([others, case.shared.mask], 1), generated, log_weight),
        )
    halves = [slice(0, cut), slice(cut, None)]
    whole, parts = _values(case.sums(settings)), [_values(case.rows(half).sums(settings)) for half in halves]
    assert {name: parts[0][name] + parts[1][name] for name in whole} == pytest.approx(whole, rel=1e-5, abs=1e-6)
    added = sum(float(_total(case.rows(half), settings, _count(case)).detach()) for half in halves)
    assert added == pytest.approx(float(_total(case, settings).detach()), rel=1e-5)
    _assert_same(_gradients(case, settings), _gradients(case, settings, halves))


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant: str, counts: list[tuple[int, int]]) -> None:
    widest = max(m + g for m, g in counts)
    wide, settings = _variant(variant, counts, widest + 5)
    narrow = wide._replace(
        negatives=wide.negatives[:, :widest],
        mask=wide.mask[:, :widest],
        generated=wide.generated[:, :widest],
        log_weight=None if wide.log_weight is None else wide.log_weight[:, :widest],
        teacher=None if wide.teacher is None else wide.teacher[:, : 1 + widest],
    )
    expected = _values(narrow.sums(settings))
    assert _values(wide.sums(settings)) == pytest.approx(expected, rel=1e-6)
    gradient = _gradients(wide, settings)[2]
    assert gradient[~wide.mask].abs().sum() == 0
    noisy = wide._replace(
        negatives=torch.where(wide.mask[..., None], wide.negatives, torch.tensor(-7.0)),
        generated=wide.generated | ~wide.mask,
    )
    assert _values(noisy.sums(settings)) == pytest.approx(expected, rel=1e-6)


def test_where_a_negative_stands_says_nothing_of_its_source() -> None:
    # The published code files a generated one as mined in a row with 14 mined negatives.
    case = draw([(14, 3), (15, 3)], 18)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    moved = case._replace(
        negatives=case.negatives[:, order], mask=case.mask[:, order], generated=case.generated[:, order]
    )
    assert _values(moved.sums(PUBLISHED)) == pytest.approx(_values(case.sums(PUBLISHED)), rel=1e-5)
    first, second = _gradients(case, PUBLISHED), _gradients(moved, PUBLISHED)
    torch.testing.assert_close(first[2][:, order], second[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("part", ["entropy", "balance"])
@pytest.mark.parametrize("variant", ["published", "everything"])
def test_only_generated_negatives_get_the_entropy_gradient(part: str, variant: str) -> None:
    case, settings = _variant(variant, COUNTS[1], 18)
    found = torch.autograd.grad(
        getattr(case.sums(settings), part), case.leaves, allow_unused=True, materialize_grads=True
    )
    query, positive, negatives, *shared = found
    assert query.abs().sum() == 0
    assert positive.abs().sum() == 0
    assert negatives[~case.generated].abs().sum() == 0
    assert sum(float(s.abs().sum()) for s in shared) == 0
    several = case.generated & (case.mask.sum(1, keepdim=True) > 1)
    assert (negatives[several].abs().sum(-1) > 0).any()


def test_the_entropy_gradient_is_that_of_the_formulas() -> None:
    case = draw([(4, 3), (0, 2), (2, 0)], 8)
    sums = case.sums(PUBLISHED)
    (found,) = torch.autograd.grad(sums.balance - sums.entropy, [case.negatives])
    negatives = case.negatives.detach().double().requires_grad_()
    result = torch.zeros((), dtype=torch.float64)
    for r in range(2):
        q, made = case.query[r].detach().double(), case.generated[r]
        mined = case.mask[r] & ~made
        s = torch.cat([negatives[r, mined].detach() @ q, negatives[r, made] @ q]) / PUBLISHED.entropy_temperature
        p = torch.softmax(s, 0)[int(mined.sum()) :]
        share = p / p.sum()
        result = result + (p.sum() - len(p) / len(s)) ** 2 + (share * share.log()).sum()
    (expected,) = torch.autograd.grad(result, [negatives])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("counts", ODD)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_finite_in_odd_rows(variant: str, counts: list[tuple[int, int]]) -> None:
    case, settings = _variant(variant, counts, 4)
    settings = settings.model_copy(update={"matryoshka_dims": [2]})
    for gradient in _gradients(case, settings):
        assert gradient.isfinite().all()
    if sum(g for _, g in counts) == 1:
        assert float(case.sums(settings).entropy.detach()) == 0.0


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_without_room_for_negatives(variant: str) -> None:
    case, settings = _variant(variant, [(0, 0), (0, 0)], 0)
    expected = plain_sums(case, settings)
    found = case.sums(settings)
    assert _values(found) == pytest.approx({n: expected[n] for n in LossSums._fields}, rel=1e-5, abs=1e-6)
    for gradient in _gradients(case, settings):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("distillation", ["none", "kl", "margin_mse"])
def test_gradients_are_finite_where_everything_is_left_out(distillation: str) -> None:
    case = draw([(2, 2), (1, 0)], 4, teacher=True, extra=3)
    nothing = case._replace(
        log_weight=torch.full((2, 4), -math.inf),
        teacher=torch.full((2, 5), math.nan),
        shared=case.shared._replace(log_weight=torch.full((3,), -math.inf)),
    )
    settings = LossSettings(distillation=distillation, hardness=2.0, false_negative_margin=-1.0)
    assert all(value == 0 for name, value in _values(nothing.sums(settings)).items() if name != "rows")
    for gradient in _gradients(nothing, settings):
        assert gradient.abs().sum() == 0
    # Far apart and at a low temperature, where a softmax is saturated.
    far = case._replace(positive=(-case.query.detach()).requires_grad_())
    cold = LossSettings(temperature=0.001, entropy_temperature=0.001, distillation=distillation, hardness=2.0)
    for gradient in _gradients(far, cold):
        assert gradient.isfinite().all()


def test_a_weight_of_0_is_an_absent_negative() -> None:
    case = draw([(3, 2), (2, 1)], 5, teacher=True, extra=4)
    out = torch.zeros(2, 5).bool()
    out[0, 1] = out[0, 4] = out[1, 2] = True  # row 1 loses its only generated one
    weighted = case._replace(
        log_weight=torch.zeros(2, 5).masked_fill(out, -math.inf),
        shared=case.shared._replace(log_weight=torch.tensor([0, -math.inf, 0, 0])),
    )
    competes = case.shared.mask & torch.tensor([True, False, True, True])
    masked = case._replace(mask=case.mask & ~out, shared=case.shared._replace(mask=competes))
    settings = LossSettings(distillation="kl")
    assert _values(weighted.sums(settings)) == pytest.approx(_values(masked.sums(settings)), rel=1e-6)
    assert _values(weighted.sums(settings))["generated_rows"] == 1
    assert _count(weighted) == _count(masked)
    _assert_same(_gradients(weighted, settings), _gradients(masked, settings))
    assert _gradients(weighted, settings)[2][out].abs().sum() == 0


def test_weights_and_false_negatives_leave_the_entropy_alone() -> None:
    case = draw([(5, 3), (4, 2)], 8)
    weighted = case._replace(log_weight=torch.rand(2, 8, generator=torch.Generator().manual_seed(3)) - 0.5)
    settings = LossSettings(false_negative_margin=1.0, exempt_generated=False, hardness=4.0)
    found, expected = _values(weighted.sums(settings)), _values(case.sums(PUBLISHED))
    assert found["false_negatives"] == 14
    assert found["info_nce"] == pytest.approx(0.0, abs=1e-6)
    for name in ("entropy", "balance", "generated_mass", "expected_mass", "generated_rows"):
        assert found[name] == expected[name]


@pytest.mark.parametrize("kind", ["absolute", "relative"])
@pytest.mark.parametrize("exempt", [True, False])
def test_false_negatives_are_really_left_out(kind: str, exempt: bool) -> None:
    # In the published code this is a flag with no code behind it.
    case = draw([(6, 3), (3, 4)], 9, extra=5)
    settings = LossSettings(false_negative_margin=0.03, false_negative_kind=kind, exempt_generated=exempt)
    positive = (case.query * case.positive).sum(-1, keepdim=True).detach()
    own = torch.einsum("rd,rnd->rn", case.query, case.negatives).detach()
    shared = (case.query @ case.shared.passages.T).detach()

    def kept(cosine: Tensor, generated: Tensor, mask: Tensor) -> Tensor:
        result = mask.clone()
        for r in range(len(mask)):
            for n in range(mask.shape[1]):
                p, c = float(positive[r]), float(cosine[r, n])
                near = c > p - 0.03 if kind == "absolute" else relative_score(c, p) > 1 - 0.03
                result[r, n] &= not near or (exempt and bool(generated[r, n]))
        return result

    own_kept = kept(own, case.generated, case.mask)
    shared_kept = kept(shared, case.shared.generated.expand(2, 5), case.shared.mask)
    masked = case._replace(mask=own_kept, shared=case.shared._replace(mask=shared_kept))
    found, expected = case.sums(settings), masked.sums(PUBLISHED)
    assert float(found.info_nce.detach()) == pytest.approx(float(expected.info_nce.detach()), rel=1e-6)
    left = int((case.mask & ~own_kept).sum() + (case.shared.mask & ~shared_kept).sum())
    assert int(found.false_negatives) == left > 0
    assert left < int(case.mask.sum() + case.shared.mask.sum())
    _assert_same(torch.autograd.grad(found.info_nce, case.leaves), torch.autograd.grad(expected.info_nce, case.leaves))


def test_the_relative_margin_holds_for_negative_cosines() -> None:
    query = torch.tensor([[1.0, 0.0]])
    positive = torch.tensor([[-0.5, 0.75**0.5]])
    negatives = normalize(torch.tensor([[[-0.45, 0.9], [-0.51, 0.86], [-0.53, 0.84], [-0.9, 0.1]]]), dim=-1)
    settings = LossSettings(false_negative_margin=0.05, false_negative_kind="relative")
    mask = torch.ones(1, 4).bool()
    case = Case(query, positive, negatives, mask, ~mask)
    cosines = (negatives[0] @ query[0]).tolist()
    expected = sum(relative_score(c, -0.5) > 0.95 for c in cosines)
    assert float(case.sums(settings).false_negatives) == expected == 2


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_candidate_at_the_margin_is_kept(kind: str) -> None:
    vector, mask = torch.tensor([1.0, 0.0]), torch.ones(1, 2).bool()
    case = Case(vector.expand(1, 2), vector.expand(1, 2), vector.expand(1, 2, 2), mask, ~mask)
    for margin, expected in ((0.0, 0), (0.01, 2)):
        settings = LossSettings(false_negative_margin=margin, false_negative_kind=kind)
        assert float(case.sums(settings).false_negatives) == expected


def test_hardness_passes_no_gradient() -> None:
    # The shift is a constant: the gradient is that of InfoNCE with the same numbers as weights.
    case = draw([(4, 2)], 6, extra=3)
    cosine = torch.einsum("rd,rnd->rn", case.query, case.negatives).detach()
    shared = (case.query @ case.shared.passages.T).detach()[0]
    as_weights = case._replace(log_weight=7 * cosine, shared=case.shared._replace(log_weight=7 * shared))
    _assert_same(_gradients(case, LossSettings(hardness=7.0)), _gradients(as_weights, PUBLISHED))


@pytest.mark.parametrize("weights", [None, [0.5, 2.0]])
@pytest.mark.parametrize("variant", ["published", "everything"])
def test_smaller_dimensions_are_the_loss_of_shorter_vectors(weights: list[float] | None, variant: str) -> None:
    case, settings = _variant(variant, COUNTS[1], 18)
    several = settings.model_copy(update={"matryoshka_dims": [4, 2], "matryoshka_weights": weights})
    expected = plain_sums(case, settings)["total"]
    for dim, weight in zip([4, 2], weights or [1.0, 1.0], strict=True):

        def first(vectors: Tensor, dim: int = dim) -> Tensor:
            return normalize(vectors.detach().double()[..., :dim], dim=-1)

        short = case._replace(
            query=first(case.query),
            positive=first(case.positive),
            negatives=first(case.negatives),
            shared=case.shared and case.shared._replace(passages=first(case.shared.passages)),
        )
        expected += weight * plain_sums(short, settings)["total"]
    found, sums = loss(
        *case[:5],
        several,
        counts=_count(case),
        log_weight=case.log_weight,
        teacher=case.teacher,
        shared=case.shared,
    )
    assert float(found.detach()) == pytest.approx(expected, rel=2e-5)
    assert _values(sums) == _values(case.sums(settings))


def test_too_large_a_dimension_is_refused() -> None:
    case = draw([(2, 1)], 3)
    with pytest.raises(UserError, match=r"matryoshka_dims has 9, .* have 8 dimensions"):
        _total(case, LossSettings(matryoshka_dims=[4, 9]))


@pytest.mark.parametrize("counts", [*COUNTS, *ODD])
@pytest.mark.parametrize("variant", ["published", "everything"])
def test_counts_are_those_of_the_loss(variant: str, counts: list[tuple[int, int]]) -> None:
    case, settings = _variant(variant, counts, 18)
    sums = case.sums(settings)
    expected = [int(sums.rows), int(sums.generated_rows), int(sums.teacher_rows)]
    assert list(_count(case)) == expected
    assert all(isinstance(value, int) for value in _count(case))
    on_device = count(case.mask, case.generated, case.teacher, case.log_weight)
    assert [int(value) for value in on_device] == expected
    by_tensors = Counts(*(torch.as_tensor(value) for value in on_device))
    totals = [sums.total(c, settings).detach() for c in (by_tensors, _count(case))]
    assert float(totals[0]) == float(totals[1])


def test_sums_stack_in_their_order() -> None:
    case, settings = _variant("everything", COUNTS[1], 18)
    sums = case.sums(settings)
    stacked = sums.stacked()
    assert not stacked.requires_grad
    assert stacked.tolist() == list(_values(sums).values())


def test_half_precision_stays_outside() -> None:
    case, settings = _variant("everything", COUNTS[1], 18)
    expected = _values(case.sums(settings))
    with torch.autocast("cpu", torch.bfloat16):
        found = case.sums(settings)
    assert all(value.dtype is torch.float32 for value in found)
    assert _values(found) == expected
    half = case._replace(query=case.query.detach().bfloat16())
    assert half.sums(settings).info_nce.dtype is torch.float32


class _Recorded(TorchDispatchMode):
    """What torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(  # noqa: ANN204
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_loop_over_rows_and_no_wait_for_the_device(variant: str) -> None:
    recorded = []
    for rows in (2, 50):
        case, settings = _variant(variant, [(3, 2)] * rows, 6)
        counts = _count(case)
        with _Recorded() as record:
            torch.autograd.grad(_total(case, settings, counts), case.leaves)
        recorded.append(record.names)
    assert recorded[0] == recorded[1]
    # What brings a number or a shape back from the device, and what copies a number to it.
    assert not {"_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "unique"} & set(recorded[0])


def test_entropy_gradient_evens_out_the_generated_ones() -> None:
    case = draw([(2, 3)], 5)
    step = torch.autograd.grad(-case.sums(PUBLISHED).entropy, case.negatives)[0]
    after = case._replace(negatives=(case.negatives - 0.01 * step).detach())
    assert _values(after.sums(PUBLISHED))["entropy"] > _values(case.sums(PUBLISHED))["entropy"]
