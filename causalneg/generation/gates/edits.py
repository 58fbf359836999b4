"""Gates of the `edit` mode: whether only the intended change was made, and whether it takes the answer away."""

import re
from collections import Counter
from itertools import pairwise

from causalneg.generation.edit.requirements import shared_details, subject
from causalneg.generation.rows import Pair
from causalneg.generation.text import MONTHS, Kind, find, opens_dangling, sentences, typed_spans, words
from causalneg.records import Negative, Operation, Passage

_ASKS_TIME = re.compile(r"\b(?:when|year|date|day|month)\b", re.IGNORECASE)
_ASKS_QUANTITY = re.compile(
    r"\bhow (?:many|much|long|tall|high|deep|wide|far|heavy|big|large|old|fast)\b", re.IGNORECASE
)
_STEM = 4  # letters by which a word is known again in another form: Peru, Peruvian


def dangling_after_drop(negative: Negative, positive: Passage) -> float:
    """Return 1 where the sentence behind a removed one points back to it («He …»), else 0."""
    if negative.edit is None or negative.edit.operation is Operation.REPLACE:
        return 0.0
    removed = {c.removed for c in negative.edit.changes}
    parts = sentences(positive.text)
    return float(any(a in removed and b not in removed and opens_dangling(b) for a, b in pairwise(parts)))


def outside_changes(negative: Negative, positive: Passage) -> float:
    """Count the words that changed beyond the intended edit; 0 where only the edit was made."""
    if negative.edit is None:
        return 0.0
    before, after = Counter(words(positive.text)), Counter(words(negative.text))
    gone, come = before - after, after - before
    allowed_gone = {w for c in negative.edit.changes for w in words(c.removed)}
    allowed_come = {w for c in negative.edit.changes for w in words(c.inserted)}
    return float(
        sum(n for w, n in gone.items() if w not in allowed_gone)
        + sum(n for w, n in come.items() if w not in allowed_come)
    )


def answer_kinds(query: str) -> set[Kind]:
    """Return what kinds of span can answer a query, by its question words; none for a claim, which asks for nothing."""
    if query.rstrip().endswith("."):
        return set()
    if _ASKS_TIME.search(query):
        return {Kind.DATE, Kind.YEAR}
    if _ASKS_QUANTITY.search(query):
        return {Kind.QUANTITY}
    return {Kind.NAME}


def answer_values(text: str, query: str, title: str) -> list[str]:
    """Return the spans of a text that can be the answer: of the kind that is asked for, in neither query nor title.

    The last word of a longer name stands for it, as a year does for a date.
    """
    kinds = answer_kinds(query)
    spans = [s.text for s in typed_spans(text) if s.kind in kinds]
    spans += [s.split()[-1] for s in spans if " " in s and len(s.split()[-1]) >= _STEM]
    return [s for s in dict.fromkeys(spans) if not find(s, f"{query} {title}")]


def answer_left(negative: Negative, pair: Pair) -> list[str]:
    """Return which spans of the removed sentences that can be the answer still stand in the negative."""
    if negative.edit is None or negative.edit.operation is Operation.REPLACE:
        return []
    removed = " ".join(change.removed for change in negative.edit.changes)
    values = answer_values(removed, pair.query.text, pair.positive.title)
    return [value for value in values if any(find(form, negative.text) for form in _numbers_of(value))]


def _numbers_of(value: str) -> tuple[str, str]:
    """Return a name as it is and in the other number, by its last letter: Dosimeter, Dosimeters."""
    return value, value[:-1] if value.endswith("s") else value + "s"


def candidates_left(negative: Negative, pair: Pair) -> float:
    """Count the spans that may be the answer in what a removed sentence left of a passage that is described by figures.

    Where a query tells its subject by a date or quantity, and does not name it, any span of the kind that is asked for
    may be the answer: the sentence with the figure says little about which. 0 elsewhere.
    """
    if negative.edit is None or negative.edit.operation is Operation.REPLACE:
        return 0.0
    query, main = pair.query.text, subject(pair.positive.title)
    figures = [d for d in shared_details(query, pair.positive.full_text) if any(c.isdigit() for c in d)]
    if not figures or (main and find(main, query)):
        return 0.0
    return float(len(_candidate_answers(negative.text, pair)))


def details_left(negative: Negative, pair: Pair) -> float:
    """Return the share of the telling details common to query and positive that the negative still has.

    Telling are dates, quantities, years, acronyms and names of two words or more: by each of them a reader would
    recognise what the query describes. 0 where the subject was replaced, or the evidence dropped: then they decide
    nothing.
    """
    if negative.edit is None or negative.edit.operation is not Operation.REPLACE or _is_of_subject(negative, pair):
        return 0.0
    details = shared_details(pair.query.text, pair.positive.full_text)
    telling = [d for d in details if " " in d or d.isupper() or any(c.isdigit() for c in d)]
    return sum(1 for d in telling if find(d, negative.full_text)) / max(1, len(telling))


def _is_of_subject(negative: Negative, pair: Pair) -> bool:
    changes = negative.edit.changes if negative.edit else []
    return any(c.removed == subject(pair.positive.title) for c in changes)


def _candidate_answers(text: str, pair: Pair) -> set[str]:
    given, kinds = f"{pair.query.text} {pair.positive.title}", answer_kinds(pair.query.text)
    return {s.text for s in typed_spans(text) if s.kind in kinds and not find(s.text, given)}


def _content_words(text: str) -> list[str]:
    """Return the words by which a span is known again: not its small words, nor the day and month of a date."""
    return [w for w in words(text) if len(w) >= (3 if w.isdigit() else _STEM) and w not in MONTHS]


def _stem(word: str) -> str:
    return word if word.isdigit() else word[: max(_STEM, len(word) - 2)]


def answer_is_replaced(negative: Negative, pair: Pair) -> float:
    """Return 1 where the edit changed something the query does not name, so that it may give a wrong answer."""
    if negative.edit is None or negative.edit.operation is not Operation.REPLACE:
        return 0.0
    query = pair.query.text
    named = [[c.removed, *(s.text for s in typed_spans(c.removed)), *words(c.removed)] for c in negative.edit.changes]
    return float(not all(any(find(n, query) for n in names) for names in named))


def traces_left(negative: Negative, pair: Pair) -> float:
    """Count the words that share a stem with something that was replaced and not with what took its place."""
    if negative.edit is None or negative.edit.operation is not Operation.REPLACE:
        return 0.0
    new = [w for c in negative.edit.changes for w in words(c.inserted)]
    old = [_stem(w) for c in negative.edit.changes for w in _content_words(c.removed)]
    stems = [stem for stem in old if not any(w.startswith(stem) for w in new)]
    return float(sum(1 for w in words(negative.full_text) if any(w.startswith(s) for s in stems)))


def edits_answer(negative: Negative, pair: Pair) -> float:
    """Return 1 where a replacement leaves no statement of the answer as it was, else 0.

    It changes the subject of the passage, or a sentence that may hold the answer, or the only detail by which the rest
    of the passage meets the query. After an edit elsewhere a reader would still take the answer.
    """
    edit, positive = negative.edit, pair.positive
    if edit is None or edit.operation is not Operation.REPLACE or _is_of_subject(negative, pair):
        return 1.0
    touched = [s for s in sentences(positive.text) if any(find(c.removed, s) for c in edit.changes)]
    if any(_candidate_answers(s, pair) for s in touched):
        return 1.0
    untouched = " ".join(s for s in sentences(positive.text) if s not in touched)
    return float(not shared_details(pair.query.text, untouched))


def edit_scores(negative: Negative, pair: Pair) -> dict[str, float]:
    """Return every score that tells about the edit; none for what was not edited."""
    if negative.edit is None:
        return {}
    return {
        "outside_changes": outside_changes(negative, pair.positive),
        "dangling": dangling_after_drop(negative, pair.positive),
        "edits_answer": edits_answer(negative, pair),
        "details_left": details_left(negative, pair),
        "answer_replaced": answer_is_replaced(negative, pair),
        "traces_left": traces_left(negative, pair),
        "candidates_left": candidates_left(negative, pair),
    }
