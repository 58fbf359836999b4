"""From texts to token ids, and from token ids alone to a model's inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from causalneg.config import EncoderSettings
from causalneg.errors import UserError
from causalneg.starting import first_module

Kind = Literal["query", "passage"]

KINDS: tuple[Kind, Kind] = ("query", "passage")
# What sentence-transformers calls them.
TASKS = {"query": "query", "passage": "document"}
_BLOCK = 1024  # texts tokenised at a time; bounds the padded memory
_SAMPLES = ["rivers", "Which river is the longest of all?", "one two three four five six seven eight nine ten"]


class Inputs:
    """Tokenises texts with their prompt, and makes a model's inputs from the token ids.

    The rest of the inputs (mask, token types, length of the prompt, modality) follows from the kind of text and
    from the ids. That is checked against the model's own on a few texts, with either kind.

    Args:
        model: with its prompts under `query` and `document`.
        settings: the longest query and passage, tokens.
        path: of the model, for messages.

    Raises:
        UserError: the model takes more than token ids, or a prompt leaves no room for a text.
    """

    def __init__(self, model: SentenceTransformer, settings: EncoderSettings, path: Path) -> None:
        self._model, self._path = model, path
        first = first_module(model)
        self._lengths = {
            "query": self._limit(settings.query_length, first.query_length),
            "passage": self._limit(settings.passage_length, first.document_length),
        }
        own = {kind: self._own(_SAMPLES, kind) for kind in KINDS}
        self._constants = {k: {n: v for n, v in own[k].items() if not isinstance(v, Tensor)} for k in KINDS}
        self._with_types = "token_type_ids" in own["query"]
        for kind in KINDS:
            self._check_rebuilt(own[kind], self.features(self.tokenize(_SAMPLES, kind), kind))
            self._check_prompt(kind)

    def _limit(self, wanted: int, own: int | None) -> int:
        return min(wanted, own or wanted, self._model.max_seq_length or wanted)

    def longest(self, kind: Kind) -> int:
        """Return the longest text of a kind, tokens."""
        return self._lengths[kind]

    def _own(self, texts: Sequence[str], kind: Kind) -> dict[str, Any]:
        """The inputs as the model makes them."""
        task = TASKS[kind]
        return dict(
            self._model.preprocess(
                list(texts),
                prompt=self._model.prompts[task] or None,
                task=task,
                processing_kwargs={"text": {"max_length": self._lengths[kind]}},
            )
        )

    def _check_rebuilt(self, own: dict[str, Any], rebuilt: dict[str, Any]) -> None:
        odd = [n for n in own.keys() | rebuilt.keys() if not _equal(own.get(n), rebuilt.get(n))]
        if odd:
            raise UserError(
                f"The model {self._path} takes inputs that are more than token ids ({', '.join(sorted(odd))}), "
                "which training does not keep; take another model."
            )

    def _check_prompt(self, kind: Kind) -> None:
        prompt = self._model.prompts[TASKS[kind]]
        if prompt and len(self.tokenize([""], kind)[0]) >= self._lengths[kind]:
            raise UserError(
                f"The prompt {prompt!r} takes all of the {self._lengths[kind]} tokens of a {kind}; "
                f"raise train.encoder.{kind}_length, or shorten train.encoder.{kind}_prompt."
            )

    def tokenize(self, texts: Sequence[str], kind: Kind) -> list[np.ndarray]:
        """Tokenise texts behind their prompt, with special tokens, cut at the longest length.

        Returns:
            int32 token ids of each text. A text without any, an empty one for some tokenizers, gets the padding
            token, so that each has a vector.
        """
        ids: list[np.ndarray] = []
        for start in range(0, len(texts), _BLOCK):
            own = self._own(texts[start : start + _BLOCK], kind)
            mask = own["attention_mask"].bool()
            flat = own["input_ids"][mask].numpy().astype(np.int32)
            ids += np.split(flat, mask.sum(1).cumsum(0)[:-1].numpy())
        padding = np.array([self._model.tokenizer.pad_token_id], dtype=np.int32)
        return [tokens if len(tokens) else padding for tokens in ids]

    def features(self, ids: Sequence[np.ndarray], kind: Kind) -> dict[str, Any]:
        """Make the model's inputs.

        Returns:
            `input_ids` and `attention_mask`, int64 `[len(ids), longest]`, with padding behind the texts, and what else
            the model takes.
        """
        tokenizer = self._model.tokenizer
        shape = len(ids), max(len(tokens) for tokens in ids)
        input_ids = torch.full(shape, tokenizer.pad_token_id)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, tokens in enumerate(ids):
            input_ids[row, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
            mask[row, : len(tokens)] = 1
        types = {"token_type_ids": torch.zeros(shape, dtype=torch.long)} if self._with_types else {}
        return {"input_ids": input_ids, "attention_mask": mask, **types, **self._constants[kind]}


def _equal(one: Any, other: Any) -> bool:  # noqa: ANN401 - any input of a model
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
