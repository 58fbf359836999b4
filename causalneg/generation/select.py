"""Decides on generated negatives by their scores and the thresholds of the config; asks no model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from causalneg.config import GateSettings, GenerateSettings
from causalneg.records import Negative


@dataclass(frozen=True)
class Gate:
    """A bound on one score. A negative without the score, as an edit's of one that is none, is not asked.

    Attributes:
        name: as it stands in `rejected_by`.
        score: the score it looks at.
        low: least value that passes, from the thresholds.
        high: largest value that passes.
    """

    name: str
    score: str
    low: Callable[[GateSettings], float | None] = lambda _: None
    high: Callable[[GateSettings], float | None] = lambda _: None

    def reason(self, negative: Negative, thresholds: GateSettings) -> str | None:
        """Return why a negative does not pass, in words, or None where it does."""
        value = negative.scores.get(self.score)
        if value is None:
            return None
        low, high = self.low(thresholds), self.high(thresholds)
        note = f": {negative.notes[self.score]}" if self.score in negative.notes else ""
        if low is not None and value < low:
            return f"{self.score} {value:.3g} is below {low:g}{note}"
        if high is not None and value > high:
            return f"{self.score} {value:.3g} is above {high:g}{note}"
        return None


def _always(value: float) -> Callable[[GateSettings], float]:
    return lambda _: value


# In the order in which they are asked: the first that a negative does not pass is named in its row.
GATES: tuple[Gate, ...] = (
    Gate("length", "length_ratio", lambda t: t.min_length_ratio, lambda t: t.max_length_ratio),
    Gate("form", "form_defects", high=_always(0)),
    Gate("dangling", "dangling", high=_always(0)),
    Gate("style", "style_distance", high=lambda t: t.max_style_distance),
    Gate("intended_change", "outside_changes", high=_always(0)),
    Gate("near_copy", "overlap", high=lambda t: t.max_overlap),
    Gate("reference_copied", "reference_copied", high=lambda t: t.max_reference_copied),
    Gate("query_copied", "query_copied", high=lambda t: t.max_query_copied),
    Gate("answer_replaced", "answer_replaced", high=_always(0)),
    Gate("edits_answer", "edits_answer", low=_always(1)),
    Gate("details_left", "details_left", high=lambda t: t.max_details_left),
    Gate("answer_left", "answer_left", high=lambda t: t.max_answer_left),
    Gate("candidates_left", "candidates_left", high=lambda t: t.max_candidates_left),
    Gate("target_met", "target_met", high=lambda t: t.max_target_met),
    Gate("others_met", "others_met", low=lambda t: t.min_others_met),
    Gate("target_likely", "target_likely", high=lambda t: t.max_target_likely),
    Gate("others_likely", "others_likely", low=lambda t: t.min_others_likely),
    Gate("likelihood", "likelihood_margin", low=lambda t: t.min_likelihood_margin),
    Gate("replacement", "replaced_margin", low=lambda t: t.min_replaced_margin),
    Gate("fluency", "fluency", low=lambda t: t.min_fluency),
    Gate("positive_aware", "relative_score", high=lambda t: t.max_relative_score),
    Gate("cross_encoder", "cross_relative_score", high=lambda t: t.max_cross_score),
    Gate("hardness", "hardness", lambda t: t.min_hardness, lambda t: t.max_hardness),
)

DUPLICATE, SURPLUS, VIOLATION_SHARE = "duplicate", "negatives_per_query", "max_violation_share"
FAILED = "failed"  # it could not be scored; stands in the drafts, with the reason


def rejection(negative: Negative, thresholds: GateSettings) -> tuple[str, str] | None:
    """Return name and reason of the first gate that a negative does not pass, or None; or why it has no scores."""
    if negative.rejected_by == FAILED:
        return FAILED, negative.reason or ""
    for gate in GATES:
        if reason := gate.reason(negative, thresholds):
            return gate.name, reason
    return None


def rejected(negative: Negative, by: str, reason: str) -> Negative:
    """Return a negative with the verdict that it is rejected."""
    return negative.model_copy(update={"verdict": "rejected", "rejected_by": by, "reason": reason})


def _choose(negatives: Sequence[Negative], settings: GenerateSettings) -> set[str]:
    """Return the ids that are kept of one pair's negatives that passed: different requirements first.

    Each place is given to the negative whose rank by similarity to the query is nearest to the rank that the place is
    for: evenly spread over all ranks, or the first ones, as the settings say.
    """
    ranked = sorted(negatives, key=lambda n: (-n.scores.get("cosine", 0.0), n.id))
    count = min(settings.negatives_per_query, len(ranked))
    step = (len(ranked) - 1) / max(1, count - 1) if settings.selection == "spread" else 1.0
    chosen: dict[int, int] = {}  # rank: requirement
    for place in range(count):
        free = (rank for rank in range(len(ranked)) if rank not in chosen)
        best = min(free, key=lambda r: (ranked[r].requirement_id in chosen.values(), abs(r - place * step), r))
        chosen[best] = ranked[best].requirement_id
    return {ranked[rank].id for rank in chosen}


def select(negatives: Sequence[Negative], settings: GenerateSettings) -> list[Negative]:
    """Give each negative of a pair its verdict.

    Returns:
        The same negatives, in the same order.
    """
    failed = [rejection(n, settings.gates) for n in negatives]
    chosen = _choose([n for n, why in zip(negatives, failed, strict=True) if why is None], settings)
    decided = []
    for negative, why in zip(negatives, failed, strict=True):
        if why:
            decided.append(rejected(negative, *why))
        elif negative.id in chosen:
            accepted = {"verdict": "accepted", "rejected_by": None, "reason": None}
            decided.append(negative.model_copy(update=accepted))
        else:
            reason = f"the pair has {settings.negatives_per_query} others"
            decided.append(rejected(negative, SURPLUS, reason))
    return decided
