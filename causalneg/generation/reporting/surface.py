"""By which properties of their surface, and by which words, generated texts differ from mined ones."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import BaseModel

from causalneg.generation.text import sentences
from causalneg.records import Source

_TELLING_Z = 3.0  # among thousands of words chance alone gives many a 2
_LEAST_COUNT = 5  # texts that have a word before it can be telling
_DASHES = "-\u2010\u2011\u2012\u2013\u2014"
_TYPOGRAPHIC = "\u2018\u2019\u201c\u201d\u2026\u2013\u2014\u00a0"
_QUOTES = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb"


class Telling(BaseModel):
    """A property of the surface, or a word or two in a row, by which the sources differ.

    Attributes:
        auc: chance that a generated text has more of it than a mined one; below 0.5 where it has less.
        z: how sure the difference is, in standard deviations; negative where the mined ones have more.
        generated: mean of the property in the generated texts, or how many of them have the word.
        mined: likewise of the mined ones.
    """

    kind: Literal["feature", "token"]
    name: str
    more_in: Source
    auc: float
    z: float
    generated: float
    mined: float


def surface_features(text: str) -> dict[str, float]:
    """Measure the form of a text, whatever it says; characters of a kind are counted per 1,000 characters."""
    tokens = re.findall(r"\w+", text.lower())
    words, parts = max(1, len(tokens)), sentences(text)
    count = Counter(text)

    def per_thousand(belongs: Callable[[str], bool]) -> float:
        return 1000 * sum(n for c, n in count.items() if belongs(c)) / max(1, len(text))

    return {
        "words": float(len(tokens)),
        "characters": float(len(text)),
        "sentences": float(len(parts)),
        "mean_word_length": sum(map(len, tokens)) / words,
        "mean_sentence_length": len(tokens) / max(1, len(parts)),
        "distinct_words_share": len(set(tokens)) / words,
        "punctuation": per_thousand(lambda c: not c.isalnum() and not c.isspace()),
        "commas": per_thousand(",".__eq__),
        "full_stops": per_thousand(".".__eq__),
        "colons_and_semicolons": per_thousand(":;".__contains__),
        "brackets": per_thousand("()[]".__contains__),
        "quotes": per_thousand(_QUOTES.__contains__),
        "dashes": per_thousand(_DASHES.__contains__),
        "typographic_characters": per_thousand(_TYPOGRAPHIC.__contains__),
        "digits": per_thousand(str.isdigit),
        "capitals": per_thousand(str.isupper),
        "line_breaks": per_thousand("\n".__eq__),
        "ends_a_sentence": float(text.rstrip()[-1:] in tuple(".!?")),
    }


def feature_table(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the features' names, and their values `[texts, features]`."""
    names = list(surface_features(""))
    rows = [list(surface_features(text).values()) for text in texts]
    return names, np.array(rows, float).reshape(len(rows), len(names))


def feature_auc(values: np.ndarray, is_generated: np.ndarray) -> float:
    """Return the chance that a generated text has a larger value than a mined one, ties counting half."""
    from scipy.stats import rankdata

    labels = np.asarray(is_generated, bool)
    generated, mined = int(labels.sum()), int((~labels).sum())
    return float(rankdata(values)[labels].sum() - generated * (generated + 1) / 2) / (generated * mined)


def _telling_features(texts: Sequence[str], labels: np.ndarray, independent: tuple[int, int]) -> list[Telling]:
    """Return the features that differ for certain, by the normal approximation of the Mann-Whitney test."""
    generated, mined = independent
    deviation = ((generated + mined + 1) / (12 * generated * mined)) ** 0.5
    names, table = feature_table(texts)
    found = []
    for name, values in zip(names, table.T, strict=True):
        auc = feature_auc(values, labels)
        found.append(
            Telling(
                kind="feature",
                name=name,
                more_in=Source.GENERATED if auc > 0.5 else Source.MINED,
                auc=auc,
                z=(auc - 0.5) / deviation,
                generated=float(values[labels].mean()),
                mined=float(values[~labels].mean()),
            )
        )
    return sorted((t for t in found if abs(t.z) >= _TELLING_Z), key=lambda t: (-abs(t.z), t.name))


def _tokens(text: str) -> set[str]:
    """Return the words and the pairs of neighbouring words of a text."""
    row = re.findall(r"\w+", text.lower())
    return {*row, *map(" ".join, pairwise(row))}


def _log_odds(have: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return for each word the z-score of the difference of its log-odds between two sets of texts.

    The prior is informative: each word's share in both sets together, worth half as many texts as the smaller set has
    (Monroe, Colaresi and Quinn 2008, section 3.3.2), here of the texts that have a word and not of its occurrences.

    Args:
        have: texts that have the word, float `[2, words]`.
        totals: texts of each set, float `[2]`.
    """
    weight = totals.min() / 2
    prior = weight * (have.sum(axis=0) + 0.5) / (totals.sum() + 1)
    with_word, without = have + prior, totals[:, None] - have + weight - prior
    odds = np.log(with_word / without)
    return (odds[0] - odds[1]) / np.sqrt((1 / with_word + 1 / without).sum(axis=0))


def _telling_tokens(
    texts: Sequence[str], labels: np.ndarray, weights: np.ndarray, independent: tuple[int, int]
) -> list[Telling]:
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    weighted: tuple[dict[str, float], dict[str, float]] = (defaultdict(float), defaultdict(float))
    for text, label, weight in zip(texts, labels, weights, strict=True):
        side = 0 if label else 1
        for token in _tokens(text):
            counts[side][token] += 1
            weighted[side][token] += weight
    tokens = sorted(t for t in counts[0] | counts[1] if counts[0][t] + counts[1][t] >= _LEAST_COUNT)
    have = np.array([[side.get(t, 0.0) for t in tokens] for side in weighted]).reshape(2, -1)
    scores = _log_odds(have, np.array(independent, float))
    generated, mined = int(labels.sum()), int((~labels).sum())
    found = []
    for at in np.flatnonzero(np.abs(scores) >= _TELLING_Z):
        token, z = tokens[at], float(scores[at])
        more = counts[0][token] / generated - counts[1][token] / mined
        found.append(
            Telling(
                kind="token",
                name=token,
                more_in=Source.GENERATED if z > 0 else Source.MINED,
                auc=0.5 + more / 2,
                z=z,
                generated=counts[0][token],
                mined=counts[1][token],
            )
        )
    return sorted(found, key=lambda t: (-abs(t.z), t.name))


def _without_echoes(telling: Iterable[Telling], limit: int) -> list[Telling]:
    """Take the first words and pairs of words, but none that shares a word with one taken already."""
    taken: list[Telling] = []
    seen: set[str] = set()
    for item in telling:
        parts = set(item.name.split())
        if len(taken) < limit and not parts & seen:
            taken.append(item)
            seen |= parts
    return taken


def most_telling(
    texts: Sequence[str], is_generated: np.ndarray, limit: int, groups: Sequence[str] | None = None
) -> list[Telling]:
    """Return by what generated and mined texts differ most and for certain.

    Args:
        texts: the texts.
        is_generated: bool `[texts]`.
        limit: how many features, and as many words, to return at most.
        groups: query of each text; the texts that a query has of one source count as one together, since edits of one
            passage share nearly all of its words.

    Returns:
        Features of the surface, then words and pairs of words, the surest first.
    """
    labels = np.asarray(is_generated, bool)
    if labels.all() or not labels.any():
        return []
    keys = list(zip(range(len(texts)) if groups is None else groups, labels, strict=True))
    sizes = Counter(keys)
    weights = np.array([1 / sizes[key] for key in keys])
    independent = (sum(1 for _, label in sizes if label), sum(1 for _, label in sizes if not label))
    features = _telling_features(texts, labels, independent)[:limit]
    return features + _without_echoes(_telling_tokens(texts, labels, weights, independent), limit)
