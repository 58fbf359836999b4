"""The loss as one of sentence-transformers, for its trainer; alone or data-parallel.

Data-parallel training averages the gradients of its ranks. Here each rank divides its sums by the counts of the
whole batch, which are added up over the ranks, and multiplies by the number of ranks: the average is then the
gradient of the whole batch, for InfoNCE and for λ alike, however unevenly generated negatives are spread.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank, get_world_size
from torch import Tensor, nn
from torch.nn.functional import normalize

from causalneg.config import LossSettings
from causalneg.errors import UserError
from causalneg.records import Source
from causalneg.training.objective.loss import Counts, Shared, count, loss

_MINED, _GENERATED = 1, 2  # and 0 is an absent one
_CODES = {Source.MINED: _MINED, Source.GENERATED: _GENERATED}
# Odd 64-bit numbers of a hash's mixing steps (splitmix64), as signed ones.
_MIX = (-7046029254386353131, -4658895280553007687, -7723592293110705685)


def _fingerprints(features: Sequence[dict[str, Any]]) -> Tensor | None:
    """Return a 64-bit hash of each text's tokens, `[rows, columns]`; None where columns have no row per text.

    Padding does not count, on whichever side it is, so texts are the same in columns of any width, and on ranks.
    """
    columns = []
    for column in features:
        ids, attended = column.get("input_ids"), column.get("attention_mask")
        if ids is None or attended is None or ids.ndim != 2 or ids.shape != attended.shape:
            return None  # images, or texts joined into one without padding
        attended = attended.long()
        mixed = (ids.long() + 1) * _MIX[0] + attended.cumsum(dim=1) * _MIX[1]  # wraps around, as it should
        mixed = (mixed ^ (mixed >> 31)) * _MIX[2]
        mixed = (mixed ^ (mixed >> 29)) * _MIX[1]
        columns.append((mixed * attended).sum(dim=1))
    return torch.stack(columns, dim=1)


class CausalNegLoss(nn.Module):
    """InfoNCE with query-view entropy over anchor, positive and negative columns, as `causalneg train` has it.

    What a positive competes with follows `settings.candidates`: its own row's negatives; also the other rows'
    positives and negatives; or those of all ranks. A passage of another row is left out where its token ids are
    those of the row's own positive. This compares 64-bit hashes of the ids without padding, and needs `input_ids`
    with one row per text; for other inputs nothing but the row's own passages is left out.

    Labels say more about the columns, where they are given:
        integers `[rows, negatives]`: for each negative 0 where there is none (its text has no effect), 1 for a
            mined one, 2 for a generated one; `sources` is then not looked at;
        floats `[rows, 1 + negatives]`: the teacher's scores of the positive and the negatives, NaN where there is
            none, for `settings.distillation`.

    With gradient accumulation each forward pass is a batch of its own. `global` takes as many rows on every rank,
    which the trainer sees to.

    Args:
        model: to train; its vectors need not be of length 1.
        settings: of the loss.
        sources: of each negative column.

    Source: arXiv 2606.01304.
    """

    _codes: Tensor

    def __init__(self, model: SentenceTransformer, settings: LossSettings, sources: Sequence[Source]) -> None:
        super().__init__()
        self.model = model
        self.settings, self.sources = settings, tuple(sources)
        codes = torch.tensor([_CODES[source] for source in self.sources], dtype=torch.long)
        self.register_buffer("_codes", codes, persistent=False)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Embed the columns and return the loss.

        Args:
            sentence_features: of anchor, positive and each negative column.
            labels: see the class.

        Raises:
            UserError: columns, sources, labels and settings do not fit each other.
        """
        features = list(sentence_features)
        fingerprints = None if self.settings.candidates == "own" else _fingerprints(features[1:])
        return self.compute_loss_from_embeddings(embed_columns(self.model, features), labels, fingerprints)

    def compute_loss_from_embeddings(
        self, embeddings: Sequence[Tensor], labels: Tensor | None = None, fingerprints: Tensor | None = None
    ) -> Tensor:
        """Return the loss of embedded columns.

        Args:
            embeddings: of each column, `[rows, dim]`.
            labels: see the class.
            fingerprints: int64 `[rows, 1 + negatives]`, equal where passages are.

        Raises:
            UserError: columns, sources, labels and settings do not fit each other.
        """
        codes, teacher = self._labels(embeddings, labels)
        query, *passages = (normalize(vectors.float(), dim=-1) for vectors in embeddings)
        documents = torch.stack(passages, dim=1)
        mask, generated = (codes == _MINED) | (codes == _GENERATED), codes == _GENERATED
        counts, ranks = count(mask, generated, teacher), get_world_size()
        if ranks > 1:
            rows = codes.new_full((), len(codes))
            summed = torch.stack([rows, *(rows.new_zeros(()) + number for number in counts[1:])])
            dist.all_reduce(summed)
            counts = Counts(*summed.unbind())
        shared = None if self.settings.candidates == "own" else self._shared(documents, codes, fingerprints)
        negatives = documents[:, 1:]
        value, _ = loss(
            query,
            documents[:, 0],
            negatives,
            mask,
            generated,
            self.settings,
            counts=counts,
            teacher=teacher,
            shared=shared,
        )
        return value * ranks

    def _labels(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the codes `[rows, negatives]`, and the teacher's scores where there are any."""
        rows, negatives = len(embeddings[0]), len(embeddings) - 2
        if negatives < 0:
            raise UserError(f"The loss takes anchor, positive and negatives, and got {len(embeddings)} column(s).")
        teacher = labels if labels is not None and labels.is_floating_point() else None
        if teacher is None and self.settings.distillation != "none":
            raise UserError(
                f"distillation {self.settings.distillation} needs the teacher's scores as labels: floats of the "
                f"shape {(rows, 1 + negatives)}."
            )
        shape = (rows, negatives if teacher is None else 1 + negatives)
        if labels is not None and labels.shape != shape:
            meaning = "what each negative is (integers)" if teacher is None else "the teacher's scores (floats)"
            raise UserError(f"Labels for {meaning} must have the shape {shape}, and have {tuple(labels.shape)}.")
        if labels is not None and teacher is None:
            return labels.long(), None
        if len(self.sources) != negatives:
            raise UserError(
                f"There are {negatives} negative columns and {len(self.sources)} sources; give one source for each."
            )
        return self._codes.to(embeddings[0].device, non_blocking=True).expand(rows, negatives), teacher

    def _shared(self, documents: Tensor, codes: Tensor, fingerprints: Tensor | None) -> Shared:
        """Return the passages of the other rows, of this rank or of all.

        Args:
            documents: `[rows, 1 + negatives, dim]`.
            codes: `[rows, negatives]`.
            fingerprints: `[rows, 1 + negatives]`.
        """
        rows, first = len(documents), 0
        own = codes.new_full((rows, 1), _MINED)  # the positives are no generated ones
        kinds, prints = torch.cat([own, codes], dim=1), fingerprints
        if self.settings.candidates == "global" and get_world_size() > 1:
            # Its backward adds up what all ranks' losses say of a rank's vectors.
            documents, kinds = all_gather_with_grad(documents), all_gather(kinds)
            prints = None if prints is None else all_gather(prints)
            first = get_rank() * rows
        device = documents.device
        owner = torch.arange(len(documents), device=device).repeat_interleave(documents.shape[1])
        mask = owner != torch.arange(first, first + rows, device=device).unsqueeze(1)
        generated = (kinds == _GENERATED).flatten()
        held = (kinds == _MINED).flatten()
        mask = mask & (held | generated if self.settings.share_generated else held)
        if prints is not None and fingerprints is not None:
            mask = mask & (prints.flatten() != fingerprints[:, :1])
        passages = documents.flatten(0, 1)
        return Shared(passages, mask, generated, passages.new_zeros(len(passages)))

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        return self.settings.model_dump(mode="json") | {"sources": [str(source) for source in self.sources]}
