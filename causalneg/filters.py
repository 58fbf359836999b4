"""Conditions on passages' metadata, in the shape of qdrant's filters."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

Scalar = str | int | float | bool
MAX_CONDITIONS = 64
MAX_DEPTH = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, allow_inf_nan=False)


class Match(_Strict):
    """A field's value, or one of the values of a field that is a list: one of the three."""

    value: Scalar | None = None
    any: list[Scalar] | None = Field(None, max_length=1000)
    except_: list[Scalar] | None = Field(None, alias="except", max_length=1000)

    @model_validator(mode="after")
    def _one_of_three(self) -> "Match":
        if [self.value, self.any, self.except_].count(None) != 2:
            raise ValueError("give one of value, any and except")
        return self


class Range(_Strict):
    """Bounds of a field that is a number, at least one of them."""

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> "Range":
        if not self.model_fields_set:
            raise ValueError("give one of gt, gte, lt and lte")
        return self


class FieldCondition(_Strict):
    """What a field of the metadata must be; a name within a name is written `author.name`."""

    key: str = Field(min_length=1, max_length=256)
    match: Match | None = None
    range: Range | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "FieldCondition":
        if (self.match is None) == (self.range is None):
            raise ValueError("give either match or range")
        return self


class HasId(_Strict):
    """Passages by their ids."""

    has_id: list[str] = Field(max_length=1000)


def _shape(value: object) -> str:
    """Return which condition is meant, by the names that it has, so that errors are about that one alone."""
    if isinstance(value, BaseModel):
        return type(value).__name__
    names = value if isinstance(value, dict) else {}
    return "HasId" if "has_id" in names else "FieldCondition" if {"key", "match", "range"} & set(names) else "Filter"


Condition = Annotated[
    Annotated[FieldCondition, Tag("FieldCondition")]
    | Annotated[HasId, Tag("HasId")]
    | Annotated["Filter", Tag("Filter")],
    Discriminator(_shape),
]


class Filter(_Strict):
    """All of `must`, at least one of `should` if there are any, and none of `must_not`."""

    must: list[Condition] = []
    should: list[Condition] = []
    must_not: list[Condition] = []

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        if _depth(value) > MAX_DEPTH:
            raise ValueError(f"filters are nested deeper than {MAX_DEPTH}")
        return value

    @model_validator(mode="after")
    def _few(self) -> "Filter":
        if self.conditions > MAX_CONDITIONS:
            raise ValueError(f"there are more than {MAX_CONDITIONS} conditions")
        return self

    @property
    def conditions(self) -> int:
        """Number of conditions, those of nested filters included."""
        parts = [*self.must, *self.should, *self.must_not]
        return sum(part.conditions if isinstance(part, Filter) else 1 for part in parts)


def _depth(value: object) -> int:
    """Return how deep filters are nested in what was sent, at most one more than is allowed."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        nested = [item for v in level if isinstance(v, dict) for item in v.values() if isinstance(item, list)]
        level = [part for parts in nested for part in parts if isinstance(part, dict)]
        depth += 1
    return depth
