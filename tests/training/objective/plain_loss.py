"""The loss one row at a time with floats of Python, from its formulas and not from its code; and batches to try."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from causalneg.config import LossSettings
from causalneg.margins import relative_score
from causalneg.training.objective.loss import LossSums, Shared, loss_sums

Vector = Sequence[float]


class Case(NamedTuple):
    """A batch; negatives `[rows, width, dim]` with their masks, and what else the loss may get."""

    query: Tensor
    positive: Tensor
    negatives: Tensor
    mask: Tensor
    generated: Tensor
    log_weight: Tensor | None = None
    teacher: Tensor | None = None
    shared: Shared | None = None

    @property
    def leaves(self) -> list[Tensor]:
        """Everything that gets a gradient."""
        return [self.query, self.positive, self.negatives, *([self.shared.passages] if self.shared else [])]

    def rows(self, rows: slice) -> "Case":
        """Return some of the rows, with the same shared passages."""
        parts = {name: value[rows] for name, value in self._asdict().items() if isinstance(value, Tensor)}
        if self.shared:
            parts["shared"] = self.shared._replace(mask=self.shared.mask[rows])
        return self._replace(**parts)

    def sums(self, settings: LossSettings) -> LossSums:
        """Return the sums of the loss."""
        return loss_sums(*self[:5], settings, log_weight=self.log_weight, teacher=self.teacher, shared=self.shared)


def draw(
    counts: Sequence[tuple[int, int]],
    width: int,
    seed: int = 0,
    dim: int = 8,
    *,
    weights: bool = False,
    teacher: bool = False,
    extra: int = 0,
) -> Case:
    """Draw a batch; row r has counts[r] = (mined, generated) negatives, and noise where it is padded.

    With `weights` some are 0; with `teacher` some scores are missing; of `extra` shared passages each competes for
    some of the rows only.
    """
    generator = torch.Generator().manual_seed(seed)

    def vectors(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, dim, generator=generator)
        # Alike enough that no softmax is saturated.
        return torch.nn.functional.normalize(drawn + 3.0, dim=-1).requires_grad_()

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def log_weights(*shape: int) -> Tensor:
        return torch.where(uniform(*shape) < 0.2, -math.inf, uniform(*shape) * 3 - 1.5)

    rows = len(counts)
    mask, generated = torch.zeros(rows, width).bool(), torch.zeros(rows, width).bool()
    for r, (mined, made) in enumerate(counts):
        mask[r, : mined + made] = True
        generated[r, mined : mined + made] = True
    case = Case(vectors(rows), vectors(rows), vectors(rows, width), mask, generated)
    if weights:
        case = case._replace(log_weight=log_weights(rows, width))
    if teacher:
        scores = uniform(rows, 1 + width) * 4
        case = case._replace(teacher=torch.where(uniform(rows, 1 + width) < 0.2, math.nan, scores))
    if extra:
        log_weight = log_weights(extra) if weights else torch.zeros(extra)
        shared = Shared(vectors(extra), uniform(rows, extra) < 0.7, uniform(extra) < 0.3, log_weight)
        case = case._replace(shared=shared)
    return case


def dot(a: Vector, b: Vector) -> float:
    """Return the scalar product."""
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def _too_near(cosine: float, positive: float, settings: LossSettings) -> bool:
    if settings.false_negative_margin is None:
        return False
    if settings.false_negative_kind == "absolute":
        return cosine > positive - settings.false_negative_margin
    return relative_score(cosine, positive) > 1 - settings.false_negative_margin


class _Negative(NamedTuple):
    cosine: float
    generated: bool
    weight: float
    score: float = math.nan


def _held(case: Case, r: int) -> tuple[list[_Negative], list[_Negative]]:
    """Return row r's own and shared negatives, without those of weight 0."""
    q = case.query[r].tolist()
    own = []
    for n in range(case.mask.shape[1]):
        if case.mask[r, n]:
            weight = 1.0 if case.log_weight is None else math.exp(case.log_weight[r, n])
            score = math.nan if case.teacher is None else float(case.teacher[r, 1 + n])
            own.append(_Negative(dot(q, case.negatives[r, n].tolist()), bool(case.generated[r, n]), weight, score))
    shared = []
    if case.shared:
        for n, vector in enumerate(case.shared.passages.tolist()):
            if case.shared.mask[r, n]:
                weight = math.exp(case.shared.log_weight[n])
                shared.append(_Negative(dot(q, vector), bool(case.shared.generated[n]), weight))
    return [n for n in own if n.weight], [n for n in shared if n.weight]


def _distance(positive: float, target: float, negatives: list[_Negative], settings: LossSettings) -> float:
    """Return how far a row's cosines are from the teacher's scores, of which it has enough."""
    scale, tau = settings.distillation_temperature, settings.temperature
    if settings.distillation == "margin_mse":
        errors = [(positive - n.cosine) - (target - n.score) / scale for n in negatives]
        return math.fsum(e * e for e in errors) / len(errors)
    scores = [target / scale] + [n.score / scale for n in negatives]
    cosines = [positive / tau] + [n.cosine / tau for n in negatives]
    goal = [math.exp(s) / math.fsum(map(math.exp, scores)) for s in scores]
    given = [math.exp(c) / math.fsum(map(math.exp, cosines)) for c in cosines]
    return math.fsum(g * math.log(g / h) for g, h in zip(goal, given, strict=True))


def plain_sums(case: Case, settings: LossSettings) -> dict[str, float]:
    """Return the sums and their total, by name."""
    result = dict.fromkeys(LossSums._fields, 0.0)
    for r in range(len(case.query)):
        result["rows"] += 1
        positive = dot(case.query[r].tolist(), case.positive[r].tolist())
        own, shared = _held(case, r)
        competing = []
        for n in own + shared:
            if _too_near(n.cosine, positive, settings) and not (settings.exempt_generated and n.generated):
                result["false_negatives"] += 1
            else:
                competing.append(n)
        first = math.exp(positive / settings.temperature)
        others = [
            n.weight * math.exp(n.cosine / settings.temperature + settings.hardness * n.cosine) for n in competing
        ]
        result["info_nce"] += -math.log(first / math.fsum([first, *others]))

        made = [math.exp(n.cosine / settings.entropy_temperature) for n in own if n.generated]
        if made:
            everything = math.fsum(math.exp(n.cosine / settings.entropy_temperature) for n in own)
            mass, expected = math.fsum(made) / everything, len(made) / len(own)
            shares = [m / math.fsum(made) for m in made]
            result["entropy"] += -math.fsum(s * math.log(s) for s in shares)
            result["balance"] += (mass - expected) ** 2
            result["generated_mass"] += mass
            result["expected_mass"] += expected
            result["generated_rows"] += 1

        target = math.nan if case.teacher is None else float(case.teacher[r, 0])
        scored = [n for n in own if not math.isnan(n.score)]
        if scored and not math.isnan(target):
            result["teacher_rows"] += 1
            if settings.distillation != "none":
                result["distillation"] += _distance(positive, target, scored, settings)
    result["total"] = (
        settings.contrastive_weight * result["info_nce"] / max(1, result["rows"])
        + settings.entropy_weight * (result["balance"] - result["entropy"]) / max(1, result["generated_rows"])
        + settings.distillation_weight * result["distillation"] / max(1, result["teacher_rows"])
    )
    return result
