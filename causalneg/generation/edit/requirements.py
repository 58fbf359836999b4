"""Takes a positive apart into the requirements that a query makes and the evidence that meets them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from causalneg.generation.text import Kind, Span, find, fold, is_proper, sentences, typed_spans
from causalneg.records import Facet, Passage, Requirement, Violation, ViolationType

_ARTICLES = frozenset("a an the".split())  # before a name: an institution or a thing, of kinds too many to tell
_PLACING = frozenset("at from in near to".split())
_DETAILS_TOGETHER = 5  # details changed in one negative
_DETAILS_ALONE = 2  # shared details of which one alone decides
_LEAST, _MOST = 4, 8  # requirements of an analysis
NEED_ID = 1  # the requirement that the passage holds the answer; the constraints follow

_VIOLATIONS = {
    Kind.DATE: ViolationType.TEMPORAL_VIOLATION,
    Kind.YEAR: ViolationType.TEMPORAL_VIOLATION,
    Kind.QUANTITY: ViolationType.NUMERIC_VIOLATION,
    Kind.NAME: ViolationType.ENTITY_SHIFT,
}


@dataclass(frozen=True)
class Constraint:
    """Something that the query asks for and the positive meets.

    Attributes:
        span: the stretch of the positive that meets it, as it stands there.
        is_subject: whether it is what the passage is about, by its title.
    """

    span: Span
    is_subject: bool


def subject(title: str) -> str:
    """Return a title without its disambiguation: «Python (programming language)» is about Python."""
    return re.sub(r"\s*\([^)]*\)\s*$", "", title).strip()


def _enclosing(spans: list[Span], position: int) -> Span | None:
    return next((s for s in spans if s.start <= position < s.end), None)


def constraints(query: str, positive: Passage, common: frozenset[str] = frozenset()) -> list[Constraint]:
    """Find the constraints of a query that, broken, leave the positive without an answer.

    Where the query names the passage's subject, that is the one: with any other detail changed, the passage would
    still tell about the subject what is asked. Where the query describes its subject, each detail that stands in both
    is one, the most precise first: dates, quantities, years, proper names of two words or more, and single words that
    a preposition marks as a place. A part of a date or name stands for the whole: «1815» in a query asks for
    «18 June 1815» in the passage.

    Args:
        query: its text.
        positive: its positive.
        common: words of the corpus that are no names, as `common_words` finds them.
    """
    text = " ".join(positive.text.split())
    main = subject(positive.title)
    if main and find(main, query):
        places = find(main, text)
        spans = [Span(text[at : at + len(main)], Kind.NAME, "subject", at) for at in places[:1]]
        return [Constraint(span, is_subject=True) for span in spans]
    spans = typed_spans(text)
    shared = [s for s in spans if find(s.text, query)]
    shared += [s for q in typed_spans(query) for at in find(q.text, text)[:1] if (s := _enclosing(spans, at))]
    order = [Kind.DATE, Kind.QUANTITY, Kind.YEAR, Kind.NAME]
    found: list[Constraint] = []
    for span in sorted(shared, key=lambda s: (order.index(s.kind), -len(s.text), s.start)):
        if span.kind is Kind.NAME and not _can_be_replaced(span, common):
            continue
        taken = [c.span.text for c in found]
        if not any(find(span.text, other) or find(other, span.text) for other in taken):
            found.append(Constraint(span, is_subject=False))
    return found


def shared_details(query: str, text: str) -> list[str]:
    """Return the dates, quantities, years and names that a query shares with a text, each once."""
    found = {fold(s.text): s.text for s in typed_spans(text) if find(s.text, query)}
    found |= {fold(s.text): s.text for s in typed_spans(query) if find(s.text, text)}
    longest = sorted(found.values(), key=lambda s: (-len(s), s))
    return [s for at, s in enumerate(longest) if not any(find(s, other) for other in longest[:at])]


def groups(query: str, positive: Passage, found: list[Constraint]) -> list[list[Constraint]]:
    """Return which constraints are broken together, each group in a negative of its own.

    All at once first: with one detail of many changed, a reader would still recognise what the query describes. Then
    each alone, where two details are all that query and positive share.
    """
    if not found:
        return []
    alone = [[c] for c in found] if len(found) == len(shared_details(query, positive.text)) == _DETAILS_ALONE else []
    return [found[:_DETAILS_TOGETHER], *alone]


def _can_be_replaced(name: Span, common: frozenset[str]) -> bool:
    """Whether names of the same form are most likely of the same kind: persons, or places."""
    shape, before, role = name.form.split()
    if before in _ARTICLES or not is_proper(name.text, common):
        return False
    return shape in ("2", "linked") or (shape == "1" and before in _PLACING and role == "itself")


def _sentence_with(text: str, span: str) -> str:
    return next((s for s in sentences(text) if span in s), span)


def _violation_of(span: Span) -> ViolationType:
    if span.kind is Kind.NAME and span.form.split()[-2:-1] and span.form.split()[-2] in _PLACING:
        return ViolationType.SPATIAL_VIOLATION
    return _VIOLATIONS[span.kind]


def _need(query: str, evidence: str) -> Requirement:
    return Requirement(
        id=NEED_ID,
        facet=Facet.INFORMATION_NEED,
        content=f"The passage answers: {query}",
        evidence=evidence,
        critical=True,
        violations=[
            Violation(
                type=ViolationType.INTENT_DRIFT,
                direction="Keep the passage but for what holds the answer.",
                why_not_answer="Nothing that is left states what is asked.",
            ),
            Violation(
                type=ViolationType.ATTRIBUTE_SHIFT,
                direction="State something else about the same thing where the answer stood.",
                why_not_answer="It tells something else about the same thing, and not what is asked.",
            ),
        ],
    )


def _constraint(number: int, group: list[Constraint], text: str) -> Requirement:
    span, named = group[0].span, ", ".join(c.span.text for c in group)
    what = "is about" if group[0].is_subject else "concerns"
    return Requirement(
        id=number,
        facet=Facet.ENTITY if span.kind is Kind.NAME else Facet.CONSTRAINT,
        content=f"The passage {what} {named}.",
        evidence=_sentence_with(text, span.text),
        critical=True,
        violations=[
            Violation(
                type=_violation_of(span),
                direction=f"Put something of the same kind and form in the place of {named}.",
                why_not_answer=f"What it states no longer concerns {named}.",
            ),
            Violation(
                type=ViolationType.RELATION_BREAK,
                direction=f"Let what is asked be stated of something else than {named}.",
                why_not_answer=f"What is asked is not stated of {named}.",
            ),
        ],
    )


def _others(positive: Passage, taken: Iterable[str]) -> list[tuple[Facet, str, str]]:
    """List what a passage meets beside what the query asks for: facet, content and evidence."""
    text = " ".join(positive.text.split())
    main, first = subject(positive.title), sentences(text)[0]
    rows = [(Facet.ENTITY, f"The passage is about {main}.", _sentence_with(text, main))] if main else []
    rows.append((Facet.STYLE, "The passage stands on its own and reads as one of the corpus.", first))
    spans = [s.text for s in typed_spans(text)] + sorted(set(re.findall(r"\w{5,}", text)), key=lambda w: (-len(w), w))
    rows += [(Facet.ATTRIBUTE, f"The passage mentions {span}.", _sentence_with(text, span)) for span in spans]
    told = " ".join(taken)
    return [row for row in rows if row[1] not in told]


def requirements(query: str, positive: Passage, evidence: str, shared: list[list[Constraint]]) -> list[Requirement]:
    """Write the 4 to 8 requirements of a query, the critical ones first.

    Critical are that the answer is there, and one requirement for each group of constraints. What else the passage
    meets fills up to four: its subject, its style, what it mentions.
    """
    text = " ".join(positive.text.split())
    rows = [_need(query, evidence)]
    rows += [_constraint(number, group, text) for number, group in enumerate(shared[: _MOST - 1], NEED_ID + 1)]
    for facet, content, found in _others(positive, [r.content for r in rows])[: max(0, _LEAST - len(rows))]:
        rows.append(Requirement(id=len(rows) + 1, facet=facet, content=content, evidence=found, critical=False))
    return rows
