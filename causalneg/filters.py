"""Conditions on passages' metadata, in the shape of qdrant's filters."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from causalneg.json_path import Step, parse_path

Scalar = str | int | float | bool
MAX_CONDITIONS = 64
MAX_DEPTH = 4

_CLAUSES = ("must", "should", "must_not")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(text: str) -> int | None:
    """Return the microseconds from 1970 to a date or a time of RFC 3339, UTC unless it says another; None for others.

    As qdrant does, a day alone, a space in place of the T, and a time without seconds are taken, too.
    """
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:  # the 31st of February
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def _is_date(text: str) -> str:
    if timestamp(text) is None:
        raise ValueError(f"{text[:50]!r} is no date; write it like 2024-05-31 or 2024-05-31T12:00:00Z")
    return text


def _is_path(key: str) -> str:
    parse_path(key)
    return key


Key = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        description='path to a field: `year`, `author.name`, `tags[]`, `parts[].size`, `"a.b"` for a name with a dot',
    ),
    AfterValidator(_is_path),
]
Bound = int | float | Annotated[str, AfterValidator(_is_date)]


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
    """Bounds of a field, at least one of them: all numbers, or all dates of RFC 3339."""

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    @model_validator(mode="after")
    def _bounds_of_one_kind(self) -> "Range":
        if not self.bounds:
            raise ValueError("give one of gt, gte, lt and lte")
        if len({isinstance(bound, str) for bound in self.bounds.values()}) > 1:
            raise ValueError("give numbers or dates, not both")
        return self

    @property
    def bounds(self) -> dict[str, int | float | str]:
        """The bounds that are given, by their names."""
        return {name: value for name, value in self if value is not None}

    @property
    def numbers(self) -> dict[str, int | float]:
        """The same as numbers; those of dates are microseconds from 1970."""
        found = {name: timestamp(v) if isinstance(v, str) else v for name, v in self.bounds.items()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def is_of_dates(self) -> bool:
        """Whether the bounds are dates."""
        return any(isinstance(bound, str) for bound in self.bounds.values())


class FieldCondition(_Strict):
    """What a field of the metadata must be; where it is a list, one of its elements."""

    key: Key
    match: Match | None = None
    range: Range | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "FieldCondition":
        if (self.match is None) == (self.range is None):
            raise ValueError("give either match or range")
        return self

    @property
    def path(self) -> tuple[Step, ...]:
        """The key, read."""
        return parse_path(self.key)


class FieldName(_Strict):
    """A field of the metadata."""

    key: Key

    @property
    def path(self) -> tuple[Step, ...]:
        """The key, read."""
        return parse_path(self.key)


class IsNull(_Strict):
    """Passages that have a field, and it is null."""

    is_null: FieldName


class IsEmpty(_Strict):
    """Passages that have no such field, or it is null or a list of nothing."""

    is_empty: FieldName


class HasId(_Strict):
    """Passages by their ids."""

    has_id: list[str] = Field(max_length=1000)


_CONDITIONS = {"has_id": "HasId", "is_null": "IsNull", "is_empty": "IsEmpty"}


def _shape(value: object) -> str:
    """Return which condition is meant, by the names that it has, so that errors are about that one alone."""
    if isinstance(value, BaseModel):
        return type(value).__name__
    names = value if isinstance(value, dict) else {}
    named = next((shape for name, shape in _CONDITIONS.items() if name in names), None)
    return named or ("FieldCondition" if {"key", "match", "range"} & set(names) else "Filter")


Condition = Annotated[
    Annotated[FieldCondition, Tag("FieldCondition")]
    | Annotated[IsNull, Tag("IsNull")]
    | Annotated[IsEmpty, Tag("IsEmpty")]
    | Annotated[HasId, Tag("HasId")]
    | Annotated["Filter", Tag("Filter")],
    Discriminator(_shape),
]


def _as_list(value: object) -> object:
    """Return what may be one condition or none as a list."""
    return [] if value is None else [value] if isinstance(value, dict | BaseModel) else value


Conditions = Annotated[
    list[Condition], BeforeValidator(_as_list, json_schema_input_type=Condition | list[Condition] | None)
]


class Filter(_Strict):
    """All of `must`, at least one of `should` if there are any, and none of `must_not`; one condition needs no list."""

    must: Conditions = []
    should: Conditions = []
    must_not: Conditions = []

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
        clauses = [_as_list(v.get(name)) for v in level if isinstance(v, dict) for name in _CLAUSES]
        level = [part for parts in clauses if isinstance(parts, list) for part in parts if isinstance(part, dict)]
        depth += 1
    return depth
