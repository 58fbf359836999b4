"""InfoNCE, the query-view entropy of arXiv 2606.01304 and distillation, over a row's own and shared candidates.

Invariants:
    - A padded place gets no gradient and changes no value. A negative of weight 0 is left out like one: of every
      part and of every count.
    - In the entropy term only generated negatives get a gradient: queries and mined negatives are detached,
      and positives and shared candidates do not occur. Weights and false negatives do not touch it.
    - Everything is a sum over rows with its count beside it. The caller divides by the counts of the whole
      batch over all workers, so that neither the loss nor λ depends on how many workers there are.
    - Nothing waits for the device, and everything is fp32, also under autocast.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from causalneg.config import LossSettings
from causalneg.errors import UserError

# The lowest number and not -inf, with which a row without any finite score would have NaN gradients.
_LOWEST = torch.finfo(torch.float32).min


class Counts(NamedTuple):
    """What the sums are divided by, of the whole batch over all workers; see `count`.

    Attributes:
        rows: how many rows.
        generated_rows: how many rows with generated negatives.
        teacher_rows: how many rows with the teacher's score of the positive and of a negative.
    """

    rows: int | Tensor
    generated_rows: int | Tensor
    teacher_rows: int | Tensor


class Shared(NamedTuple):
    """Candidates beyond a row's own, the same for all rows.

    Attributes:
        passages: `[extra, dim]`.
        mask: bool `[rows, extra]`, True where it competes for the row: the caller leaves out its own and known
            positives.
        generated: bool `[extra]`, True where it is a generated one.
        log_weight: `[extra]`, as for own negatives.
    """

    passages: Tensor
    mask: Tensor
    generated: Tensor
    log_weight: Tensor


class LossSums(NamedTuple):
    """Sums over rows, scalars.

    Attributes:
        info_nce: sum of cross-entropies of the positive among the row's candidates.
        entropy: sum of H_gen over rows with generated negatives, nats.
        balance: sum of L_balance over the same rows.
        generated_mass: sum of Σ_{i∈G} p_i over the same rows.
        expected_mass: sum of n_g / (n_m + n_g) over the same rows.
        distillation: sum of the rows' divergences, nats, or mean squared differences of margins.
        false_negatives: how many candidates were left out of InfoNCE as likely false.
        rows: how many rows.
        generated_rows: how many rows with generated negatives.
        teacher_rows: how many rows with the teacher's scores, whether they are used or not.
    """

    info_nce: Tensor
    entropy: Tensor
    balance: Tensor
    generated_mass: Tensor
    expected_mass: Tensor
    distillation: Tensor
    false_negatives: Tensor
    rows: Tensor
    generated_rows: Tensor
    teacher_rows: Tensor

    def total(self, counts: Counts, settings: LossSettings) -> Tensor:
        """Return this part's share of the loss, given the counts of the whole batch over all workers."""
        result = settings.contrastive_weight * self.info_nce / _divisor(counts.rows)
        entropy_loss = (self.balance - self.entropy) / _divisor(counts.generated_rows)
        result = result + settings.entropy_weight * entropy_loss
        return result + settings.distillation_weight * self.distillation / _divisor(counts.teacher_rows)

    def stacked(self) -> Tensor:
        """Return the sums as one detached tensor `[10]` in the order of the fields."""
        return torch.stack(tuple(self)).detach()


def _divisor(rows: int | Tensor) -> int | Tensor:
    return rows.clamp_min(1) if isinstance(rows, Tensor) else max(1, rows)


def count(
    mask: np.ndarray | Tensor,
    generated: np.ndarray | Tensor,
    teacher: np.ndarray | Tensor | None = None,
    log_weight: np.ndarray | Tensor | None = None,
) -> Counts:
    """Count what a batch's sums are divided by, without computing the loss.

    Args:
        mask: bool `[rows, width]`, as for `loss_sums`.
        generated: bool `[rows, width]`.
        teacher: `[rows, 1 + width]`, NaN where there is no score.
        log_weight: `[rows, width]`; needed where a weight may be 0, since such a negative does not count.

    Returns:
        Python ints for arrays, and scalars on the device for tensors.
    """
    held: Any = mask if log_weight is None else mask & (log_weight != -np.inf)
    generated_rows = (held & generated).any(1).sum()
    teacher_rows = 0 if teacher is None else _with_scores(held, teacher)[1].sum()
    if isinstance(mask, Tensor):
        return Counts(len(mask), generated_rows, teacher_rows)
    return Counts(len(mask), int(generated_rows), int(teacher_rows))


def _with_scores(mask: Any, teacher: Any) -> tuple[Any, Any]:  # noqa: ANN401 - arrays and tensors alike
    """Return which negatives `[rows, width]` have a teacher's score, and which rows `[rows]` have enough of them."""
    known = teacher == teacher  # not NaN
    scored = known[:, 1:] & mask
    return scored, known[:, 0] & scored.any(1)


class _OwnCosines(torch.autograd.Function):
    """Cosines of queries with their own negatives, twice; the second passes no gradient to the queries.

    Of the loss only this touches every number of every vector. Written as two products that autograd takes apart,
    the whole loss takes eight times as long on a processor.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        ctx.save_for_backward(query, negatives)
        # In this order: the product of a matrix with a column is several times slower on processors.
        cosine = torch.bmm(query.unsqueeze(1), negatives.transpose(1, 2)).squeeze(1)
        return cosine, cosine.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, for_both: Tensor, for_negatives: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        query, negatives = ctx.saved_tensors
        to_query = torch.bmm(for_both.unsqueeze(1), negatives).squeeze(1)
        return to_query, (for_both + for_negatives).unsqueeze(2) * query.unsqueeze(1)


def _likely_false(cosine: Tensor, positive_cosine: Tensor, settings: LossSettings) -> Tensor:
    """Return, bool, which candidates come too near to the positive, `[rows, n]` against `[rows, 1]`."""
    margin = settings.false_negative_margin
    assert margin is not None
    if settings.false_negative_kind == "absolute":
        return cosine > positive_cosine - margin
    # margins.relative_score, for tensors
    return 1 + (cosine - positive_cosine) / positive_cosine.abs().clamp_min(1e-6) > 1 - margin


def _logits(
    cosine: Tensor,
    positive_cosine: Tensor,
    mask: Tensor,
    generated: Tensor,
    log_weight: Tensor | None,
    settings: LossSettings,
) -> tuple[Tensor, Tensor]:
    """Return negatives' logits `[rows, n]` for InfoNCE, and how many were left out as likely false.

    `generated` and `log_weight` may be `[n]` or `[rows, n]`.
    """
    left_out = cosine.new_zeros(())
    if settings.false_negative_margin is not None:
        likely_false = _likely_false(cosine.detach(), positive_cosine.detach(), settings) & mask
        if settings.exempt_generated:
            likely_false = likely_false & ~generated
        left_out = likely_false.sum().float()
        mask = mask & ~likely_false
    logits = cosine / settings.temperature
    if settings.hardness:
        logits = logits + settings.hardness * cosine.detach()
    if log_weight is not None:
        logits = logits + log_weight
    # Last, so that it takes away the -inf of a weight of 0, which is masked.
    return logits.masked_fill(~mask, _LOWEST), left_out


def _entropy(
    cosine: Tensor, mask: Tensor, generated: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return each row's H_gen, L_balance, Σ_{i∈G} p_i and n_g / (n_m + n_g); 0 where G is empty."""
    similarity = cosine / temperature
    off = ~generated
    mass = torch.softmax(similarity.masked_fill(~mask, _LOWEST), dim=1).masked_fill(off, 0).sum(dim=1)
    # log r is set to 0 off G: there r log r is exp(0) * 0, and masked_fill lets no gradient through.
    log_share = torch.log_softmax(similarity.masked_fill(off, _LOWEST), dim=1).masked_fill(off, 0)
    entropy = -(log_share.exp() * log_share).sum(dim=1)
    expected = generated.sum(dim=1) / mask.sum(dim=1).clamp_min(1)
    return entropy, (mass - expected).square(), mass, expected


def _distillation(
    positive_cosine: Tensor, cosine: Tensor, teacher: Tensor, scored: Tensor, enough: Tensor, settings: LossSettings
) -> Tensor:
    """Return each row's `[rows]` distance to the teacher; 0 where it has not enough scores.

    Args:
        positive_cosine: `[rows, 1]`.
        cosine: `[rows, width]`.
        teacher: `[rows, 1 + width]`.
        scored: bool `[rows, width]`, where the negative has a score.
        enough: bool `[rows]`, where the positive and a negative have one.
        settings: of the loss.
    """
    scored = scored & enough.unsqueeze(1)
    scores = teacher / settings.distillation_temperature
    if settings.distillation == "margin_mse":
        margin = (positive_cosine - cosine) - (scores[:, :1] - scores[:, 1:])
        return margin.masked_fill(~scored, 0).square().sum(dim=1) / scored.sum(dim=1).clamp_min(1)
    absent = ~torch.cat([enough.unsqueeze(1), scored], dim=1)
    log_goal = torch.log_softmax(scores.masked_fill(absent, _LOWEST), dim=1).masked_fill(absent, 0)
    student = torch.cat([positive_cosine, cosine], dim=1) / settings.temperature
    log_student = torch.log_softmax(student.masked_fill(absent, _LOWEST), dim=1).masked_fill(absent, 0)
    return (log_goal.exp() * (log_goal - log_student)).sum(dim=1)  # exp(0) * (0 - 0) where it is absent


def loss_sums(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    mask: Tensor,
    generated: Tensor,
    settings: LossSettings,
    *,
    log_weight: Tensor | None = None,
    teacher: Tensor | None = None,
    shared: Shared | None = None,
) -> LossSums:
    """Compute the parts of the loss, in fp32, without waiting for the device.

    Args:
        query: `[rows, dim]`, rows of length 1, as all vectors here.
        positive: `[rows, dim]`.
        negatives: `[rows, width, dim]`; what stands at a padded place has no effect.
        mask: bool `[rows, width]`, True where there is a negative.
        generated: bool `[rows, width]`, True where it is a generated one.
        settings: of the loss; `matryoshka_dims` are for `loss`.
        log_weight: `[rows, width]`, added to the negative's logit in InfoNCE; one of -inf leaves the negative out
            of everything.
        teacher: `[rows, 1 + width]`, its scores of the positive, first, and the negatives; NaN where it has none.
        shared: candidates that compete in InfoNCE beside the row's own.

    Source: arXiv 2606.01304, query-view entropy maximisation; hardness as in arXiv 2503.04812; margin MSE as in
    arXiv 2010.02666.
    """
    # Under autocast products would be of half precision.
    with torch.autocast(query.device.type, enabled=False):
        query, positive, negatives = query.float(), positive.float(), negatives.float()
        if log_weight is not None:
            mask = mask & ~log_weight.isneginf()
        generated = generated & mask
        positive_cosine = (query * positive).sum(dim=1, keepdim=True)
        cosine, for_negatives = _OwnCosines.apply(query, negatives)

        own, left_out = _logits(cosine, positive_cosine, mask, generated, log_weight, settings)
        candidates = [positive_cosine / settings.temperature, own]
        if shared is not None:
            competes = shared.mask & ~shared.log_weight.isneginf()
            cosines = query @ shared.passages.float().T
            others, left_out_too = _logits(
                cosines, positive_cosine, competes, shared.generated, shared.log_weight, settings
            )
            candidates.append(others)
            left_out = left_out + left_out_too
        info_nce = -torch.log_softmax(torch.cat(candidates, dim=1), dim=1)[:, 0]

        for_generated = torch.where(generated, for_negatives, cosine.detach())
        entropy, balance, mass, expected = _entropy(for_generated, mask, generated, settings.entropy_temperature)
        zero = positive_cosine.new_zeros(())
        distillation, teacher_rows = zero, zero
        if teacher is not None:
            scored, enough = _with_scores(mask, teacher)
            teacher_rows = enough.sum().float()
            if settings.distillation != "none":
                goal = teacher.float()
                distillation = _distillation(positive_cosine, cosine, goal, scored, enough, settings).sum()
        return LossSums(
            info_nce.sum(),
            entropy.sum(),
            balance.sum(),
            mass.sum(),
            expected.sum(),
            distillation,
            left_out,
            zero.new_full((), query.shape[0]),  # filled there; a copied number would wait for the device
            generated.any(dim=1).sum().float(),
            teacher_rows,
        )


def loss(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    mask: Tensor,
    generated: Tensor,
    settings: LossSettings,
    *,
    counts: Counts,
    log_weight: Tensor | None = None,
    teacher: Tensor | None = None,
    shared: Shared | None = None,
) -> tuple[Tensor, LossSums]:
    """Compute this part's share of the loss, over all dimensions and over the first so many of `matryoshka_dims`.

    Arguments are those of `loss_sums`, and the counts of the whole batch over all workers. False negatives are
    looked for anew in each of the smaller dimensions.

    Returns:
        The scalar to minimise, and the sums of all dimensions alone.

    Raises:
        UserError: one of `matryoshka_dims` is above the vectors' dimensions.

    Source: arXiv 2205.13147 for the smaller dimensions.
    """
    dims = settings.matryoshka_dims
    if dims and max(dims) > query.shape[1]:
        raise UserError(
            f"train.loss.matryoshka_dims has {max(dims)}, and the encoder's vectors have {query.shape[1]} dimensions; "
            "set no more than these."
        )
    sums = loss_sums(
        query, positive, negatives, mask, generated, settings, log_weight=log_weight, teacher=teacher, shared=shared
    )
    total = sums.total(counts, settings)
    for dim, weight in zip(dims, settings.matryoshka_weights or [1.0] * len(dims), strict=True):

        def first(vectors: Tensor, dim: int = dim) -> Tensor:
            return normalize(vectors[..., :dim].float(), dim=-1)

        part = loss_sums(
            first(query),
            first(positive),
            first(negatives),
            mask,
            generated,
            settings,
            log_weight=log_weight,
            teacher=teacher,
            shared=None if shared is None else shared._replace(passages=first(shared.passages)),
        )
        total = total + weight * part.total(counts, settings)
    return total, sums
