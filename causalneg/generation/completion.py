"""Completes the scores of drafts that an earlier version wrote, or that were made before a gate was there."""

from collections.abc import Callable

from causalneg.config import GateSettings
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.rows import Pair, Procedure, Step
from causalneg.generation.scoring import Scorer
from causalneg.generation.select import FAILED, cases, lacking
from causalneg.records import Analysis, Negative

_ALWAYS = "cosine"  # selection ranks by it


def complete(
    drafts: Drafts,
    procedure: Procedure,
    thresholds: GateSettings,
    make_scorer: Callable[[], Scorer],
    may_open: bool = True,
) -> int:
    """Compute the scores that need no LLM where they are missing, and open the pairs that lack others.

    Of these pairs the last step alone is done again, and only for the negatives that lack a score.

    Args:
        drafts: that may lack scores.
        procedure: how their negatives are scored.
        thresholds: which gates are on.
        make_scorer: gives what computes scores; only called where one is missing.
        may_open: whether pairs are opened, or only counted.

    Returns:
        Number of pairs that lack scores of the LLM.
    """
    scorer: Scorer | None = None
    lacking_pairs = 0
    for batch, steps in drafts.steps(STEPS[-1]):
        rows, plain = steps, {s.pair_id for s in steps if _lacking_plain(s, procedure, thresholds)}
        if plain:
            scorer = scorer or make_scorer()
            pairs = {p.id: p for p in drafts.pairs(batch)}
            rows = [_scored(s, pairs[s.pair_id], scorer) if s.pair_id in plain else s for s in steps]
        marked = [_marked(s, procedure, thresholds) for s in rows]
        lacking_pairs += sum(bool(row.again) for row in marked)
        kept = marked if may_open else rows
        if kept != steps:
            drafts.reopen(batch, kept)
    return lacking_pairs


def _lacking_plain(step: Step, procedure: Procedure, thresholds: GateSettings) -> bool:
    """Whether a negative lacks a score that needs no LLM."""
    return any(
        _ALWAYS not in case.negative.scores or any(not gate.asks for gate in lacking(case, thresholds))
        for case in cases(step, procedure)
        if case.negative.rejected_by != FAILED
    )


def _scored(step: Step, pair: Pair, scorer: Scorer) -> Step:
    """Return a step whose negatives have every score that needs no LLM; those that they had stay as they are."""
    if step.analysis is None:
        return step
    return step.model_copy(update={"negatives": _with_scores(step.negatives, pair, step.analysis, scorer)})


def _with_scores(negatives: list[Negative], pair: Pair, analysis: Analysis, scorer: Scorer) -> list[Negative]:
    made = scorer.scores(pair, analysis, negatives)
    return [
        n.model_copy(update={"scores": scores | n.scores, "notes": notes | n.notes})
        for n, (scores, notes) in zip(negatives, made, strict=True)
    ]


def _marked(step: Step, procedure: Procedure, thresholds: GateSettings) -> Step:
    """Return a step with the negatives marked that lack a score which needs the LLM."""
    lack = [c.negative.id for c in cases(step, procedure) if any(gate.asks for gate in lacking(c, thresholds))]
    new = [part for part in lack if part not in step.again]
    return step.model_copy(update={"again": [*step.again, *new]}) if new else step
