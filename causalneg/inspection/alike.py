"""Finds queries that are the same or nearly so."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

NEAR = 0.8  # Jaccard overlap of the words from which on two queries are nearly the same

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """Return the words of a text without case and punctuation; a text without words is its own only word."""
    return _WORD.findall(text.casefold()) or [text.strip()]


def normalised(text: str) -> str:
    """Return a text without case, punctuation and runs of spaces."""
    return " ".join(words_of(text))


class QueryIndex:
    """Finds those of some queries that are like a given one.

    Of two sets that overlap by `NEAR` or more, the n - ceil(NEAR n) + 1 rarest words of each have one in common,
    so looking at those finds every pair (prefix filter: Bayardo et al., WWW 2007).

    Args:
        texts: the queries by id.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self.texts = dict(texts)
        self._words = {i: frozenset(words_of(text)) for i, text in self.texts.items()}
        self._frequency = Counter(word for words in self._words.values() for word in words)
        self._same: dict[str, list[str]] = defaultdict(list)
        self._near: dict[str, list[str]] = defaultdict(list)
        for query_id, text in self.texts.items():
            self._same[normalised(text)].append(query_id)
            for word in self._rarest(self._words[query_id]):
                self._near[word].append(query_id)

    def _rarest(self, words: frozenset[str]) -> list[str]:
        ordered = sorted(words, key=lambda word: (self._frequency[word], word))
        return ordered[: len(words) - math.ceil(NEAR * len(words)) + 1]

    def same(self, text: str) -> list[str]:
        """Return the ids of the queries with the same text."""
        return self._same.get(normalised(text), [])

    def near(self, text: str) -> list[str]:
        """Return the ids of the queries that share at least `NEAR` of their words with a text, the same included."""
        words = frozenset(words_of(text))
        found = {i for word in self._rarest(words) for i in self._near.get(word, ())}
        return sorted(i for i in found if len(words & self._words[i]) >= NEAR * len(words | self._words[i]))
