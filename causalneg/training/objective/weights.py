"""Weights of negatives by rule: which rules hold for a negative is settled once, what they weigh changes by step."""

from collections.abc import Mapping, Sequence

import numpy as np

from causalneg.config import WeightRule
from causalneg.errors import UserError
from causalneg.records import Source, ViolationType

_MOST_RULES = 32  # bits of a mask


def _holds(rule: WeightRule, source: Source, violation: ViolationType | None, scores: Mapping[str, float]) -> bool:
    if rule.source is not None and rule.source != source:
        return False
    if rule.violation is not None and rule.violation != violation:
        return False
    if rule.score is None:
        return True
    score = scores.get(rule.score, np.nan)
    # A comparison with NaN is False.
    above = score == score if rule.at_least is None else score >= rule.at_least
    below = score == score if rule.below is None else score < rule.below
    return bool(above and below)


def matching(
    rules: Sequence[WeightRule], source: Source, violation: ViolationType | None, scores: Mapping[str, float]
) -> int:
    """Tell which rules hold for a negative, as a mask: bit i is set where `rules[i]` does.

    Args:
        rules: at most 32.
        source: of the negative.
        violation: how a generated one breaks its requirement, None for a mined one.
        scores: its stored scores by name; a rule about a score that it lacks, or that is NaN, does not hold.

    Raises:
        UserError: there are more than 32 rules.
    """
    if len(rules) > _MOST_RULES:
        raise UserError(f"train.weights has {len(rules)} rules; set at most {_MOST_RULES}.")
    return sum(_holds(rule, source, violation, scores) << bit for bit, rule in enumerate(rules))


def rule_weights(rules: Sequence[WeightRule], progress: float) -> np.ndarray:
    """Return what each rule weighs, float64 `[rules]`, at a share of training from 0 to 1.

    A rule with `start` goes from it to `weight` linearly between `begin` and `end`; where these are equal it is at
    `weight` from there on.
    """
    weights = np.empty(len(rules), np.float64)
    for position, rule in enumerate(rules):
        if rule.start is None or progress >= rule.end:
            weights[position] = rule.weight
        elif progress <= rule.begin:
            weights[position] = rule.start
        else:
            share = (progress - rule.begin) / (rule.end - rule.begin)
            weights[position] = rule.start + share * (rule.weight - rule.start)
    return weights


def log_weights(masks: np.ndarray, rules: Sequence[WeightRule], progress: float) -> np.ndarray:
    """Return the logarithms of negatives' weights, float32, -inf for a weight of 0: what is added to their logits.

    Args:
        masks: uint32 of any shape, from `matching` with the same rules; 0 gives a weight of 1.
        rules: at most 32.
        progress: share of training done, 0 to 1.
    """
    result = np.zeros(masks.shape, np.float64)
    with np.errstate(divide="ignore"):
        logs = np.log(rule_weights(rules, progress))
    for bit, log in enumerate(logs):
        holds = (masks >> np.uint32(bit)) & np.uint32(1) == 1
        result += np.where(holds, log, 0.0)  # and no product: 0 * -inf is NaN
    return result.astype(np.float32)
