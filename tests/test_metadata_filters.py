"""Filters: what is a condition, and what is said of something that is none."""

from typing import Any

import pytest
from pydantic import ValidationError

from causalneg.filters import MAX_CONDITIONS, MAX_DEPTH, FieldCondition, Filter, HasId

FIELD = {"key": "a", "match": {"value": 1}}


def errors(value: object) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        Filter.model_validate(value)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


def test_each_condition_is_known_by_its_names() -> None:
    found = Filter.model_validate({"must": [FIELD, {"has_id": ["p"]}, {"should": [FIELD]}]})
    assert [type(part) for part in found.must] == [FieldCondition, HasId, Filter]
    assert Filter.model_validate_json(found.model_dump_json(by_alias=True)) == found
    assert Filter(must=list(found.must)) == found, "built from its parts"
    assert found.conditions == 3


@pytest.mark.parametrize(
    ("condition", "place", "message"),
    [
        ({"key": "a"}, "FieldCondition", "give either match or range"),
        ({**FIELD, "range": {"gt": 1}}, "FieldCondition", "give either match or range"),
        ({"match": {"value": 1}}, "FieldCondition.key", "Field required"),
        ({"key": "", "match": {"value": 1}}, "FieldCondition.key", "at least 1 character"),
        ({"key": "a", "match": {"text": "x"}}, "FieldCondition.match.text", "not permitted"),
        ({"key": "a", "match": {"value": 1, "any": [1]}}, "FieldCondition.match", "one of value, any and except"),
        ({"key": "a", "range": {}}, "FieldCondition.range", "one of gt, gte, lt and lte"),
        ({"key": "a", "range": {"gt": "1"}}, "FieldCondition.range.gt", "valid number"),
        ({"key": "a", "range": {"gt": float("nan")}}, "FieldCondition.range.gt", "finite"),
        ({"has_id": "p"}, "HasId.has_id", "valid list"),
        ({"has_id": ["p"], "key": "a"}, "HasId.key", "not permitted"),
        ({"field": "a"}, "Filter.field", "not permitted"),
        (7, "Filter", "valid dictionary"),
    ],
)
def test_an_error_is_about_the_condition_that_was_meant(condition: object, place: str, message: str) -> None:
    (found,) = errors({"must": [condition]})
    assert found[0] == f"must.0.{place}"
    assert message in found[1]


def test_filters_are_bounded() -> None:
    nested: dict[str, Any] = {"must": [FIELD]}
    for _ in range(MAX_DEPTH - 1):  # the conditions are the last level
        Filter.model_validate(nested)
        nested = {"must_not": [nested]}
    assert "nested deeper" in errors(nested)[0][1]
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"must": [deep]}
    assert "nested deeper" in errors(deep)[0][1]
    Filter.model_validate({"must": [FIELD] * MAX_CONDITIONS})
    assert "more than 64" in errors({"must": [FIELD] * 40, "should": [{"must": [FIELD] * 40}]})[0][1]
