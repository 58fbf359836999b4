"""Filters: what is a condition, and what is said of something that is none."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from causalneg.filters import MAX_CONDITIONS, MAX_DEPTH, FieldCondition, Filter, HasId, IsEmpty, IsNull
from causalneg.problems import first_problem

FIELD = {"key": "a", "match": {"value": 1}}


def said(value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Filter.model_validate_json(json.dumps(value))
    return str(first_problem(caught.value, value))


def test_each_condition_is_known_by_its_names() -> None:
    found = Filter.model_validate({"must": [FIELD, {"has_id": ["p"]}, {"should": [FIELD]}]})
    assert [type(part) for part in found.must] == [FieldCondition, HasId, Filter]
    assert Filter.model_validate_json(found.model_dump_json(by_alias=True)) == found
    assert Filter(must=list(found.must)) == found, "built from its parts"
    assert found.conditions == 3
    others = Filter.model_validate({"must": {"is_null": {"key": "a"}}, "must_not": {"is_empty": {"key": "a[].b"}}})
    assert [type(part) for part in (*others.must, *others.must_not)] == [IsNull, IsEmpty]


def test_one_condition_needs_no_list() -> None:
    assert Filter.model_validate({"must": FIELD, "should": None}) == Filter.model_validate({"must": [FIELD]})
    assert Filter(must=FieldCondition.model_validate(FIELD)) == Filter.model_validate({"must": [FIELD]})


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"key": "a"}, "must.0: give either match or range"),
        ({**FIELD, "range": {"gt": 1}}, "must.0: give either match or range"),
        ({"match": {"value": 1}}, "must.0.key: Field required"),
        ({"key": "", "match": {"value": 1}}, "must.0.key: String should have at least 1 character"),
        ({"key": "a", "match": {"text": "x"}}, "must.0.match.text: Extra inputs are not permitted"),
        ({"key": "a", "match": {"value": 1, "any": [1]}}, "must.0.match: give one of value, any and except"),
        ({"key": "a", "match": {"value": []}}, "must.0.match.value: Input should be a valid string or a valid integer"),
        ({"key": "a", "match": 7}, "must.0.match: Input should be an object"),
        ({"key": "a", "range": {}}, "must.0.range: give one of gt, gte, lt and lte"),
        ({"key": "a", "range": {"gt": None}}, "must.0.range: give one of gt, gte, lt and lte"),
        ({"key": "a", "range": {"gt": True}}, "must.0.range.gt: Input should be a valid integer or a valid number or"),
        ({"key": "a", "range": {"gt": "1"}}, "'1' is no date; write it like 2024-05-31"),
        ({"key": "a", "range": {"gt": "2024-02-30"}}, "'2024-02-30' is no date"),
        ({"key": "a", "range": {"gt": 1, "lt": "2024-01-01"}}, "must.0.range: give numbers or dates, not both"),
        ({"key": "a", "range": {"gt": float("nan")}}, "finite"),
        ({"key": "a..b", "match": {"value": 1}}, """must.0.key: 'a..b' is no path to a field; write it like"""),
        ({"is_null": {"key": "a[x]"}}, "must.0.is_null.key: 'a[x]' is no path"),
        ({"is_null": "a"}, "must.0.is_null: Input should be an object"),
        ({"has_id": "p"}, "must.0.has_id: Input should be a valid"),
        ({"has_id": ["p"], "key": "a"}, "must.0.key: Extra inputs are not permitted"),
        ({"field": "a"}, "must.0.field: Extra inputs are not permitted"),
        (7, "must.0: Input should be an object"),
    ],
)
def test_an_error_is_about_the_condition_that_was_meant(condition: object, message: str) -> None:
    found = said({"must": [condition]})
    assert message in found
    for internal in ("FieldCondition", "Filter", "Match", "Range", "HasId", "function-", "Value error", "dictionary"):
        assert internal not in found
    if isinstance(condition, dict):  # one condition by itself is named without a place in a list
        assert said({"must": condition}) == found.replace("must.0", "must")


@pytest.mark.parametrize(
    "key", ["", ".", "a.", ".a", "a..b", "a[", "a]", "a[-1]", "a[1", "[]", "[0]", 'a"b', '"a', '"a"b', "a[]b", '"\\x"']
)
def test_what_is_no_path_is_no_key(key: str) -> None:
    with pytest.raises(ValidationError):
        FieldCondition.model_validate({"key": key, "match": {"value": 1}})


def test_filters_are_bounded() -> None:
    nested: dict[str, Any] = {"must": [FIELD]}
    for _ in range(MAX_DEPTH - 1):  # the conditions are the last level
        Filter.model_validate(nested)
        nested = {"must_not": nested}
    assert "nested deeper" in said(nested)
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"must": [deep]}
    with pytest.raises(ValidationError, match="nested deeper"):
        Filter.model_validate(deep)
    Filter.model_validate({"must": [FIELD] * MAX_CONDITIONS})
    assert "more than 64" in said({"must": [FIELD] * 40, "should": [{"must": [FIELD] * 40}]})
