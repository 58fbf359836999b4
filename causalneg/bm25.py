"""Words and BM25 scores with bm25s, as mining and hybrid search share them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalneg.errors import UserError

if TYPE_CHECKING:
    import bm25s

_STOP_WORDS = {"english", "german", "dutch", "french", "spanish", "portuguese", "italian", "russian"}
_STOP_WORDS |= {"swedish", "norwegian", "danish", "turkish"}


@dataclass(frozen=True)
class Words:
    """How texts are cut into words: the language of stems and stop words, or `none`."""

    language: str

    def tokens(self, texts: Sequence[str], ids: bool) -> Any:  # noqa: ANN401 - bm25s gives one type or another
        """Cut texts into words: as bm25s's ids with their vocabulary, or as lists of words.

        Raises:
            UserError: there are no stems for the language.
        """
        import bm25s
        import Stemmer

        stemmer = None
        if self.language != "none":
            if self.language not in Stemmer.algorithms():
                known = ", ".join(Stemmer.algorithms())
                raise UserError(f"language: there are no stems for {self.language!r}; take none or {known}.")
            stemmer = Stemmer.Stemmer(self.language)
        stop_words = self.language if self.language in _STOP_WORDS else []
        return bm25s.tokenize(list(texts), stopwords=stop_words, stemmer=stemmer, return_ids=ids, show_progress=False)


def build(texts: Sequence[str], words: Words) -> "tuple[bm25s.BM25 | None, np.ndarray]":
    """Index passages, the whole corpus or a shard as if it were.

    Returns:
        The index, None where no text has a word; and the passages' lengths in words, int64 `[passages]`.
    """
    import bm25s

    tokens = words.tokens(texts, ids=True)
    lengths = np.array([len(t) for t in tokens.ids], dtype=np.int64)
    if not lengths.any():  # nothing but stop words: bm25s cannot index that
        return None, lengths
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    return index, lengths
