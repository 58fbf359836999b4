"""The models that an endpoint lists, in the shapes of several makers, and which of them is meant by a name."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, model_validator

# Their `created` is the time of their last start.
_RESTAMPING_OWNERS = {"vllm", "sglang", "llamacpp"}
_PREFIX = "models/"  # Gemini lists its models so, and takes them with and without


class Card(BaseModel):
    """A model in a list."""

    id: str
    created: int | None = None
    owned_by: str | None = None
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None

    @property
    def revision(self) -> str:
        """Its name and a hash of what the endpoint tells of it and keeps over a restart."""
        stable = self.model_dump(exclude={"created"} if self.owned_by in _RESTAMPING_OWNERS else None)
        return f"{self.id}@{hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:16]}"


class Cards(BaseModel):
    """The list: in OpenAI's envelope, or bare as Together's."""

    data: list[Card] | None

    @model_validator(mode="before")
    @classmethod
    def _in_an_envelope(cls, value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        return {"data": value} if isinstance(value, list) else value


@dataclass(frozen=True)
class Described:
    """What an endpoint tells of the model that a name means.

    Attributes:
        name: the name to ask for it by.
        revision: of the model.
        max_model_len: longest prompt and answer together, tokens; None where it isn't told.
        listed: whether the endpoint lists its models.
    """

    name: str
    revision: str
    max_model_len: int | None = None
    listed: bool = True


def find(cards: Sequence[Card], name: str) -> Described | None:
    """Find the model that a name means: by its whole name, or by its last part where only one has that."""
    exact = [card for card in cards if card.id.removeprefix(_PREFIX) == name.removeprefix(_PREFIX)]
    ending = [card for card in cards if card.id.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]]
    unmarked = [card for card in ending if "/" not in card.id or "/" not in name]  # a/x is not b/x
    found = exact or (unmarked if len(unmarked) == 1 else [])
    if not found:
        return None
    return Described(name if exact else found[0].id, found[0].revision, found[0].max_model_len)
