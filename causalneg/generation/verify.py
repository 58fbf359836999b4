"""Gates: pure functions that score a negative. `select` decides on the scores."""

import re
from collections import Counter
from collections.abc import Sequence

from causalneg.generation.decompose import shared_details, subject
from causalneg.generation.rows import Pair
from causalneg.generation.text import MONTHS, Kind, find, opens_dangling, sentences, typed_spans, words
from causalneg.margins import relative_score
from causalneg.records import Negative, Passage

_META = re.compile(
    r"\b(?:the (?:given|original) (?:passage|text|document)|this passage|counterfactual|as an ai|does not answer)\b",
    re.IGNORECASE,
)
_ASKS_TIME = re.compile(r"\b(?:when|year|date|day|month)\b", re.IGNORECASE)
_ASKS_QUANTITY = re.compile(
    r"\bhow (?:many|much|long|tall|high|deep|wide|far|heavy|big|large|old|fast)\b", re.IGNORECASE
)
_STEM = 4  # letters by which a word is known again in another form: Peru, Peruvian


def token_overlap(a: str, b: str) -> float:
    """Return the Jaccard overlap of two texts' words, counted with their repetitions; 1 where they are equal."""
    left, right = Counter(words(a)), Counter(words(b))
    union = (left | right).total()
    return (left & right).total() / union if union else 1.0


def length_ratio(negative: Negative, positive: Passage) -> float:
    """Return the negative's length as a share of the positive's, in words."""
    return len(words(negative.text)) / max(1, len(words(positive.text)))


def form_defects(negative: Negative, positive: Passage) -> float:
    """Count what a corpus passage does not have: talk about itself, a dangling opening, a missing end."""
    parts = sentences(negative.text)
    meta = len(_META.findall(negative.text)) - len(_META.findall(positive.text))
    dangling = 0
    if negative.edit and negative.edit.operation == "drop":
        removed = negative.edit.changes[0].removed
        before = sentences(positive.text)
        at = before.index(removed) if removed in before else len(before)
        dangling = int(at + 1 < len(before) and opens_dangling(before[at + 1]))
    unfinished = int(not parts or parts[-1][-1] not in ".!?\"')]")
    return float(max(0, meta) + dangling + unfinished)


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


def overlap_with_positives(negative: Negative, pair: Pair) -> float:
    """Return the highest token overlap with a known positive; 1 for one that is equal to it."""
    known = [pair.positive, *pair.other_positives]
    return max(token_overlap(negative.full_text, p.full_text) for p in known)


def answer_kinds(query: str) -> set[Kind]:
    """Return what kinds of span can answer a query, by its question words; none for a claim, which asks for nothing."""
    if query.rstrip().endswith("."):
        return set()
    if _ASKS_TIME.search(query):
        return {Kind.DATE, Kind.YEAR}
    if _ASKS_QUANTITY.search(query):
        return {Kind.QUANTITY}
    return {Kind.NAME}


def answer_left(negative: Negative, pair: Pair) -> float:
    """Count what should be gone and is not.

    After a drop: spans of the kind that the query asks for, but for those that the query or the title names; any of
    them may be the answer. After a replacement: words that share a stem with the replaced span and not with what took
    its place.
    """
    if negative.edit is None:
        return 0.0
    if negative.edit.operation == "drop":
        return float(len(_candidate_answers(negative.text, pair)))
    new = [w for c in negative.edit.changes for w in words(c.inserted)]
    old = [_stem(w) for c in negative.edit.changes for w in _content_words(c.removed)]
    stems = [stem for stem in old if not any(w.startswith(stem) for w in new)]
    return float(sum(1 for w in words(negative.full_text) if any(w.startswith(s) for s in stems)))


def edits_answer(negative: Negative, pair: Pair) -> float:
    """Return 1 where the edit leaves no statement of the answer as it was, else 0.

    It changes the subject of the passage, or a sentence that may hold the answer, or the only detail by which the rest
    of the passage meets the query. After an edit elsewhere a reader would still take the answer.
    """
    edit, positive = negative.edit, pair.positive
    if edit is None or _is_of_subject(negative, pair):
        return 1.0
    if edit.operation == "drop" and not answer_kinds(pair.query.text):
        return 1.0  # what supports a claim is gone; whether enough of it, the likelihood tells
    touched = [s for s in sentences(positive.text) if any(find(c.removed, s) for c in edit.changes)]
    if any(_candidate_answers(s, pair) for s in touched):
        return 1.0
    untouched = " ".join(s for s in sentences(positive.text) if s not in touched)
    return float(edit.operation == "replace" and not shared_details(pair.query.text, untouched))


def details_left(negative: Negative, pair: Pair) -> float:
    """Return the share of the telling details common to query and positive that the negative still has.

    Telling are dates, quantities, years, acronyms and names of two words or more: by each of them a reader would
    recognise what the query describes. 0 where the subject was replaced, or the evidence dropped: then they decide
    nothing.
    """
    if negative.edit is None or negative.edit.operation == "drop" or _is_of_subject(negative, pair):
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
    if negative.edit is None or negative.edit.operation == "drop":
        return 0.0
    query = pair.query.text
    named = [[c.removed, *(s.text for s in typed_spans(c.removed)), *words(c.removed)] for c in negative.edit.changes]
    return float(not all(any(find(n, query) for n in names) for names in named))


def hardness(score: float, mined_scores: Sequence[float]) -> float:
    """Return the share of the query's mined negatives that score below the negative; 0 where none was mined."""
    return sum(1 for m in mined_scores if m < score) / len(mined_scores) if mined_scores else 0.0


def text_scores(negative: Negative, pair: Pair) -> dict[str, float]:
    """Return every score that needs the texts alone."""
    return {
        "length_ratio": length_ratio(negative, pair.positive),
        "form_defects": form_defects(negative, pair.positive),
        "outside_changes": outside_changes(negative, pair.positive),
        "overlap": overlap_with_positives(negative, pair),
        "answer_left": answer_left(negative, pair),
        "edits_answer": edits_answer(negative, pair),
        "details_left": details_left(negative, pair),
        "answer_replaced": answer_is_replaced(negative, pair),
    }


def encoder_scores(score: float, positive_score: float, mined_scores: Sequence[float]) -> dict[str, float]:
    """Return the scores that come from the base encoder's cosines with the query."""
    return {
        "cosine": score,
        "positive_cosine": positive_score,
        "relative_score": relative_score(score, positive_score),
        "hardness": hardness(score, mined_scores),
    }
