"""Edits a positive in one place: replaces what meets a constraint, drops the evidence, or grafts another sentence."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from causalneg.generation.edit.requirements import Constraint, subject
from causalneg.generation.text import (
    Kind,
    Span,
    find,
    fold,
    is_proper,
    number_of,
    replace,
    sentences,
    typed_spans,
    year_of,
)
from causalneg.records import Change, Edit, Operation, Passage

# A replacement of another order would be seen through at once, by a reader and by an encoder.
_NEAR_YEARS = 150
# Nearer than this, a changed year may pass for another account of the same event.
_OTHER_YEARS = 3
_NEAR_FACTOR = 4
_OTHER_FACTOR = 1.2  # nearer than this, a quantity may pass for another measurement of the same
GAP = "____"


@dataclass(frozen=True)
class Edited:
    """A positive after an edit."""

    title: str
    text: str
    edit: Edit


@dataclass(frozen=True)
class Alternative:
    """Something from the corpus that may take a span's place."""

    text: str
    title: str = ""


def drop(positive: Passage, places: Sequence[int]) -> Edited | None:
    """Take sentences away, by their numbers; nothing where none would be left."""
    parts = sentences(positive.text)
    kept = [s for at, s in enumerate(parts) if at not in places]
    if not kept:
        return None
    changes = [Change(removed=parts[at]) for at in places]
    return Edited(positive.title, " ".join(kept), Edit(operation=Operation.DROP, changes=changes))


def graft(positive: Passage, places: Sequence[int], options: Sequence[str]) -> Edited:
    """Put other sentences in the place of some, one for one as far as there are others; the rest is taken away."""
    parts, order = sentences(positive.text), sorted(places)
    inserted = dict(zip(order, options, strict=False))
    kept = [inserted.get(at, s) for at, s in enumerate(parts) if at not in order or at in inserted]
    changes = [Change(removed=parts[at], inserted=inserted.get(at, "")) for at in order]
    return Edited(positive.title, " ".join(kept), Edit(operation=Operation.GRAFT, changes=changes))


def alternatives(
    constraint: Constraint,
    query: str,
    positive: Passage,
    references: Iterable[Passage],
    limit: int,
    common: frozenset[str] = frozenset(),
) -> list[Alternative]:
    """Collect what may replace a constraint: the same kind and form, from the references, none of it in the pair.

    A subject is replaced by another passage's subject. A date must differ in the year, too; dates and quantities
    must be of the same order, and the nearest come first. Other alternatives keep the references' order.
    """
    span, known = constraint.span, f"{query} {positive.full_text}"
    found: dict[str, Alternative] = {}
    for reference in references:
        if constraint.is_subject:
            main = subject(reference.title)
            options = [Alternative(main, reference.title)] if main and main[0].isupper() else []
        else:
            same = [s for s in typed_spans(reference.text) if (s.kind, s.form) == (span.kind, span.form)]
            same = [s for s in same if s.kind is not Kind.NAME or is_proper(s.text, common)]
            options = [Alternative(s.text) for s in same]
        for option in options:
            if find(option.text, known) or find(span.text, option.text) or not _plausible(span, option.text, known):
                continue
            found.setdefault(fold(option.text), option)
    return sorted(found.values(), key=lambda option: _distance(span, option.text))[:limit]


def _distance(span: Span, option: str) -> float:
    """Return how far a date or quantity is from the one it replaces; 0 for what has no size."""
    if span.kind in (Kind.DATE, Kind.YEAR):
        return float(abs(_year(span.text) - _year(option)))
    if span.kind is Kind.QUANTITY:
        return abs(math.log((number_of(span.text) or 1) / (number_of(option) or 1)))
    return 0.0


def _year(text: str) -> int:
    """Return the year in a text, negative before Christ; 0 where there is none."""
    year = year_of(text) or "0"
    return -int(year.split()[0]) if year.endswith("BC") else int(year.removeprefix("AD "))


def _plausible(span: Span, option: str, known: str) -> bool:
    """Whether a date or quantity differs for certain and is of the same order as the one it replaces."""
    if span.kind in (Kind.DATE, Kind.YEAR):
        year = year_of(option)
        return not (year and find(year, known)) and _OTHER_YEARS <= _distance(span, option) <= _NEAR_YEARS
    if span.kind is Kind.QUANTITY:
        known_numbers = bool(number_of(span.text) and number_of(option))
        return known_numbers and math.log(_OTHER_FACTOR) <= _distance(span, option) <= math.log(_NEAR_FACTOR)
    return True


def _replacements(constraint: Constraint, alternative: Alternative) -> list[tuple[str, str]]:
    """List what changes together with a constraint: the year of a date, the last name of a subject."""
    old, new = constraint.span.text, alternative.text
    pairs = [(old, new)]
    if constraint.span.kind in (Kind.DATE, Kind.YEAR):
        before, after = year_of(old), year_of(new)
        if before and after and before != old:
            pairs.append((before, after))
    elif constraint.is_subject and len(old.split()) > 1 and old.split()[-1][0].isupper():
        pairs.append((old.split()[-1], new.split()[-1]))
    return pairs


def replace_constraints(positive: Passage, chosen: Iterable[tuple[Constraint, Alternative]]) -> Edited:
    """Put alternatives in the place of constraints wherever they stand, in the title, too."""
    title, text = positive.title, " ".join(positive.text.split())
    changes = []
    for constraint, alternative in chosen:
        if constraint.is_subject:
            title = alternative.title
        for old, new in _replacements(constraint, alternative):
            text = replace(text, old, new)
            if not constraint.is_subject:
                title = replace(title, old, new)
        changes.append(Change(removed=constraint.span.text, inserted=alternative.text))
    return Edited(title, text, Edit(operation=Operation.REPLACE, changes=changes))


def gap(positive: Passage, constraint: Constraint) -> str:
    """Return the sentence that a constraint stands in, with a gap in its place."""
    sentence = next((s for s in sentences(positive.text) if constraint.span.text in s), positive.text)
    return sentence.replace(constraint.span.text, GAP)


def sentence_gap(positive: Passage, places: Sequence[int]) -> str:
    """Return the sentences around those that are taken out, with a gap in their place."""
    parts, first, last = sentences(positive.text), min(places), max(places)
    return " ".join([*parts[max(0, first - 1) : first], GAP, *parts[last + 1 : last + 2]])
