"""Finds the sentences of a positive that may hold the answer, and sentences that may take their place."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from causalneg.generation.edit.requirements import subject
from causalneg.generation.gates.edits import answer_values
from causalneg.generation.gates.spans import FUNCTION_WORDS
from causalneg.generation.text import find, fold, opens_dangling, replace, sentences, typed_spans, words
from causalneg.records import Passage

_STEM, _SHORTEST = 5, 4  # letters by which a word is known again; of a telling word
_LEAST_WORDS, _MOST_WORDS = 6, 60  # of a sentence that may take another's place


def standardised(values: Sequence[float]) -> np.ndarray:
    """Return values as distances from their mean in standard deviations; zeros where all are equal."""
    array = np.asarray(values, dtype=np.float64)
    spread = array.std()
    return (array - array.mean()) / spread if spread > 0 else np.zeros_like(array)


def word_overlap(query: str, parts: Sequence[str]) -> list[float]:
    """Return how many of the query's telling words each sentence has, those that few sentences have counting more."""
    asked = _telling_words(query)
    own = [_telling_words(part) & asked for part in parts]
    weight = {word: math.log(1 + len(parts) / sum(word in words for words in own)) for word in set().union(*own)}
    return [sum(weight[word] for word in words) for words in own]


def _telling_words(text: str) -> set[str]:
    return {word[:_STEM] for word in words(text) if len(word) >= _SHORTEST and word not in FUNCTION_WORDS}


def evidence_of(logprobs: Sequence[float], cosines: Sequence[float], overlaps: Sequence[float]) -> list[int]:
    """Return which sentences may hold the answer, the likeliest first.

    The sentence under which the LLM finds the query likeliest, the one nearest to the query by the encoder, and the one
    that shares the most telling words with it. The first two are each wrong for about one query in seven; where the
    three disagree, all that any of them names are taken. There are no logprobs where an engine tells none.
    """
    voters = [votes for votes in (logprobs, cosines, overlaps) if len(votes)]
    together = sum(standardised(votes) for votes in voters)
    chosen = {int(np.argmax(votes)) for votes in voters if max(votes) > min(votes) or len(votes) == 1}
    return sorted(chosen or {0}, key=lambda at: (-np.atleast_1d(together)[at], at))


def without_details(query: str, details: Iterable[str]) -> str:
    """Return a query without the details by which it describes something: what is left is what it asks for."""
    for detail in details:
        query = replace(query, detail, "")
    return " ".join(query.split())


def telling_spans(evidence: Iterable[str], query: str, title: str) -> list[str]:
    """Return the spans by which the answer could be told elsewhere: names of the query, and answers in the evidence."""
    # A word that opens the query in upper case is hardly ever a name.
    named = [s.text for s in typed_spans(query) if s.start or " " in s.text or s.text[0].isdigit()]
    values = [value for part in evidence for value in answer_values(part, query, title)]
    return [*(name for name in named if not find(name, title)), *values]


def closed(parts: Sequence[str], chosen: Iterable[int], query: str, title: str) -> list[int]:
    """Add to the sentences that may hold the answer all that may repeat it, in the order of the text.

    These are sentences with a name of the query that the title has not, and sentences with a span of the chosen ones
    that can be the answer; and, since they would point to nothing, those that point back to the one before («He …»).
    """
    taken = set(chosen)
    telling = telling_spans([parts[at] for at in taken], query, title)
    taken |= {at for at, part in enumerate(parts) if any(find(span, part) for span in telling)}
    return with_followers(parts, taken)


def with_followers(parts: Sequence[str], chosen: Iterable[int]) -> list[int]:
    """Add to the chosen sentences those right behind them that point back («He …»), in the order of the text."""
    taken = set(chosen)
    for at in range(1, len(parts)):
        if at - 1 in taken and opens_dangling(parts[at]):
            taken.add(at)
    return sorted(taken)


def grafts(positive: Passage, references: Iterable[Passage]) -> list[Passage]:
    """Return sentences of other passages about the same thing, each with its passage's id and title.

    About the same thing are passages with the positive's title, and sentences that name its subject. A sentence that
    points to the one before it, or of which the positive has the like, can't stand in another place.
    """
    main = subject(positive.title)
    known = {frozenset(words(s)) for s in sentences(positive.text)}
    found: dict[str, Passage] = {}
    for reference in references:
        same = bool(main) and fold(reference.title) == fold(positive.title)
        for sentence in sentences(reference.text):
            if not same and not (main and find(main, sentence)):
                continue
            own = words(sentence)
            fits = _LEAST_WORDS <= len(own) <= _MOST_WORDS and sentence[-1] in ".!?" and sentence[0].isupper()
            if fits and not opens_dangling(sentence) and frozenset(own) not in known:
                found.setdefault(fold(sentence), Passage(id=reference.id, title=reference.title, text=sentence))
    return list(found.values())


def harmless(query: np.ndarray, evidence: np.ndarray, options: np.ndarray, margin: float, limit: int) -> list[int]:
    """Return which options are clearly farther from the query than the evidence, the nearest of them first.

    Args:
        query: its vector, `[dimension]`.
        evidence: vectors of the evidence, `[sentences, dimension]`.
        options: vectors of the options, `[options, dimension]`.
        margin: least distance in cosine.
        limit: most options returned.
    """
    if not len(options):
        return []
    ceiling = float((evidence @ query).max()) - margin
    scores = options @ query
    return [int(at) for at in np.argsort(-scores, kind="stable") if scores[at] <= ceiling][:limit]
