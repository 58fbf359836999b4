"""Any encoder of ours as MTEB sees one: with its own prompts, and encoded as every other stage does it."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType

from causalneg.config import EncodeSettings
from causalneg.embedding import encode, load_encoder
from causalneg.models import EMBEDDED_PREFIX, ResolvedModel
from causalneg.runtime import supports_bf16

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BLOCK = 1024  # texts between two steps of the progress


def model_name(model: ResolvedModel) -> str:
    """Return a model's name in two parts, as MTEB wants it: that of the hub, or a folder's with its parent's."""
    if model.name.startswith(EMBEDDED_PREFIX):
        return model.name.replace(":", "/")
    if Path(model.name).expanduser().is_dir():
        return f"{model.path.parent.name or 'local'}/{model.path.name}"
    return model.name if "/" in model.name else f"hub/{model.name}"


def model_meta(model: ResolvedModel, encoder: "SentenceTransformer", settings: EncodeSettings) -> ModelMeta:
    """Describe an encoder to MTEB.

    The revision is the hash of the model's files, and passages in bf16 are an experiment of their own: results of
    other weights or another precision are never taken for these.
    """
    low = settings.precision == "bf16" or (settings.precision == "auto" and supports_bf16(encoder.device))
    parameters = list(encoder.parameters())
    return ModelMeta(
        loader=None,
        name=model_name(model),
        revision=model.fingerprint,
        release_date=None,
        languages=None,
        n_parameters=sum(p.numel() for p in parameters),
        memory_usage_mb=round(sum(p.numel() * p.element_size() for p in parameters) / 2**20),
        max_tokens=encoder.max_seq_length,
        embed_dim=encoder.get_embedding_dimension(),
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["Sentence Transformers", "PyTorch", "safetensors"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=any(encoder.prompts.values()),
        training_datasets=None,
        experiment_kwargs={"passages": "bf16"} if low else None,
    )


def _blocks(batches: Iterable[Any]) -> Iterator[list[str]]:
    """Join the texts of MTEB's batches to blocks that are encoded at once, sorted by length."""
    waiting: list[str] = []
    for batch in batches:
        waiting += batch["text"]
        while len(waiting) >= _BLOCK:
            yield waiting[:_BLOCK]
            waiting = waiting[_BLOCK:]
    if waiting:
        yield waiting


class MtebEncoder(AbsEncoder):
    """An encoder for `mteb.evaluate`.

    Queries and passages get the prompts that the model was saved with; those that a task proposes are left out.

    Args:
        model: the encoder.
        settings: how passages are encoded.
        advance: called with the number of texts just encoded.
    """

    def __init__(
        self, model: ResolvedModel, settings: EncodeSettings, advance: Callable[[int], object] = lambda texts: None
    ) -> None:
        self.model = load_encoder(model)
        self.mteb_model_meta = model_meta(model, self.model, settings)
        self.advance = advance
        self._settings = settings

    def encode(
        self,
        inputs: Iterable[Any],
        *,
        prompt_type: PromptType | None = None,
        **task: Any,
    ) -> np.ndarray:
        """Encode what MTEB's data loader gives; where it makes no difference between the sides, as queries.

        Returns:
            float32 `[texts, dimension]`, rows of length 1.

        Raises:
            UserError: a vector is not finite.
        """
        kind: Literal["query", "passage"] = "passage" if prompt_type == PromptType.document else "query"
        vectors = []
        for texts in _blocks(inputs):
            vectors.append(encode(self.model, texts, kind, self._settings.batch_size, self._settings.precision))
            self.advance(len(texts))
        return np.concatenate(vectors)
