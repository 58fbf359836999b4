"""Decides on all scored negatives of the data set, and writes the stage's rows; asks no model."""

from collections import Counter
from collections.abc import Iterator, Sequence

from causalneg.config import GenerateSettings
from causalneg.generation.batches import verdict
from causalneg.generation.drafts import STEPS, Drafts
from causalneg.generation.gates.duplicates import Deduplicator
from causalneg.generation.rows import Step
from causalneg.generation.select import DUPLICATE, VIOLATION_SHARE, Case, cases, rejected, rejection, select
from causalneg.records import Analysis, Failure, FalseNegative, Negative, Outcome, ViolationType
from causalneg.workspace import Workspace

_WHOLE = 1 << 48  # ids are hexadecimal hashes; their first 12 digits are as good as drawn at random


class _Decider:
    """Decides pair by pair, in their order; of like texts the first is kept."""

    def __init__(self, settings: GenerateSettings) -> None:
        self._settings = settings
        self._seen = Deduplicator(settings.gates.max_duplicate)

    def decide(self, pair: Sequence[Case]) -> list[Negative]:
        """Give a pair's negatives their verdicts."""
        duplicates: dict[str, str] = {}
        for case in pair:
            if rejection(case, self._settings.gates) is None:
                first = self._seen.find(case.negative.full_text)
                if first is not None:
                    duplicates[case.negative.id] = first
        decided = iter(select([case for case in pair if case.negative.id not in duplicates], self._settings))
        rows = [
            rejected(n, DUPLICATE, f"it is nearly the text of negative {duplicates[n.id]}")
            if n.id in duplicates
            else next(decided)
            for n in (case.negative for case in pair)
        ]
        for row in rows:
            if row.verdict == "accepted":
                self._seen.add(row.id, row.full_text)
        return rows


def kept_shares(counts: Counter[ViolationType], most: float) -> dict[ViolationType, float]:
    """Return the share of each kind of violation to keep, so that none makes up more than `most` of what is kept.

    Kinds are cut to the same number, the largest first; with fewer kinds than `most` allows for, the share can't be
    reached, and they are cut to equal numbers.
    """
    if most >= 1 or not counts:
        return dict.fromkeys(counts, 1.0)
    allowed = float(max(counts.values()))
    while True:
        kept = {kind: min(count, allowed) for kind, count in counts.items()}
        lower = most * sum(kept.values())
        least = float(min(counts.values()))
        if allowed <= lower + 0.5 or allowed <= least:
            return {kind: kept[kind] / counts[kind] for kind in counts}
        allowed = max(lower, least)


def _thinned(negative: Negative, shares: dict[ViolationType, float], most: float) -> Negative:
    if negative.verdict != "accepted" or int(negative.id[:12], 16) < shares[negative.violation] * _WHOLE:
        return negative
    return rejected(
        negative, VIOLATION_SHARE, f"more than {most:g} of the data set are of the kind {negative.violation}"
    )


def decided(drafts: Drafts, settings: GenerateSettings) -> Iterator[tuple[str, list[Step]]]:
    """Stream the last step's rows with every negative's verdict, a batch at a time with its name.

    Raises:
        MissingScoreError: a negative lacks a score that a gate must look at.
    """
    procedure = drafts.procedure()
    shares: dict[ViolationType, float] | None = None
    if settings.max_violation_share < 1:
        first, counts = _Decider(settings), Counter[ViolationType]()
        for _, steps in drafts.steps(STEPS[-1]):
            for step in steps:
                rows = first.decide(cases(step, procedure))
                counts.update(n.violation for n in rows if n.verdict == "accepted")
        shares = kept_shares(counts, settings.max_violation_share)
    decider = _Decider(settings)
    for batch, steps in drafts.steps(STEPS[-1]):
        made = []
        for step in steps:
            negatives = decider.decide(cases(step, procedure))
            if shares:
                negatives = [_thinned(n, shares, settings.max_violation_share) for n in negatives]
            made.append(step.model_copy(update={"negatives": negatives}))
        yield batch, made


def answering_of(analysis: Analysis) -> Iterator[FalseNegative]:
    """Yield the mined candidates that an analysis found to answer the query after all."""
    for passage_id in analysis.answering:
        yield FalseNegative(query_id=analysis.query_id, passage_id=passage_id, whole=True)


def write_batch(workspace: Workspace, drafts: Drafts, batch: str, steps: Sequence[Step]) -> list[Outcome]:
    """Write a batch's final rows and return the outcomes of its pairs."""
    known = drafts.read_outcomes(batch)
    name = f"part-{batch}"
    workspace.write_rows("analyses", name, Analysis, [s.analysis for s in steps if s.analysis])
    if answering := [f for s in steps if s.analysis for f in answering_of(s.analysis)]:
        workspace.write_rows("answering", name, FalseNegative, answering)
    workspace.write_rows("negatives", name, Negative, [n for s in steps for n in s.negatives])
    workspace.write_rows("failures", name, Failure, [f for s in steps for f in ([s.failure] if s.failure else s.lost)])
    rows = [known[s.pair_id].model_copy(update=verdict(s)) for s in steps]
    workspace.write_rows("outcomes", name, Outcome, rows)
    return rows
