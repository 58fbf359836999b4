"""Decides on generated negatives by their scores and the thresholds of the config; asks no model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from causalneg.config import GateSettings, GenerateSettings
from causalneg.generation.rows import Procedure, Step
from causalneg.records import Analysis, Negative, Operation


class MissingScoreError(Exception):
    """A negative lacks a score that a gate must look at."""


@dataclass(frozen=True)
class Case:
    """A negative, and what it follows from which scores it must have."""

    negative: Negative
    analysis: Analysis
    procedure: Procedure

    @property
    def certain(self) -> bool:
        """Whether it was judged by answers or by its own edit, and not by likelihood."""
        return self.procedure.judge == "yes_no" or self.negative.edit is not None

    @property
    def others_judged(self) -> bool:
        """Whether another critical requirement was judged; one that went with a removed sentence is not."""
        broken = self.negative.requirement_id
        critical = {r.id for r in self.analysis.requirements if r.critical and r.id != broken}
        return any(j.requirement_id in critical for j in self.negative.judgements)


def cases(step: Step, procedure: Procedure | None) -> list[Case]:
    """Return what a step made of a pair as cases to decide on; none of a pair that failed.

    Raises:
        MissingScoreError: nothing says how its negatives were scored.
    """
    if not step.negatives:
        return []
    if step.analysis is None or procedure is None:
        raise MissingScoreError(f"nothing says how the negatives of pair {step.pair_id} were scored")
    return [Case(n, step.analysis, procedure) for n in step.negatives]


Applies = Callable[[Case], bool]


def _to_all(_case: Case) -> bool:
    return True


def _edited(case: Case) -> bool:
    return case.negative.edit is not None


def _written(case: Case) -> bool:
    return case.negative.edit is None


def _replaced(case: Case) -> bool:
    return case.negative.edit is not None and case.negative.edit.operation is Operation.REPLACE


def _asked(case: Case) -> bool:
    return case.procedure.judge == "yes_no"


def _told(case: Case) -> bool:
    return case.procedure.likelihoods


@dataclass(frozen=True)
class Gate:
    """A bound on one score.

    Attributes:
        name: as it stands in `rejected_by`.
        score: the score it looks at.
        low: least value that passes, from the thresholds.
        high: largest value that passes.
        applies: to which negatives; each of them must have the score where there is a bound.
        asks: whether the score needs the LLM.
    """

    name: str
    score: str
    low: Callable[[GateSettings], float | None] = lambda _: None
    high: Callable[[GateSettings], float | None] = lambda _: None
    applies: Applies = _to_all
    asks: bool = False

    def lacks(self, case: Case, thresholds: GateSettings) -> bool:
        """Whether a negative lacks the score that the gate must look at."""
        bounded = self.low(thresholds) is not None or self.high(thresholds) is not None
        return bounded and self.applies(case) and self.score not in case.negative.scores

    def reason(self, case: Case, thresholds: GateSettings) -> str | None:
        """Return why a negative does not pass, in words, or None where it does.

        Raises:
            MissingScoreError: it lacks the score.
        """
        negative = case.negative
        if self.lacks(case, thresholds):
            raise MissingScoreError(f"negative {negative.id} lacks the score {self.score} of the gate {self.name}")
        if not self.applies(case) or (value := negative.scores.get(self.score)) is None:
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
    Gate("dangling", "dangling", high=_always(0), applies=_edited),
    Gate("style", "style_distance", high=lambda t: t.max_style_distance),
    Gate("intended_change", "outside_changes", high=_always(0), applies=_edited),
    Gate("near_copy", "overlap", high=lambda t: t.max_overlap),
    Gate("reference_copied", "reference_copied", high=lambda t: t.max_reference_copied, applies=_written),
    Gate("query_copied", "query_copied", high=lambda t: t.max_query_copied),
    Gate("answer_replaced", "answer_replaced", high=_always(0), applies=_edited),
    Gate("edits_answer", "edits_answer", low=_always(1), applies=_edited),
    Gate("details_left", "details_left", high=lambda t: t.max_details_left, applies=_edited),
    Gate("answer_left", "answer_left", high=lambda t: t.max_answer_left),
    Gate("candidates_left", "candidates_left", high=lambda t: t.max_candidates_left, applies=_edited),
    Gate("answers", "answers", high=lambda t: -t.judge_margin, applies=_asked, asks=True),
    Gate("target_met", "target_met", high=lambda t: t.max_target_met, applies=lambda c: c.certain, asks=True),
    Gate("target_unsure", "target_met", high=lambda t: -t.judge_margin, applies=_asked, asks=True),
    Gate(
        "others_met",
        "others_met",
        low=lambda t: t.min_others_met,
        applies=lambda c: c.certain and c.others_judged,
        asks=True,
    ),
    Gate(
        "target_likely", "target_likely", high=lambda t: t.max_target_likely, applies=lambda c: not c.certain, asks=True
    ),
    Gate(
        "others_likely",
        "others_likely",
        low=lambda t: t.min_others_likely,
        applies=lambda c: not c.certain and c.others_judged,
        asks=True,
    ),
    Gate("likelihood", "likelihood_margin", low=lambda t: t.min_likelihood_margin, applies=_told, asks=True),
    Gate(
        "replacement",
        "replaced_margin",
        low=lambda t: t.min_replaced_margin,
        applies=lambda c: _told(c) and _replaced(c),
        asks=True,
    ),
    Gate("fluency", "fluency", low=lambda t: t.min_fluency, applies=_told, asks=True),
    # What scores above the positive is what the encoder gets wrong: a judge that was asked knows better.
    Gate("positive_aware", "relative_score", high=lambda t: t.max_relative_score, applies=lambda c: not _asked(c)),
    Gate("positive_aware_judged", "relative_score", high=lambda t: t.max_judged_relative_score, applies=_asked),
    Gate("too_easy", "relative_score", low=lambda t: t.min_relative_score, applies=_written),
    Gate("cross_encoder", "cross_relative_score", high=lambda t: t.max_cross_score),
    Gate("hardness", "hardness", lambda t: t.min_hardness, lambda t: t.max_hardness),
)

DUPLICATE, SURPLUS, VIOLATION_SHARE = "duplicate", "negatives_per_query", "max_violation_share"
FAILED = "failed"  # it could not be scored; stands in the drafts, with the reason


def lacking(case: Case, thresholds: GateSettings) -> list[Gate]:
    """Return the gates whose score a negative lacks; one that could not be scored needs none."""
    if case.negative.rejected_by == FAILED:
        return []
    return [gate for gate in GATES if gate.lacks(case, thresholds)]


def rejection(case: Case, thresholds: GateSettings) -> tuple[str, str] | None:
    """Return name and reason of the first gate that a negative does not pass, or None; or why it has no scores.

    Raises:
        MissingScoreError: it lacks a score that a gate before that must look at.
    """
    if case.negative.rejected_by == FAILED:
        return FAILED, case.negative.reason or ""
    for gate in GATES:
        if reason := gate.reason(case, thresholds):
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
    ranked = sorted(negatives, key=lambda n: (-n.scores["cosine"], n.id))
    count = min(settings.negatives_per_query, len(ranked))
    step = (len(ranked) - 1) / max(1, count - 1) if settings.selection == "spread" else 1.0
    chosen: dict[int, int] = {}  # rank: requirement
    for place in range(count):
        free = (rank for rank in range(len(ranked)) if rank not in chosen)
        best = min(free, key=lambda r: (ranked[r].requirement_id in chosen.values(), abs(r - place * step), r))
        chosen[best] = ranked[best].requirement_id
    return {ranked[rank].id for rank in chosen}


def select(pair: Sequence[Case], settings: GenerateSettings) -> list[Negative]:
    """Give each negative of a pair its verdict.

    Returns:
        The negatives, in the same order.

    Raises:
        MissingScoreError: one lacks a score that a gate must look at.
    """
    negatives = [case.negative for case in pair]
    failed = [rejection(case, settings.gates) for case in pair]
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
