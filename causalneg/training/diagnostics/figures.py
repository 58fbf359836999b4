"""What the encoder makes of mined and generated negatives, in figures.

If the entropy term works as arXiv 2606.01304 says, similarity stops telling the source (mutual information and AUC
fall), the generated mass nears the expected one, and no generated negative stands out among its like (the entropy ratio
nears 1).
"""

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from causalneg.config import LossSettings
from causalneg.training.diagnostics.information import mutual_information


class Figures(BaseModel):
    """Figures over rows, a query with its positive and its negatives each; None where there is nothing to measure.

    Attributes:
        rows: how many rows.
        generated_rows: how many rows with generated negatives.
        mutual_information: between source and similarity, nats, over rows with both sources.
        mutual_information_low: lower end of its 95 % interval.
        mutual_information_high: its upper end.
        auc: chance that a generated negative is more similar to its query than a mined one to its own, ties half; over
            rows with both sources. 0.5 where similarity does not tell the source; far from it on either side, it does.
        within_query_auc: the same, for a generated and a mined negative of the same query.
        generated_mass: mean of Σ_{i∈G} p_i, by τ_ent, over rows with generated negatives.
        expected_mass: mean of n_g / (n_m + n_g) over the same rows.
        entropy_ratio: mean of H_gen / log n_g over rows with two generated negatives or more; 1 where they share their
            mass evenly.
        positive_cosine: mean cosine of query and positive.
        mined_cosine: mean cosine of query and mined negative.
        generated_cosine: mean cosine of query and generated negative.
        gradient_share: mean of ‖g_G‖ / (‖g_G‖ + ‖g_M‖) over rows with both sources, see `query_gradients`.
        gradient_cosine: mean cosine of g_G and g_M over the same rows.
    """

    rows: int
    generated_rows: int
    mutual_information: float | None = None
    mutual_information_low: float | None = None
    mutual_information_high: float | None = None
    auc: float | None = None
    within_query_auc: float | None = None
    generated_mass: float | None = None
    expected_mass: float | None = None
    entropy_ratio: float | None = None
    positive_cosine: float | None = None
    mined_cosine: float | None = None
    generated_cosine: float | None = None
    gradient_share: float | None = None
    gradient_cosine: float | None = None


def _mean(values: Tensor) -> float | None:
    values = values[values.isfinite()]
    return float(values.mean()) if len(values) else None


def query_gradients(
    query: Tensor, positive: Tensor, negatives: Tensor, mask: Tensor, generated: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parts of each row's gradient of InfoNCE on its query embedding that the kinds of passages make.

    It is (Σ_i p_i d_i - d⁺) / τ over the row's own candidates, projected on what is orthogonal to the query: along
    itself a normalised embedding cannot move. False negatives are not left out, and weights do not apply.

    Args:
        query: `[rows, dim]`, rows of length 1, as all vectors here.
        positive: `[rows, dim]`.
        negatives: `[rows, width, dim]`.
        mask: bool `[rows, width]`, True where there is a negative.
        generated: bool `[rows, width]`, True where it is a generated one.
        temperature: τ of InfoNCE.

    Returns:
        The positive's part, the mined negatives' and the generated negatives', `[rows, dim]` each.
    """
    logits = torch.einsum("rd,rnd->rn", query, negatives).masked_fill(~mask, -torch.inf)
    logits = torch.cat([(query * positive).sum(dim=1, keepdim=True), logits], dim=1) / temperature
    p = torch.softmax(logits, dim=1)
    of_mined, of_generated = (p[:, 1:] * kind for kind in (~generated & mask, generated & mask))

    def tangent(gradient: Tensor) -> Tensor:
        return (gradient - (gradient * query).sum(dim=1, keepdim=True) * query) / temperature

    return (
        # p⁺ - 1, without the rounding where p⁺ is nearly 1
        tangent(-p[:, 1:].sum(dim=1, keepdim=True) * positive),
        tangent(torch.einsum("rn,rnd->rd", of_mined, negatives)),
        tangent(torch.einsum("rn,rnd->rd", of_generated, negatives)),
    )


def _of_sources(similarity: Tensor, mined: Tensor, generated: Tensor, seed: int) -> dict[str, float | None]:
    """Measure how similarity tells the source, on rows with both sources, of which there is at least one."""
    from sklearn.metrics import roc_auc_score

    there = mined | generated
    source, values = generated[there].numpy(), similarity[there].numpy()
    row = np.nonzero(there.numpy())[0]
    information = mutual_information(source, values, row, seed)
    won, pairs = 0.0, 0
    for at in range(len(similarity)):
        ahead = similarity[at, generated[at]][:, None] - similarity[at, mined[at]]
        won += float((ahead > 0).sum()) + 0.5 * float((ahead == 0).sum())
        pairs += ahead.numel()
    found: dict[str, float | None] = {"auc": float(roc_auc_score(source, values)), "within_query_auc": won / pairs}
    if information:
        found |= {
            "mutual_information": information.value,
            "mutual_information_low": information.low,
            "mutual_information_high": information.high,
        }
    return found


def _of_entropy(similarity: Tensor, mask: Tensor, generated: Tensor, temperature: float) -> dict[str, float | None]:
    """Measure what the entropy term is made of, on rows with generated negatives."""
    logits = similarity / temperature
    of_all = torch.logsumexp(logits.masked_fill(~mask, -torch.inf), dim=1)
    of_generated = torch.logsumexp(logits.masked_fill(~generated, -torch.inf), dim=1)
    number = generated.sum(dim=1)
    log_share = torch.where(generated, logits - of_generated[:, None], 0.0)
    entropy = -(torch.where(generated, log_share.exp(), 0.0) * log_share).sum(dim=1)
    several = number >= 2
    return {
        "generated_mass": _mean((of_generated - of_all).exp()),
        "expected_mass": _mean(number / mask.sum(dim=1)),
        "entropy_ratio": _mean(entropy[several] / number[several].log()),
    }


def measure(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    mask: Tensor,
    generated: Tensor,
    settings: LossSettings,
    seed: int,
) -> Figures:
    """Measure how the encoder treats the two sources of negatives, on the CPU in double precision.

    Args:
        query: `[rows, dim]`, rows of length 1, as all vectors here; any device and dtype, gradients are not kept.
        positive: `[rows, dim]`.
        negatives: `[rows, width, dim]`; what stands at a padded place has no effect.
        mask: bool `[rows, width]`, True where there is a negative.
        generated: bool `[rows, width]`, True where it is a generated one.
        settings: their temperatures are used, and nothing else.
        seed: of the interval of the mutual information.

    Source: arXiv 2606.01304, query-view entropy maximisation, for the masses and the entropy.
    """
    query, positive, negatives = (t.detach().cpu().double() for t in (query, positive, negatives))
    mask, generated = mask.cpu(), (generated & mask).cpu()
    negatives = negatives.masked_fill(~mask[:, :, None], 0.0)  # whatever stands there, 0 times it must be 0
    mined = mask & ~generated
    similarity = torch.einsum("rd,rnd->rn", query, negatives)
    found: dict[str, float | None] = {
        "positive_cosine": _mean((query * positive).sum(dim=1)),
        "mined_cosine": _mean(similarity[mined]),
        "generated_cosine": _mean(similarity[generated]),
    }
    some = generated.any(dim=1)
    both = some & mined.any(dim=1)
    if some.any():
        found |= _of_entropy(similarity[some], mask[some], generated[some], settings.entropy_temperature)
    if both.any():
        found |= _of_sources(similarity[both], mined[both], generated[both], seed)
        _, by_mined, by_generated = query_gradients(
            query[both], positive[both], negatives[both], mask[both], generated[both], settings.temperature
        )
        size_mined, size_generated = by_mined.norm(dim=1), by_generated.norm(dim=1)
        found["gradient_share"] = _mean(size_generated / (size_generated + size_mined))
        found["gradient_cosine"] = _mean((by_mined * by_generated).sum(dim=1) / (size_mined * size_generated))
    return Figures(rows=len(query), generated_rows=int(some.sum()), **found)
