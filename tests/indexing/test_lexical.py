"""The BM25 index of a version: what it finds, in which order, and under a mask."""

from collections import Counter
from math import log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalneg.errors import UserError
from causalneg.indexing.lexical import Lexical, build_lexical

TEXTS = [
    "The lunar module Eagle landed in the Sea of Tranquility.",
    "The command module stayed in orbit.",
    "The carrier picked up the crew after the splashdown.",
    "The command module stayed in orbit.",
]


@pytest.fixture
def lexical(tmp_path: Path) -> Lexical:
    build_lexical(tmp_path / "bm25", iter(TEXTS), "english")
    return Lexical.open(tmp_path / "bm25")


def test_what_shares_words_is_found_equal_ones_by_row(lexical: Lexical) -> None:
    scores, rows = lexical.search(["orbiting modules", "splashdowns", "is it the", "", "zymurgy"], 10)
    assert rows.tolist() == [[1, 3, 0, -1], [2, -1, -1, -1], *[[-1] * 4] * 3]
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    assert scores[0, 0] == scores[0, 1] > scores[0, 2] > 0
    assert np.isneginf(scores[rows < 0]).all()
    assert lexical.search(["module"], 1)[1].tolist() == [[1]]
    assert lexical.search([], 3)[1].shape == (0, 3)


def test_a_mask_leaves_out_rows_and_nothing_else(lexical: Lexical) -> None:
    every = lexical.search(["orbiting module"], 4)
    allowed = np.array([True, False, True, True])
    scores, rows = lexical.search(["orbiting module"], 4, allowed)
    assert rows.tolist() == [[3, 0, -1, -1]]
    assert scores[0, :2].tolist() == [every[0][0, 1], every[0][0, 2]]
    assert lexical.search(["module"], 4, np.zeros(4, bool))[1].tolist() == [[-1] * 4]


@pytest.mark.parametrize("texts", [[""], ["the of", "is it"]])
def test_texts_without_words_are_searched_in_vain(tmp_path: Path, texts: list[str]) -> None:
    build_lexical(tmp_path / "bm25", texts, "english")
    scores, rows = Lexical.open(tmp_path / "bm25").search(["module"], 5)
    assert rows.tolist() == [[-1] * len(texts)]
    assert np.isneginf(scores).all()


def test_a_language_without_stems_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no stems for 'klingon'"):
        build_lexical(tmp_path / "bm25", TEXTS, "klingon")


WORDS = st.lists(st.sampled_from(["ab", "cd", "ef", "gh"]), max_size=6)


@settings(max_examples=25)
@given(st.lists(WORDS, min_size=1, max_size=8), WORDS, st.integers(1, 9), st.integers(0, 255))
def test_scores_are_those_of_the_formula(
    tmp_path_factory: pytest.TempPathFactory, corpus: list[list[str]], query: list[str], k: int, bits: int
) -> None:
    """Lucene's BM25 with k1 1.5 and b 0.75."""
    folder = tmp_path_factory.mktemp("bm25")
    build_lexical(folder, [" ".join(words) for words in corpus], "none")
    allowed = np.array([bool(bits >> n & 1) for n in range(len(corpus))])
    scores, rows = Lexical.open(folder).search([" ".join(query)], k, allowed)
    mean = sum(map(len, corpus)) / len(corpus) or 1
    expected = {}
    for row, words in enumerate(corpus):
        counts, score = Counter(words), 0.0
        for word in query:
            df = sum(word in other for other in corpus)
            idf = log(1 + (len(corpus) - df + 0.5) / (df + 0.5))
            score += idf * counts[word] / (counts[word] + 1.5 * (0.25 + 0.75 * len(words) / mean))
        if score > 0 and allowed[row]:
            expected[row] = score
    kept = rows[0][rows[0] >= 0].tolist()
    assert len(set(kept)) == len(kept) == min(k, len(expected))
    np.testing.assert_allclose(scores[0, : len(kept)], [expected[row] for row in kept], rtol=1e-4)
    np.testing.assert_allclose(scores[0, : len(kept)], sorted(expected.values(), reverse=True)[:k], rtol=1e-4)
