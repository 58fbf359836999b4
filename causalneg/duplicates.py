"""Near-duplicates by MinHash: signatures of passages, and how much the words of two of them overlap."""

import re
import unicodedata
from collections.abc import Callable

import numpy as np

PERMUTATIONS = 128  # the standard error of an overlap of 0.9 is 0.027
_SHINGLE = 3  # words
_SEED = 1

# What determines a signature beside the text; signatures are kept under this name.
VERSION = f"minhash-{PERMUTATIONS}-{_SHINGLE}-{_SEED}"

Signatures = Callable[[list[str]], np.ndarray]


def normalised(text: str) -> str:
    """Return a text without what does not make it another: case, punctuation, white space, forms of letters."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def shingles(text: str) -> set[str]:
    """Return the runs of three words of a text; of a shorter text the whole, of one without words its signs."""
    words = normalised(text).split() or text.split()
    if len(words) <= _SHINGLE:
        return {" ".join(words)}
    return {" ".join(words[at : at + _SHINGLE]) for at in range(len(words) - _SHINGLE + 1)}


def signatures(texts: list[str]) -> np.ndarray:
    """Return the MinHash signature of each text, uint32 `[texts, PERMUTATIONS]`."""
    import xxhash
    from datasketch import MinHash

    def hashed(shingle: str) -> int:
        return int(xxhash.xxh32_intdigest(shingle.encode("utf-8", "surrogatepass")))

    minhashes = MinHash.bulk([list(shingles(t)) for t in texts], num_perm=PERMUTATIONS, seed=_SEED, hashfunc=hashed)
    return np.array([m.hashvalues for m in minhashes], dtype=np.uint32).reshape(len(texts), PERMUTATIONS)


def overlap(signature: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Estimate the Jaccard overlap of a text's shingles with those of others, float64 `[others]`.

    Args:
        signature: `[PERMUTATIONS]`.
        others: `[others, PERMUTATIONS]`.
    """
    return np.asarray((others == signature).mean(axis=1))
