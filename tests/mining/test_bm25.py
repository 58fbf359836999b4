"""BM25: finds words, and scores the same whether the corpus is one shard or many."""

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.bm25 import Words, build
from causalneg.errors import UserError
from causalneg.hits import Hits, merge, no_hits
from causalneg.mining.bm25 import Bm25Index, search
from causalneg.workspace import Workspace

CORPUS = [
    "The lunar module Eagle landed in the Sea of Tranquility.",
    "The command module stayed in orbit with Michael Collins.",
    "The carrier picked up the crew after the splashdown.",
    "Geologists study basalt from the mare.",
]
ENGLISH, PLAIN = Words("english"), Words("none")


def found(corpus: list[str], queries: list[str], depth: int, words: Words = ENGLISH) -> Hits:
    index, _ = build(corpus, words)
    return search(index, words.tokens(queries, ids=False), depth)


def sharded(workspace: Workspace, corpus: list[str], cuts: list[int], queries: list[str], depth: int) -> Hits:
    """Index each shard by itself, and search them all."""
    index = Bm25Index(workspace, "bm25/test", PLAIN)
    shards = [corpus[a:b] for a, b in zip([0, *cuts], [*cuts, len(corpus)], strict=True)]
    for number, texts in enumerate(shards):
        index.write(number, texts)
        assert index.holds(number)
    index.join(len(shards))
    best, start = no_hits(len(queries)), 0
    for number, texts in enumerate(shards):
        hits = search(index.load(number), PLAIN.tokens(queries, ids=False), depth).shifted(start)
        best, start = merge(best, hits, depth), start + len(texts)
    return best


def test_the_passage_with_the_words_is_found() -> None:
    hits = found(CORPUS, ["splashdown carrier", "Who was Collins?", "studying basalts"], 2)
    assert hits.rows[:, 0].tolist() == [2, 1, 3]
    assert (hits.scores[:, 0] > hits.scores[:, 1]).all()


def test_without_a_common_word_nothing_is_found() -> None:
    hits = found(CORPUS, ["module", "zymurgy", "is it the", ""], 50)
    assert (np.diff(hits.scores, axis=1) <= 0).all()
    assert [(row >= 0).sum() for row in hits.rows] == [2, 0, 0, 0]


@pytest.mark.parametrize("corpus", [["the of", "is it"], ["", " "]])
def test_a_corpus_without_words_is_searched_in_vain(corpus: list[str]) -> None:
    assert (found(corpus, ["moon", "sea"], 5).rows < 0).all()


def test_a_language_without_stems_is_named() -> None:
    with pytest.raises(UserError, match="'klingon'"):
        found(CORPUS, ["x"], 1, Words("klingon"))


def test_stems_and_stop_words_follow_the_language() -> None:
    hits = found(["Die Häuser am Fluss", "der Wald"], ["das Haus", "der die das"], 2, Words("german"))
    assert [row[row >= 0].tolist() for row in hits.rows] == [[0], []]


def by_hand(corpus: list[str], query: str) -> list[float]:
    """Lucene's BM25 with k1 1.5 and b 0.75, from its formula."""
    documents = [text.split() for text in corpus]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts, score = Counter(document), 0.0
        for word in query.split():
            df = sum(word in d for d in documents)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            score += idf * counts[word] / (1.5 * (0.25 + 0.75 * len(document) / mean) + counts[word])
        scores.append(score)
    return scores


@pytest.mark.parametrize("cuts", [[], [30], [1, 7, 40, 41]])
def test_shards_score_as_one_corpus_would(tmp_path: Path, cuts: list[int]) -> None:
    rng = random.Random(5)  # noqa: S311
    vocabulary = [f"w{n}" for n in range(40)]
    corpus = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 30))) for _ in range(60)]
    queries = ["w1 w2", "w3", "w39 w7 w12 w8"]
    hits = sharded(Workspace(str(tmp_path)), corpus, cuts, queries, 60)
    for number, query in enumerate(queries):
        expected = by_hand(corpus, query)
        rows = hits.rows[number][hits.rows[number] >= 0]
        assert sorted(rows.tolist()) == [n for n, score in enumerate(expected) if score > 0]
        np.testing.assert_allclose(hits.scores[number][: len(rows)], sorted(expected, reverse=True)[: len(rows)], 1e-5)
        np.testing.assert_allclose(hits.scores[number][: len(rows)], np.array(expected)[rows], 1e-5)


def test_a_shard_without_words_is_no_obstacle(tmp_path: Path) -> None:
    hits = sharded(Workspace(str(tmp_path)), ["", " ", "moon sea", "sea"], [2], ["moon", "sea"], 3)
    assert [row[row >= 0].tolist() for row in hits.rows] == [[2], [3, 2]]


@given(st.lists(st.text("ab ", max_size=8), min_size=1, max_size=6), st.text("ab ", max_size=6), st.integers(1, 9))
def test_each_row_is_named_once(corpus: list[str], query: str, depth: int) -> None:
    rows = [r for r in found(corpus, [query], depth).rows[0].tolist() if r >= 0]
    assert len(rows) == len(set(rows)) <= min(depth, len(corpus))
    assert set(rows) <= set(range(len(corpus)))
