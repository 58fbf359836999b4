"""The BM25 index of a version: written once, mapped into memory, searched whole."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from causalneg.bm25 import Words, build
from causalneg.records import Record

if TYPE_CHECKING:
    import bm25s

_ABOUT = "about.json"


class _About(Record):
    """What was indexed; without words, nothing but this is kept."""

    language: str
    rows: int
    has_words: bool


def build_lexical(folder: Path, texts: Iterable[str], language: str) -> None:
    """Write the BM25 index of some texts.

    Args:
        folder: where its files go; made if it is not there.
        texts: title and text of the passages, in the order of the version's rows.
        language: of stems and stop words, or `none`.

    Raises:
        UserError: there are no stems for the language.
    """
    indexed = list(texts)
    index, _ = build(indexed, Words(language))
    folder.mkdir(parents=True, exist_ok=True)
    if index is not None:
        index.save(folder, show_progress=False)
    about = _About(language=language, rows=len(indexed), has_words=index is not None)
    (folder / _ABOUT).write_text(about.model_dump_json(), encoding="utf-8")


class Lexical:
    """An opened BM25 index; may be searched by several threads."""

    def __init__(self, about: _About, index: "bm25s.BM25 | None") -> None:
        self.rows, self._words, self._index = about.rows, Words(about.language), index

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open what `build_lexical` wrote; whoever does so has compared the checksums."""
        import bm25s

        about = _About.model_validate_json((folder / _ABOUT).read_bytes())
        if not about.has_words:
            return cls(about, None)
        index = bm25s.BM25.load(folder, load_corpus=False, mmap=True, allow_pickle=False, show_progress=False)
        return cls(about, index)

    def search(self, texts: Sequence[str], k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the passages with the highest scores, equal ones in the order of rows.

        Args:
            texts: the queries.
            k: passages per query.
            allowed: which rows may come out, bool `[rows]`; all when unset.

        Returns:
            Scores, float32 `[queries, k']`, and rows, int64 `[queries, k']`, with k' at most the number of rows.
            Where fewer passages share a word with the query, the row is -1 and the score -inf.
        """
        k = min(k, self.rows)
        scores = np.full((len(texts), k), -np.inf, np.float32)
        rows = np.full((len(texts), k), -1, np.int64)
        if self._index is None:
            return scores, rows
        for number, words in enumerate(self._words.tokens(texts, ids=False) if texts else []):
            found, best = _best(self._index, words, k, allowed)
            scores[number, : len(best)], rows[number, : len(best)] = found, best
        return scores, rows


def _best(index: "bm25s.BM25", words: list[str], k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return scores above 0 and their rows, the `k` best of them.

    bm25s scores every passage in compiled code; its own choice of the best is slower, and free where scores are equal.
    """
    scores = index.get_scores_from_ids(index.get_tokens_ids(words))
    rows = np.flatnonzero(scores if allowed is None else (scores > 0) & allowed)
    if len(rows) > k:
        at = scores[rows]
        rows = rows[at >= np.partition(at, len(at) - k)[len(at) - k]]
    order = np.lexsort((rows, -scores[rows]))[:k]
    return scores[rows[order]], rows[order]
