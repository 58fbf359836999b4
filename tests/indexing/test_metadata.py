"""Filters over metadata give what a reading of the JSON row by row gives."""

import operator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.filters import Filter
from causalneg.indexing.metadata import MetadataTable
from causalneg.records import metadata_text

ROWS: list[dict[str, Any]] = [
    {"year": 1969, "author": {"name": "Ann", "born": 1930.5}, "tags": ["moon", "apollo"]},
    {"year": 1970.0, "author": {"name": "Bob"}, "tags": ["moon", 13]},
    {"year": "1969", "ok": True, "tags": []},
    {},
    {"year": None, "ok": 1, "author": "Ann", "a/b~c": {"": "odd", '"*"': 1}},
    {"year": [1969, 2000], "ok": False, "big": 2**53 + 1, "huge": 10**30, "0": "zero"},
]


def table(rows: list[dict[str, Any]], chunk: int = 4) -> MetadataTable:
    texts = [metadata_text(row) for row in rows]
    ids = [f"p{n}" for n in range(len(rows))]
    parts = [
        pa.chunked_array([pa.array(v[a : a + chunk], pa.string()) for a in range(0, len(v), chunk)], pa.string())
        for v in (texts, ids)
    ]
    return MetadataTable(*parts)


def found(where: MetadataTable, filter_: dict[str, Any]) -> list[int]:
    return np.flatnonzero(where.mask(Filter.model_validate(filter_))).tolist()


def of(key: str, **how: Any) -> dict[str, Any]:
    return {"must": [{"key": key, **how}]}


@pytest.mark.parametrize(
    ("filter_", "rows"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        (of("year", match={"value": 1969}), [0, 5]),
        (of("year", match={"value": 1969.0}), [0, 5]),
        (of("year", match={"value": 1970}), [1]),
        (of("year", match={"value": "1969"}), [2]),
        (of("year", match={"any": [1970, "1969"]}), [1, 2]),
        (of("year", match={"any": []}), []),
        (of("year", match={"except": [1969]}), [1, 2, 5]),
        (of("year", match={"except": []}), [0, 1, 2, 5]),
        (of("year", range={"gt": 1969}), [1, 5]),
        (of("year", range={"gte": 1969, "lt": 1970}), [0, 5]),
        (of("author.born", range={"lte": 1930.5}), [0]),
        (of("author.name", match={"value": "Ann"}), [0]),
        (of("author", match={"value": "Ann"}), [4]),
        (of("tags", match={"value": "moon"}), [0, 1]),
        (of("tags", match={"value": 13}), [1]),
        (of("tags", match={"value": True}), []),
        (of("ok", match={"value": True}), [2]),
        (of("ok", match={"value": 1}), [4]),
        (of("ok", match={"value": False}), [5]),
        (of("big", match={"value": 2**53 + 1}), [5]),
        (of("big", match={"value": 2**53}), []),
        (of("huge", range={"gt": 1e29}), [5]),
        (of("huge", match={"value": 10**30}), [5]),
        (of("year", match={"value": 10**400}), []),
        (of("0", match={"value": "zero"}), [5]),
        (of('a/b~c.""', match={"value": "odd"}), [4]),
        (of('a/b~c."\\"*\\""', match={"value": 1}), [4]),
        (of("nowhere", match={"value": 1}), []),
        (of("nowhere", match={"except": [1]}), []),
        (of("*", match={"except": []}), []),
        ({"must_not": [{"key": "nowhere", "match": {"value": 1}}]}, [0, 1, 2, 3, 4, 5]),
        ({"must_not": [{"key": "tags", "match": {"value": "moon"}}]}, [2, 3, 4, 5]),
        ({"must": [{"has_id": ["p1", "p5", "none"]}]}, [1, 5]),
        ({"should": [{"has_id": ["p3"]}, {"key": "ok", "match": {"value": True}}]}, [2, 3]),
        ({"must": [{"should": [{"has_id": ["p0", "p1"]}]}], "must_not": [{"has_id": ["p0"]}]}, [1]),
    ],
)
def test_known_answers(filter_: dict[str, Any], rows: list[int]) -> None:
    assert found(table(ROWS), filter_) == rows


EXACT: list[dict[str, Any]] = [
    {"n": 2**53},
    {"n": 2**53 + 1},
    {"n": float(2**53)},
    {"n": 2**63 - 1},
    {"n": 2**63},
    {"n": 2**64 + 1},
    {"n": -(2**64) - 1},
    {"n": -0.0},
    {"n": 0},
]


@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ({"range": {"gt": 2**53}}, [1, 3, 4, 5]),
        ({"range": {"gte": 2**53 + 1}}, [1, 3, 4, 5]),
        ({"range": {"gte": 2**53, "lt": 2**53 + 1}}, [0, 2]),
        ({"range": {"gt": float(2**53)}}, [1, 3, 4, 5]),
        ({"range": {"gt": 2**63 - 1}}, [4, 5]),
        ({"range": {"lt": 2**63}}, [0, 1, 2, 3, 6, 7, 8]),
        ({"range": {"gt": 2**64}}, [5]),
        ({"range": {"lt": -(2**64)}}, [6]),
        ({"range": {"gte": -(10**400), "lte": 10**400}}, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ({"range": {"gte": 0.0, "lte": -0.0}}, [7, 8]),
        ({"match": {"value": 2**53 + 1}}, [1]),
        ({"match": {"value": 2**64 + 1}}, [5]),
        ({"match": {"value": 2**64}}, []),
        ({"match": {"value": 0}}, [7, 8]),
        ({"match": {"value": -0.0}}, [7, 8]),
        ({"match": {"except": [0.0, 2**53]}}, [1, 3, 4, 5, 6]),
    ],
)
def test_numbers_are_compared_exactly(how: dict[str, Any], rows: list[int]) -> None:
    assert found(table(EXACT), of("n", **how)) == rows


PARTS: list[dict[str, Any]] = [
    {"a.b": 1, "a": {"b": 2}, "at": "2024-02-29T12:00:00Z"},
    {"a": [{"b": 1}, {"b": [2, 3]}, 4], "at": "2024-02-29T13:00:00+02:00", "tags": []},
    {"a": [[5]], "at": "2024-02-29", "tags": None},
    {"a": {"0": 6}, "at": ["2023-12-31 23:59", "no date"], "tags": [None]},
    {"a": [6], "at": 1709208000, "tags": [[]]},
]


@pytest.mark.parametrize(
    ("filter_", "rows"),
    [
        (of('"a.b"', match={"value": 1}), [0]),
        (of("a.b", match={"value": 2}), [0]),
        (of("a[].b", match={"value": 1}), [1]),
        (of("a[].b", match={"value": 3}), [1]),
        (of("a[1].b[0]", match={"value": 2}), [1]),
        (of("a[].b[]", match={"value": 2}), [1]),
        (of("a[]", match={"value": 5}), [2]),
        (of("a", match={"value": 5}), []),
        (of("a[0]", match={"value": 6}), [4]),
        (of("a.0", match={"value": 6}), [3]),
        (of("a[]" + "[]" * 100, match={"value": 5}), []),
        (of("at", range={"gte": "2024-02-29T12:00:00Z"}), [0]),
        (of("at", range={"lt": "2024-02-29T12:00:00Z"}), [1, 2, 3]),
        (of("at", range={"gte": "2024-02-29T00:00:00Z", "lte": "2024-02-29T11:00:00.000Z"}), [1, 2]),
        (of("at", range={"lte": "2024-01-01"}), [3]),
        (of("at", range={"gt": 0}), [4]),
        ({"must": {"is_null": {"key": "tags"}}}, [2]),
        ({"must": {"is_null": {"key": "tags[]"}}}, [3]),
        ({"must": {"is_empty": {"key": "tags"}}}, [0, 1, 2]),
        ({"must_not": {"is_empty": {"key": "tags"}}}, [3, 4]),
        ({"must": {"key": "a[0]", "match": {"value": 6}}, "should": None}, [4]),
    ],
)
def test_paths_nulls_and_dates(filter_: dict[str, Any], rows: list[int]) -> None:
    assert found(table(PARTS), filter_) == rows


BIG = 2**53
EDGES = [BIG, BIG + 1, -BIG - 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40]
NUMBERS = st.one_of(
    st.integers(-3, 3), st.sampled_from(EDGES), st.sampled_from([-1.0, -0.0, 0.5, 1.0, float(BIG), 2.0**63, 1e40])
)
DATES = ["2024-02-29", "2024-02-29T12:00:00Z", "2024-02-29t14:00:00.5+02:00", "0001-01-01T00:00:00+05:00", "2024-02-30"]
SCALARS = st.one_of(st.booleans(), NUMBERS, st.sampled_from(["", "1", "ä", *DATES]))
VALUES = st.one_of(SCALARS, st.none(), st.lists(st.one_of(SCALARS, st.none(), st.just({"c": 1})), max_size=3))
INNER = st.dictionaries(st.sampled_from(["c", "0", "c.d"]), VALUES, max_size=2)
OBJECTS = st.dictionaries(
    st.sampled_from(["a", "b", "a.c"]), st.one_of(VALUES, INNER, st.lists(st.one_of(INNER, VALUES), max_size=3))
)
BOUNDS = ["gt", "gte", "lt", "lte"]
KEYS = {  # each with the steps that it stands for
    "a": ["a"],
    "b": ["b"],
    "a.c": ["a", "c"],
    '"a.c"': ["a.c"],
    'b."c.d"': ["b", "c.d"],
    "a.0": ["a", "0"],
    "a[0]": ["a", 0],
    "a[]": ["a", None],
    "a[].c": ["a", None, "c"],
    "b[][]": ["b", None, None],
}
CONDITIONS = st.fixed_dictionaries({"key": st.sampled_from(list(KEYS))}).flatmap(
    lambda base: st.one_of(
        st.sampled_from(["is_null", "is_empty"]).map(lambda name: {name: base}),
        SCALARS.map(lambda v: {**base, "match": {"value": v}}),
        st.lists(SCALARS, max_size=3).map(lambda v: {**base, "match": {"any": v}}),
        st.lists(SCALARS, max_size=3).map(lambda v: {**base, "match": {"except": v}}),
        st.dictionaries(st.sampled_from(BOUNDS), NUMBERS, min_size=1).map(lambda v: {**base, "range": v}),
        st.dictionaries(st.sampled_from(BOUNDS), st.sampled_from(DATES[:4]), min_size=1).map(
            lambda v: {**base, "range": v}
        ),
    )
)
CLAUSES = st.sampled_from(["must", "should", "must_not"])
FILTERS = st.recursive(
    st.dictionaries(CLAUSES, st.one_of(CONDITIONS, st.lists(CONDITIONS, max_size=2))),
    lambda inner: st.dictionaries(CLAUSES, st.lists(st.one_of(CONDITIONS, inner), max_size=2)),
    max_leaves=3,
)


def same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def reached(value: Any, steps: list[Any]) -> list[Any]:  # noqa: ANN401 - whatever JSON holds
    """The values that steps lead to."""
    if not steps:
        return [value]
    first, *rest = steps
    if first is None:
        inside = value if isinstance(value, list) else []
    elif isinstance(first, str):
        inside = [value[first]] if isinstance(value, dict) and first in value else []
    else:
        inside = value[first : first + 1] if isinstance(value, list) else []
    return [found for one in inside for found in reached(one, rest)]


def moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.upper())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def holds(condition: dict[str, Any], row: dict[str, Any]) -> bool:
    """What a filter means, read off its description."""
    if "is_null" in condition:
        return any(value is None for value in reached(row, KEYS[condition["is_null"]["key"]]))
    if "is_empty" in condition:
        return all(value is None or value == [] for value in reached(row, KEYS[condition["is_empty"]["key"]]))
    if "key" not in condition:
        clauses = [condition.get(name, []) for name in ("must", "should", "must_not")]
        must, should, must_not = ([parts] if isinstance(parts, dict) else parts for parts in clauses)
        some = not should or any(holds(part, row) for part in should)
        return all(holds(p, row) for p in must) and some and not any(holds(p, row) for p in must_not)
    at = reached(row, KEYS[condition["key"]])
    values = [v for found in at for v in (found if isinstance(found, list) else [found])]
    values = [v for v in values if not isinstance(v, dict | list | None)]
    if "range" in condition:
        bounds = condition["range"]
        if any(isinstance(bound, str) for bound in bounds.values()):
            bounds = {name: moment(bound) for name, bound in bounds.items()}
            values = [found for v in values if (found := moment(v)) is not None]
        else:
            values = [v for v in values if not isinstance(v, bool | str)]
        compare = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
        return any(all(compare[name](v, bound) for name, bound in bounds.items()) for v in values)
    ((how, wanted),) = condition["match"].items()
    if how == "value":
        return any(same(v, wanted) for v in values)
    return any(any(same(v, w) for w in wanted) == (how == "any") for v in values)


@given(st.lists(OBJECTS, min_size=1, max_size=6), FILTERS)
def test_a_filter_means_the_same_row_by_row(rows: list[dict[str, Any]], filter_: dict[str, Any]) -> None:
    assert found(table(rows, chunk=2), filter_) == [n for n, row in enumerate(rows) if holds(filter_, row)]


def test_masks_are_kept_and_cannot_be_changed() -> None:
    where, filter_ = table(ROWS), Filter.model_validate(of("year", match={"value": 1969}))
    mask = where.mask(filter_)
    assert where.mask(Filter.model_validate(of("year", match={"value": 1969}))) is mask
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = False
