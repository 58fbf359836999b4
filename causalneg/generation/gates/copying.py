"""Gates against copying: from the query, from a known positive, from a mined passage.

Words are compared without case and accents. Of careful counterfactuals of SQuAD questions 1 in 1,000 has half of the
query's runs of words that the positive lacks, none overlaps with its positive by 0.99, and 1 in 1,000 is mined to
0.95; of the negatives that an 8B model wrote for MS MARCO queries 1 in 20 has half of the query's runs.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from causalneg.generation.text import fold

# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"\d+(?:[.,]\d+)*|%|[{_UNSPACED}]|[^\W\d{_UNSPACED}][^\W{_UNSPACED}]*")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_QUERY_RUN = 3
_SHORT_QUERY = 4  # words; up to here the runs are of two
_REFERENCE_RUN = 5  # long enough that two texts about one thing share few by chance

Run = tuple[str, ...]


def tokens(text: str) -> list[str]:
    """Return the words of a text, folded.

    A number is one word with its decimals and without the commas between thousands: «1,250.5 km» gives «1250.5» and
    «km», «5%» gives «5» and «percent». In scripts without spaces each character counts as a word.
    """
    folded = text.lower() if text.isascii() else fold(unicodedata.normalize("NFC", text))
    return [_spelt_alike(t) for t in _TOKEN.findall(folded)]


def _spelt_alike(token: str) -> str:
    if token == "%":  # noqa: S105 - the sign is meant
        return "percent"
    return token.replace(",", "") if _THOUSANDS.fullmatch(token) else token


def runs(words: Sequence[str], length: int) -> Iterable[Run]:
    """Return the runs of so many words, in order, with their repetitions."""
    return zip(*(words[at:] for at in range(length)), strict=False)


def copied_runs(text: str, query: str, positive_text: str) -> list[str]:
    """Return the runs of words of the query that stand in the text and not in the positive, in the query's order.

    Runs are of three words, of two where the query has four or fewer. A query of one word has none: to name the thing
    that was asked for is no copying.
    """
    copied, _ = _query_runs(text, query, positive_text)
    return [" ".join(run) for run in copied]


def query_copied(text: str, query: str, positive_text: str) -> float:
    """Return the share of the query's runs of words that the text has and the positive lacks, 0 to 1.

    A passage of the corpus was not written for the query; one that repeats its wording gives itself away, and gains
    similarity that no passage found by search has. What the positive says in the same words is not counted.
    """
    copied, of = _query_runs(text, query, positive_text)
    return len(copied) / of if of else 0.0


def _query_runs(text: str, query: str, positive_text: str) -> tuple[list[Run], int]:
    asked = tokens(query)
    length = 2 if len(asked) <= _SHORT_QUERY else _QUERY_RUN
    distinct = list(dict.fromkeys(runs(asked, length)))
    gained = set(runs(tokens(text), length)) - set(runs(tokens(positive_text), length))
    return [run for run in distinct if run in gained], len(distinct)


def near_copy(text: str, positives: Sequence[str]) -> float:
    """Return the highest overlap of the text's words with those of a known positive, 0 to 1.

    The overlap is the Jaccard index of the words counted with their repetitions, so 1 for a positive with its words in
    another order; 0 where there is no positive.
    """
    own = Counter(tokens(text))
    return max((_jaccard(own, Counter(tokens(p))) for p in positives), default=0.0)


def _jaccard(left: Counter[str], right: Counter[str]) -> float:
    union = (left | right).total()
    return (left & right).total() / union if union else 1.0


def copied_from_reference(text: str, references: Sequence[str]) -> float:
    """Return the largest share of the text's runs of five words that stand in one and the same reference, 0 to 1.

    1 for a mined passage verbatim and for an excerpt of it: a rewrite that rewrites nothing is a mined negative under
    another name. A text of fewer words counts as one run.
    """
    own = tokens(text)
    length = min(_REFERENCE_RUN, len(own))
    if not length:
        return 0.0
    wanted = list(runs(own, length))
    known = (set(runs(tokens(r), length)) for r in references)
    return max((sum(run in have for run in wanted) / len(wanted) for have in known), default=0.0)
