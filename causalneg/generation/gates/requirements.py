"""Which requirements of its analysis an edited negative meets: known exactly, since the edit is."""

from collections.abc import Iterable

from causalneg.generation.gates.edits import traces_left
from causalneg.generation.rows import Pair
from causalneg.generation.text import find, fold, replace
from causalneg.records import Analysis, Change, Edit, Judgement, Negative, Operation, Requirement

MET, BROKEN = 1.0, -1.0


def _plain(text: str) -> str:
    return " ".join(text.split())


def _after(evidence: str, changes: Iterable[Change]) -> str:
    """Return the evidence as the replacements leave it."""
    for change in changes:
        evidence = replace(evidence, change.removed, change.inserted)
    return evidence


def _is_broken(negative: Negative, edit: Edit, pair: Pair) -> bool:
    """Whether the edit really is in the text: nothing that it takes out stands there any more."""
    gone = not any(find(change.removed, negative.full_text) for change in edit.changes)
    return gone and traces_left(negative, pair) == 0


def _went_with_it(requirement: Requirement, edit: Edit) -> bool:
    """Whether a requirement was met by a removed sentence alone: it can't be met without it, and is not asked."""
    removed = [_plain(change.removed) for change in edit.changes]
    return edit.operation is not Operation.REPLACE and any(_plain(requirement.evidence) in r for r in removed)


def judge_edit(negative: Negative, analysis: Analysis, pair: Pair) -> list[Judgement]:
    """Judge every requirement by the texts alone.

    The broken one is met as long as something that the edit takes out is left. Another is met where its evidence
    stands in the negative, with the same replacements made in it: it then says the same of something else. A
    requirement whose evidence went with a removed sentence is not judged.
    """
    edit = negative.edit
    if edit is None:
        raise ValueError(f"negative {negative.id} is not an edit")
    text = fold(_plain(negative.full_text))
    rows = []
    for requirement in analysis.requirements:
        if requirement.id == negative.requirement_id:
            met = not _is_broken(negative, edit, pair)
        elif _went_with_it(requirement, edit):
            continue
        else:
            changes = edit.changes if edit.operation is Operation.REPLACE else []
            met = fold(_plain(_after(requirement.evidence, changes))) in text
        rows.append(Judgement(requirement_id=requirement.id, score=MET if met else BROKEN))
    return rows
