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


def _weakest_other(case: Case) -> str:
    """Return the critical requirement, other than the broken one, that a negative meets least."""
    content = {r.id: r.content for r in case.analysis.requirements if r.critical}
    content.pop(case.negative.requirement_id, None)
    judged = [j for j in case.negative.judgements if j.requirement_id in content and not j.moot]
    return content[min(judged, key=lambda j: j.score).requirement_id] if judged else ""


@dataclass(frozen=True)
class Gate:
    """A bound on one score.

    Attributes:
        name: as it stands in `rejected_by`.
        score: the score it looks at.
        meaning: what it means to be rejected by it, in words.
        low: least value that passes, from the thresholds.
        high: largest value that passes.
        applies: to which negatives; each of them must have the score where there is a bound.
        asks: whether the score needs the LLM.
        about: what the score is about, in words; "" where there is nothing to say.
    """

    name: str
    score: str
    meaning: str
    low: Callable[[GateSettings], float | None] = lambda _: None
    high: Callable[[GateSettings], float | None] = lambda _: None
    applies: Applies = _to_all
    asks: bool = False
    about: Callable[[Case], str] | None = None

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
        about = self.about(case) if self.about else negative.notes.get(self.score, "")
        note = f": {about}" if about else ""
        if low is not None and value < low:
            return f"{self.score} {value:.3g} is below {low:g}{note}"
        if high is not None and value > high:
            return f"{self.score} {value:.3g} is above {high:g}{note}"
        return None


def _always(value: float) -> Callable[[GateSettings], float]:
    return lambda _: value


# In the order in which they are asked: the first that a negative does not pass is named in its row.
GATES: tuple[Gate, ...] = (
    Gate(
        "length",
        "length_ratio",
        "too short or too long beside the positive",
        lambda t: t.min_length_ratio,
        lambda t: t.max_length_ratio,
    ),
    Gate("form", "form_defects", "not a clean passage: broken off, garbled, or talking about itself", high=_always(0)),
    Gate("dangling", "dangling", "a sentence points back to one that is gone", high=_always(0), applies=_edited),
    Gate(
        "style",
        "style_distance",
        "does not read like the corpus: its length, punctuation or kinds of words are too far off",
        high=lambda t: t.max_style_distance,
    ),
    Gate(
        "intended_change",
        "outside_changes",
        "more changed than the edit was meant to change",
        high=_always(0),
        applies=_edited,
    ),
    Gate("near_copy", "overlap", "nearly the words of a known positive", high=lambda t: t.max_overlap),
    Gate(
        "reference_copied",
        "reference_copied",
        "nearly the words of a mined negative",
        high=lambda t: t.max_reference_copied,
        applies=_written,
    ),
    Gate(
        "query_copied",
        "query_copied",
        "repeats the query's words, which the positive does not",
        high=lambda t: t.max_query_copied,
    ),
    Gate(
        "answer_replaced",
        "answer_replaced",
        "puts another answer in the place of the right one: a wrong answer still answers",
        high=_always(0),
        applies=_edited,
    ),
    Gate(
        "edits_answer", "edits_answer", "leaves the statement of the answer as it was", low=_always(1), applies=_edited
    ),
    Gate(
        "details_left",
        "details_left",
        "keeps too many of the details by which the positive meets the query",
        high=lambda t: t.max_details_left,
        applies=_edited,
    ),
    Gate("answer_left", "answer_left", "still holds the answer, or part of it", high=lambda t: t.max_answer_left),
    Gate(
        "candidates_left",
        "candidates_left",
        "a sentence went, but what is left may still hold the answer",
        high=lambda t: t.max_candidates_left,
        applies=_edited,
    ),
    Gate(
        "answers",
        "answers",
        "answers the query after all, wholly or in part, or lets the answer be worked out",
        high=lambda t: -t.judge_margin,
        applies=_asked,
        asks=True,
    ),
    Gate(
        "target_met",
        "target_met",
        "still meets the requirement that it should break",
        high=lambda t: t.max_target_met,
        applies=lambda c: c.certain,
        asks=True,
    ),
    Gate(
        "target_unsure",
        "target_met",
        "may still meet the requirement that it should break",
        high=lambda t: -t.judge_margin,
        applies=_asked,
        asks=True,
    ),
    Gate(
        "others_met",
        "others_met",
        "breaks another critical requirement, too",
        low=lambda t: t.min_others_met,
        applies=lambda c: c.certain and c.others_judged,
        asks=True,
        about=_weakest_other,
    ),
    Gate(
        "target_likely",
        "target_likely",
        "makes the requirement that it should break too likely",
        high=lambda t: t.max_target_likely,
        applies=lambda c: not c.certain,
        asks=True,
    ),
    Gate(
        "others_likely",
        "others_likely",
        "makes another critical requirement too unlikely",
        low=lambda t: t.min_others_likely,
        applies=lambda c: not c.certain and c.others_judged,
        asks=True,
        about=_weakest_other,
    ),
    Gate(
        "likelihood",
        "likelihood_margin",
        "makes the query about as likely as the positive does: it may still answer",
        low=lambda t: t.min_likelihood_margin,
        applies=_told,
        asks=True,
    ),
    Gate(
        "replacement",
        "replaced_margin",
        "makes the query too likely for a passage with other details: a reader may take the answer",
        low=lambda t: t.min_replaced_margin,
        applies=lambda c: _told(c) and _replaced(c),
        asks=True,
    ),
    Gate("fluency", "fluency", "reads worse than the positive", low=lambda t: t.min_fluency, applies=_told, asks=True),
    # What scores above the positive is what the encoder gets wrong: a judge that was asked knows better.
    Gate(
        "positive_aware",
        "relative_score",
        "scores too near the positive, or above it, under the base encoder",
        high=lambda t: t.max_relative_score,
        applies=lambda c: not _asked(c),
    ),
    Gate(
        "positive_aware_judged",
        "relative_score",
        "scores farther above the positive than the settings allow, under the base encoder",
        high=lambda t: t.max_judged_relative_score,
        applies=_asked,
    ),
    Gate(
        "too_easy",
        "relative_score",
        "too far from the query beside the positive to teach anything",
        low=lambda t: t.min_relative_score,
        applies=_written,
    ),
    Gate(
        "cross_encoder",
        "cross_relative_score",
        "scores too near the positive, or above it, under the cross-encoder",
        high=lambda t: t.max_cross_score,
    ),
    Gate(
        "hardness",
        "hardness",
        "too easy or too hard beside the mined negatives",
        lambda t: t.min_hardness,
        lambda t: t.max_hardness,
    ),
)

ACCEPTED = "accepted"  # stands beside the names of the gates where negatives are counted
DUPLICATE, SURPLUS, VIOLATION_SHARE = "duplicate", "negatives_per_query", "max_violation_share"
FAILED = "failed"  # it could not be scored; stands in the drafts, with the reason
# What became of a negative, by what stands in `rejected_by`.
MEANINGS: dict[str, str] = {gate.name: gate.meaning for gate in GATES} | {
    ACCEPTED: "passed every gate",
    DUPLICATE: "nearly the words of another accepted negative",
    SURPLUS: "passed, but enough others were taken for the pair",
    VIOLATION_SHARE: "passed, but there are too many of this kind of violation",
    FAILED: "could not be judged",
}


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


def rejections(case: Case, thresholds: GateSettings) -> dict[str, str]:
    """Return every gate that a negative does not pass, with the reason; of those whose score it has."""
    asked = ((gate.name, gate.reason(case, thresholds)) for gate in GATES if not gate.lacks(case, thresholds))
    return {name: reason for name, reason in asked if reason}


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
