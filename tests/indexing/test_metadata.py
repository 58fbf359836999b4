"""Filters over metadata give what a reading of the JSON row by row gives."""

import json
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
        (of("a/b~c.", match={"value": "odd"}), [4]),
        (of('a/b~c."*"', match={"value": 1}), [4]),
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


SCALARS = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from([-1.0, 0.5, 1.0]), st.sampled_from(["", "1", "ä"])
)
VALUES = st.one_of(SCALARS, st.none(), st.lists(st.one_of(SCALARS, st.none(), st.just({"c": 1})), max_size=3))
OBJECTS = st.dictionaries(
    st.sampled_from(["a", "b"]), st.one_of(VALUES, st.dictionaries(st.sampled_from(["c"]), VALUES)), max_size=2
)
CONDITIONS = st.fixed_dictionaries(
    {"key": st.sampled_from(["a", "b", "a.c", "b.c"])},
    optional={},
).flatmap(
    lambda base: st.one_of(
        SCALARS.map(lambda v: {**base, "match": {"value": v}}),
        st.lists(SCALARS, max_size=3).map(lambda v: {**base, "match": {"any": v}}),
        st.lists(SCALARS, max_size=3).map(lambda v: {**base, "match": {"except": v}}),
        st.tuples(st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from([-1.0, 0.5, 1.0])).map(
            lambda v: {**base, "range": {v[0]: v[1]}}
        ),
    )
)
CLAUSES = st.sampled_from(["must", "should", "must_not"])
FILTERS = st.recursive(
    st.dictionaries(CLAUSES, st.lists(CONDITIONS, max_size=2)),
    lambda inner: st.dictionaries(CLAUSES, st.lists(st.one_of(CONDITIONS, inner), max_size=2)),
    max_leaves=3,
)


def same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def holds(condition: dict[str, Any], row: dict[str, Any]) -> bool:
    """What a filter means, read off its description."""
    if "key" not in condition:
        must, should, must_not = (condition.get(name, []) for name in ("must", "should", "must_not"))
        some = not should or any(holds(part, row) for part in should)
        return all(holds(p, row) for p in must) and some and not any(holds(p, row) for p in must_not)
    value: Any = row
    for name in condition["key"].split("."):
        value = value.get(name) if isinstance(value, dict) else None
    values = [v for v in (value if isinstance(value, list) else [value]) if not isinstance(v, dict | None)]
    if "range" in condition:
        ((name, bound),) = condition["range"].items()
        compare = {"gt": "__gt__", "gte": "__ge__", "lt": "__lt__", "lte": "__le__"}[name]
        return any(getattr(float(v), compare)(bound) for v in values if not isinstance(v, bool | str))
    ((how, wanted),) = condition["match"].items()
    if how == "value":
        return any(same(v, wanted) for v in values)
    return any(any(same(v, w) for w in wanted) == (how == "any") for v in values)


@given(st.lists(OBJECTS, min_size=1, max_size=6), FILTERS)
def test_a_filter_means_the_same_row_by_row(rows: list[dict[str, Any]], filter_: dict[str, Any]) -> None:
    rows = json.loads(json.dumps(rows))
    assert found(table(rows, chunk=2), filter_) == [n for n, row in enumerate(rows) if holds(filter_, row)]


def test_masks_are_kept_and_cannot_be_changed() -> None:
    where, filter_ = table(ROWS), Filter.model_validate(of("year", match={"value": 1969}))
    mask = where.mask(filter_)
    assert where.mask(Filter.model_validate(of("year", match={"value": 1969}))) is mask
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = False
