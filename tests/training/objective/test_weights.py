"""Which rules hold for a negative, and what they weigh in the course of training."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.config import WeightRule
from causalneg.errors import UserError
from causalneg.records import Source, ViolationType
from causalneg.training.objective.weights import log_weights, matching, rule_weights

ENTITY, INTENT = ViolationType.ENTITY_SHIFT, ViolationType.INTENT_DRIFT
RULES = [
    WeightRule(weight=2.0),
    WeightRule(source="generated", weight=0.2),
    WeightRule(source="mined", score="relative", at_least=0.9, weight=0.0),
    WeightRule(violation=ENTITY, weight=3.0),
    WeightRule(score="dense", at_least=0.2, below=0.5, weight=0.5),
]


@pytest.mark.parametrize(
    ("source", "violation", "scores", "expected"),
    [
        (Source.MINED, None, {}, {0}),
        (Source.MINED, None, {"relative": 0.9, "dense": 0.2}, {0, 2, 4}),
        (Source.MINED, None, {"relative": 0.89, "dense": 0.5}, {0}),
        (Source.MINED, None, {"relative": math.nan, "dense": math.nan}, {0}),
        (Source.GENERATED, ENTITY, {"relative": 1.0, "dense": 0.49}, {0, 1, 3, 4}),
        (Source.GENERATED, INTENT, {"dense": 0.19}, {0, 1}),
    ],
)
def test_a_rule_holds_when_every_condition_does(
    source: Source, violation: ViolationType | None, scores: dict[str, float], expected: set[int]
) -> None:
    mask = matching(RULES, source, violation, scores)
    assert {bit for bit in range(len(RULES)) if mask >> bit & 1} == expected


def test_a_rule_with_one_bound_does_not_hold_for_a_missing_score() -> None:
    for rule in (WeightRule(score="x", at_least=0.0, weight=1), WeightRule(score="x", below=0.0, weight=1)):
        assert matching([rule], Source.MINED, None, {"y": 0.0}) == 0
        assert matching([rule], Source.MINED, None, {"x": math.nan}) == 0


def test_32_rules_at_most() -> None:
    rules = [WeightRule(weight=1.0)] * 32
    assert matching(rules, Source.MINED, None, {}) == 2**32 - 1
    masks = np.array([2**32 - 1, 2**31, 0], np.uint32)
    found = log_weights(masks, [*rules[:31], WeightRule(weight=0.5)], 0.0)
    assert found == pytest.approx([math.log(0.5), math.log(0.5), 0.0])
    with pytest.raises(UserError, match="33 rules"):
        matching([*rules, rules[0]], Source.MINED, None, {})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (WeightRule(weight=0.3), {0.0: 0.3, 0.5: 0.3, 1.0: 0.3}),
        (WeightRule(weight=1.0, start=0.0), {0.0: 0.0, 0.25: 0.25, 0.5: 0.5, 1.0: 1.0}),
        (
            WeightRule(weight=2.0, start=4.0, begin=0.2, end=0.6),
            {0.0: 4.0, 0.2: 4.0, 0.3: 3.5, 0.4: 3.0, 0.6: 2.0, 0.9: 2.0},
        ),
        (WeightRule(weight=0.0, start=1.0, begin=0.5, end=0.5), {0.0: 1.0, 0.49: 1.0, 0.5: 0.0, 1.0: 0.0}),
        (WeightRule(weight=5.0, start=1.0, begin=0.0, end=0.0), {0.0: 5.0, 1.0: 5.0}),
        (WeightRule(weight=5.0, start=1.0, begin=1.0, end=1.0), {0.0: 1.0, 0.99: 1.0, 1.0: 5.0}),
    ],
)
def test_a_weight_changes_linearly(rule: WeightRule, expected: dict[float, float]) -> None:
    for progress, weight in expected.items():
        found = rule_weights([rule], progress)
        assert found.dtype == np.float64
        assert found == pytest.approx([weight])


def test_logs_add_up_and_0_stays_0() -> None:
    masks = np.array([[0b00000, 0b00001, 0b00011], [0b00111, 0b01000, 0b11010]], np.uint32)
    found = log_weights(masks, RULES, 0.5)
    assert found.dtype == np.float32
    assert found.shape == (2, 3)
    assert np.exp(found) == pytest.approx(np.array([[1.0, 2.0, 0.4], [0.0, 3.0, 0.3]]), rel=1e-6)
    assert found[1, 0] == -np.inf
    assert not np.isnan(found).any()


@given(
    st.lists(st.integers(0, 2**5 - 1), max_size=6),
    st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4) | st.none()), min_size=5, max_size=5),
    st.floats(0, 1),
)
def test_a_weight_is_the_product_of_its_rules(
    masks: list[int], weights: list[tuple[float, float | None]], progress: float
) -> None:
    rules = [WeightRule(weight=weight, start=start) for weight, start in weights]
    found = log_weights(np.array(masks, np.uint32), rules, progress)
    now = [w if s is None else s + progress * (w - s) for w, s in weights]
    for mask, log in zip(masks, found, strict=True):
        factors = [now[bit] for bit in range(5) if mask >> bit & 1]
        expected = -math.inf if 0.0 in factors else math.fsum(map(math.log, factors))
        assert float(log) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_no_rules_and_no_negatives() -> None:
    assert matching([], Source.MINED, None, {}) == 0
    assert log_weights(np.zeros((2, 0), np.uint32), RULES, 0.0).shape == (2, 0)
    assert log_weights(np.zeros(3, np.uint32), [], 0.0).tolist() == [0.0, 0.0, 0.0]
