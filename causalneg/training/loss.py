"""InfoNCE over a query's own candidates, and the query-view entropy of arXiv 2606.01304.

Invariants:
    - A padded place gets no gradient and changes no value.
    - In the entropy term only generated negatives get a gradient: queries and mined negatives are detached,
      and positives do not occur.
    - Everything is a sum over rows with its count beside it. The caller divides by the counts of the whole
      batch over all workers, so that neither the loss nor λ depends on how many workers there are.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class LossSums(NamedTuple):
    """Sums over rows, scalars.

    Attributes:
        info_nce: sum of cross-entropies of the positive among the row's candidates.
        entropy: sum of H_gen over rows with generated negatives, nats.
        balance: sum of L_balance over the same rows.
        generated_mass: sum of Σ_{i∈G} p_i over the same rows.
        expected_mass: sum of n_g / (n_m + n_g) over the same rows.
        rows: how many rows.
        generated_rows: how many rows with generated negatives.
    """

    info_nce: Tensor
    entropy: Tensor
    balance: Tensor
    generated_mass: Tensor
    expected_mass: Tensor
    rows: Tensor
    generated_rows: Tensor

    def total(self, rows: int, generated_rows: int, entropy_weight: float) -> Tensor:
        """Return this part's share of the loss, given the counts of the whole batch over all workers."""
        entropy_loss = (self.balance - self.entropy) / max(1, generated_rows)
        return self.info_nce / max(1, rows) + entropy_weight * entropy_loss

    def stacked(self) -> Tensor:
        """Return the sums as one detached tensor `[7]` in the order of the fields."""
        return torch.stack(tuple(self)).detach()


def loss_sums(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    mask: Tensor,
    generated: Tensor,
    temperature: float,
    entropy_temperature: float,
) -> LossSums:
    """Compute the parts of the loss, in fp32, without waiting for the device.

    Args:
        query: `[rows, dim]`, rows of length 1, as all vectors here.
        positive: `[rows, dim]`.
        negatives: `[rows, width, dim]`; what stands at a padded place has no effect.
        mask: bool `[rows, width]`, True where there is a negative; width is at least 1.
        generated: bool `[rows, width]`, True where it is a generated one.
        temperature: τ of InfoNCE.
        entropy_temperature: τ_ent.

    Source: arXiv 2606.01304, query-view entropy maximisation.
    """
    query, positive, negatives = query.float(), positive.float(), negatives.float()
    generated = generated & mask
    with_generated = generated.any(dim=1)
    # The lowest number and not -inf, with which a row without any finite score would have NaN gradients.
    lowest = torch.finfo(torch.float32).min

    scores = (query * positive).sum(dim=1, keepdim=True) / temperature
    others = torch.einsum("rd,rnd->rn", query, negatives) / temperature
    scores = torch.cat([scores, others.masked_fill(~mask, lowest)], dim=1)
    info_nce = -torch.log_softmax(scores, dim=1)[:, 0]

    similarity = torch.einsum("rd,rnd->rn", query.detach(), negatives) / entropy_temperature
    similarity = torch.where(generated, similarity, similarity.detach())
    of_all = similarity.masked_fill(~mask, lowest)
    of_generated = similarity.masked_fill(~generated, lowest)
    # log r is set to 0 off G: there r log r is exp(0) * 0, and `where` lets no gradient through.
    log_share = torch.log_softmax(of_generated, dim=1)
    log_share = torch.where(generated, log_share, torch.zeros_like(log_share))
    entropy = -(log_share.exp() * log_share).sum(dim=1)
    mass = (torch.logsumexp(of_generated, dim=1) - torch.logsumexp(of_all, dim=1)).exp()
    mass = torch.where(with_generated, mass, torch.zeros_like(mass))
    expected = generated.sum(dim=1) / mask.sum(dim=1).clamp_min(1)
    balance = (mass - expected).square()  # 0 - 0 in rows without generated negatives
    return LossSums(
        info_nce.sum(),
        entropy.sum(),
        balance.sum(),
        mass.sum(),
        expected.sum(),
        torch.tensor(float(query.shape[0]), device=query.device),
        with_generated.sum().float(),
    )
