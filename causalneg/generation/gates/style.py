"""Gates of style and form: does a generated passage read like one of the corpus.

The encoder must not tell negatives by their origin. What would give a generated passage away, how long it is, how it is
punctuated, which words it is made of, that it repeats itself, is measured on a sample of the corpus, with medians and
quantiles, which a few odd passages do not move.
"""

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from causalneg.generation.gates.copying import runs, tokens
from causalneg.generation.text import fold
from causalneg.records import Record

SAMPLE = 2000  # passages
_FUNCTION_WORDS = 40
_COMMON_MARK = 0.05  # least share of the passages that have it
_FEW = 4  # passages; from so few, spreads are doubled
_MAIN_SCRIPT = 0.01  # least share of the corpus's letters
_WINDOW = 50  # words; distinct words are counted in windows, as their share falls with a text's length
_LONGEST_RUN = 32  # words
_NORMAL_95, _NORMAL_99 = 1.645, 2.326  # quantiles of the normal distribution

_ENDERS = ".!?…。！？｡؟۔।॥։።"  # noqa: RUF001 - sentence ends of other scripts are meant
_SENTENCE_END = re.compile(r"[.!?…]+(?=[\"')\]»”’]*(?:\s|$))|[。！？｡؟۔।॥։።]+")  # noqa: RUF001


class Spread(Record):
    """How a feature is distributed: its median and, to either side, one standard deviation of the normal with its tail.

    The larger of what the quantiles of 5 % and of 1 % tell, so that a skewed feature is not held to be normal, and
    never below a floor, so that a feature in which a sample agrees does not condemn the first that differs.
    """

    median: float
    below: float
    above: float


class CorpusStyle(Record):
    """How the passages of a corpus are written; `model_dump_json` and `model_validate_json` keep it exactly.

    Attributes:
        passages: how many it was measured on.
        function_words: the words that stand in most passages.
        vocabulary: the words that stand in two passages of the sample or more.
        marks: punctuation that stands in one passage of twenty or more.
        scripts: scripts that make up a hundredth of the letters or more, by the first word of their letters' names.
        spreads: each feature's distribution, by its name in words.
    """

    passages: int
    function_words: tuple[str, ...]
    vocabulary: tuple[str, ...]
    marks: str
    scripts: tuple[str, ...]
    spreads: dict[str, Spread]

    @cached_property
    def own(self) -> "_Own":
        """What is the corpus's own, ready for counting."""
        return _Own(self.function_words, frozenset(self.vocabulary), frozenset(self.marks), self.scripts)


@dataclass(frozen=True)
class _Own:
    """What is usual in a corpus and counted in a text."""

    function_words: tuple[str, ...]
    known: frozenset[str]
    marks: frozenset[str]
    scripts: tuple[str, ...]


@dataclass(frozen=True)
class _Feature:
    """A way in which a text may be unlike the corpus.

    Attributes:
        floor: the smallest spread that counts, in the units of the feature.
        sides: the signs of a deviation that counts; what is more varied than the corpus is no defect.
        show: turns a value into words.
    """

    name: str
    floor: float
    sides: tuple[int, ...]
    show: Callable[[float], str]


def _count(value: float) -> str:
    return f"{math.expm1(max(0.0, value)):.0f}"


def _percent(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.1f} %"


FEATURES = (
    _Feature("words per passage", 0.25, (-1, 1), _count),
    _Feature("words per sentence", 0.25, (-1, 1), _count),
    _Feature("share of punctuation", 0.01, (-1, 1), _percent),
    _Feature("marks that are rare in the corpus", 0.4, (1,), _count),
    _Feature("share of digits", 0.01, (-1, 1), _percent),
    _Feature("share of capitals", 0.015, (-1, 1), _percent),
    _Feature("share of function words", 0.05, (-1, 1), _percent),
    _Feature("share of letters of another script", 0.02, (1,), _percent),
    _Feature("share of words known to the corpus", 0.05, (-1,), _percent),
    _Feature("share of distinct words", 0.05, (-1,), _percent),
    _Feature("words in the longest repeated run", 0.35, (1,), _count),
)


def corpus_style(texts: Sequence[str], seed: int = 0, sample: int = SAMPLE) -> CorpusStyle:
    """Measure the style of a corpus on a sample of its passages.

    The same texts in the same order, seed and size of the sample give the same style.

    Raises:
        ValueError: there is no text, or none with a word.
    """
    chosen = sorted(random.Random(seed).sample(range(len(texts)), min(sample, len(texts))))  # noqa: S311
    split = [(texts[i], words) for i in chosen if (words := tokens(texts[i]))]
    if not split:
        raise ValueError("the style of a corpus needs passages with words")
    counts = Counter(w for _, words in split for w in set(words) if not w[0].isdigit())
    ranked = sorted(counts, key=lambda w: (-counts[w], w))
    own = _Own(
        function_words=tuple(ranked[:_FUNCTION_WORDS]),
        # A passage of the sample is asked for words of other passages, so its own occurrence does not count.
        known=frozenset(w for w in ranked if counts[w] > min(2, len(split) - 1)),
        marks=_common_marks([text for text, _ in split]),
        scripts=_main_scripts(text for text, _ in split),
    )
    values = np.array([_features(text, words, own) for text, words in split])
    return CorpusStyle(
        passages=len(split),
        function_words=own.function_words,
        vocabulary=tuple(sorted(w for w in ranked if counts[w] >= min(2, len(split)))),
        marks="".join(sorted(own.marks)),
        scripts=own.scripts,
        spreads={f.name: _spread(column, f.floor) for f, column in zip(FEATURES, values.T, strict=True)},
    )


def _spread(values: np.ndarray, floor: float) -> Spread:
    trust = 1 + _FEW / len(values)  # few passages do not show how far others go
    q1, q5, median, q95, q99 = (float(q) for q in np.quantile(values, [0.01, 0.05, 0.5, 0.95, 0.99]))
    return Spread(
        median=median,
        below=trust * max(floor, (median - q5) / _NORMAL_95, (median - q1) / _NORMAL_99),
        above=trust * max(floor, (q95 - median) / _NORMAL_95, (q99 - median) / _NORMAL_99),
    )


def style_distances(text: str, style: CorpusStyle, reference: str) -> dict[str, float]:
    """Return by how many standard deviations a text is farther from the corpus than its positive is, by feature.

    Each is 0 or more; to one side of the median what the positive deviates to that side is allowed for.
    """
    values, allowed = _features_of(text, style), _features_of(reference, style)
    return {
        feature.name: _excess(value, own, style.spreads[feature.name], feature.sides)
        for feature, value, own in zip(FEATURES, values, allowed, strict=True)
    }


def style_distance(text: str, style: CorpusStyle, reference: str) -> tuple[float, str]:
    """Return how far a text is from the style of the corpus, and in what.

    Args:
        text: the generated passage, with its title if the corpus was measured with titles.
        style: the style of the corpus.
        reference: the positive of the passage; what it does itself is allowed.

    Returns:
        The largest of `style_distances`, and a sentence that names the feature, its value and what is usual; nothing
        where the distance is 0. With 3 as the threshold every one of 1,080 careful counterfactuals of SQuAD passes, and
        so do 97 of 100 passages of MS MARCO beside the positive of another query.
    """
    distances = style_distances(text, style, reference)
    feature = max(FEATURES, key=lambda f: distances[f.name])
    if distances[feature.name] == 0:
        return 0.0, ""
    spread = style.spreads[feature.name]
    value = dict(zip((f.name for f in FEATURES), _features_of(text, style), strict=True))[feature.name]
    usual = [spread.median - _NORMAL_95 * spread.below, spread.median + _NORMAL_95 * spread.above]
    low, high = (feature.show(v) for v in usual)
    return distances[feature.name], f"{feature.name}: {feature.show(value)}, in the corpus mostly {low} to {high}"


def _excess(value: float, allowed: float, spread: Spread, sides: tuple[int, ...]) -> float:
    side = 1 if value > spread.median else -1
    if side not in sides:
        return 0.0
    width = spread.above if side > 0 else spread.below
    return max(0.0, (side * (value - spread.median) - max(0.0, side * (allowed - spread.median))) / width)


def _features_of(text: str, style: CorpusStyle) -> list[float]:
    return _features(text, tokens(text), style.own)


def _features(text: str, words: list[str], own: _Own) -> list[float]:
    """Return the values of `FEATURES`, in their order; counts as the logarithm of one more."""
    characters = Counter(c for c in text if not c.isspace())
    letters = Counter({c: n for c, n in characters.items() if c.isalpha()})
    counted = Counter(words)
    plain = sum(n for w, n in counted.items() if not w[0].isdigit())
    return [
        math.log1p(len(words)),
        math.log1p(len(words) / max(1, len(_SENTENCE_END.findall(text)))),
        _share(characters, _is_mark),
        math.log1p(sum(n for c, n in characters.items() if _is_mark(c) and c not in own.marks)),
        _share(characters, str.isdigit),
        _share(letters, str.isupper),
        sum(counted[w] for w in own.function_words) / max(1, len(words)),
        _share(letters, lambda c: _script(c) not in own.scripts),
        sum(n for w, n in counted.items() if w in own.known) / plain if plain else 0.0,
        _distinct_share(words),
        math.log1p(longest_repeated_run(words)),
    ]


def _share(counts: Counter[str], which: Callable[[str], bool]) -> float:
    return sum(n for c, n in counts.items() if which(c)) / max(1, counts.total())


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _common_marks(texts: Sequence[str]) -> frozenset[str]:
    passages = Counter(c for text in texts for c in set(text) if _is_mark(c))
    return frozenset(c for c, n in passages.items() if n >= _COMMON_MARK * len(texts))


@lru_cache(maxsize=65536)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split(" ")[0].split("-")[0]


def _main_scripts(texts: Iterable[str]) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for text in texts:
        for letter, n in Counter(text).items():
            if letter.isalpha():
                counts[_script(letter)] += n
    return tuple(sorted(s for s, n in counts.items() if n >= _MAIN_SCRIPT * counts.total()))


def _distinct_share(words: Sequence[str]) -> float:
    starts = range(0, max(1, len(words) - _WINDOW + 1), _WINDOW)
    windows = [words[at : at + _WINDOW] for at in starts]
    return sum(len(set(w)) / max(1, len(w)) for w in windows) / len(windows)


def longest_repeated_run(words: Sequence[str]) -> int:
    """Return the length of the longest run of words that stands in a text twice, 32 at most; the two may overlap."""
    # A run of `low` words is repeated, one of `high` is not: where 5 words are repeated, 4 are.
    low, high = 0, min(len(words), _LONGEST_RUN + 1)
    while high - low > 1:
        middle = (low + high) // 2
        seen = list(runs(words, middle))
        low, high = (middle, high) if len(set(seen)) < len(seen) else (low, middle)
    return low


# Talk about the text, the task or the writer, which no passage has. Parts that may stand anywhere.
_TEXT = r"(?:passage|text|document|snippet|excerpt|paragraph|answer|response)"
_TELLS = (
    r"(?:does not|doesn['’]t|do not|is about|isn['’]t|discusses|mentions|focuses on|fails to|provides no|contains no|"  # noqa: RUF001
    r"gives no|lacks|has been (?:re)?written|was (?:re)?written|would not)"
)
_META = re.compile(
    r"\b(?:"
    r"as an? (?:ai\b|artificial intelligence|(?:large )?language model)|i(?: am|['’]m) (?:an ai\b|a language model)|"  # noqa: RUF001
    r"i (?:cannot|can['’]t) (?:fulfil|provide|assist|help|answer|comply)|"  # noqa: RUF001
    rf"this {_TEXT} (?:{_TELLS}|describes|provides|covers|explains)|the {_TEXT} {_TELLS}|"
    rf"the (?:given|above|rewritten|provided|generated|modified) {_TEXT}|"
    r"the (?:search |user(?:['’]s)? |given )?query\b|the user(?:['’]s)? question|the given question|"  # noqa: RUF001
    r"counterfactual(?:s|ly)?|hard[- ]negatives?\b|negative (?:passage|document|sample)s?\b|"
    r"in this (?:rewritten|modified|altered|rewrite|counterfactual)|"
    r"(?:rewritten|modified|counterfactual) (?:passage|document|snippet|version of the (?:passage|text))|"
    r"(?:the|this|core) information need|information requirements?\b|"
    r"(?:does not|doesn['’]t|not) (?:directly )?(?:answer|address) the question|"  # noqa: RUF001
    r"(?:un|ir|not (?:directly )?)(?:related|relevant) to (?:the|this) (?:question|query|discussion|topic|search)|"
    r"no (?:clear|definitive|definite|direct|simple) answer|"
    r"en tant qu['’](?:ia|intelligence artificielle|assistant)\b|en tant que modèle de langage|"  # noqa: RUF001
    r"als (?:ki|künstliche intelligenz|sprachmodell)\b|como (?:una? )?(?:ia|modelo de (?:lenguaje|linguagem))\b"
    r")|作为(?:一个|一款)?(?:ai|人工智能|语言模型)",
    re.IGNORECASE,
)
# What an answer to an instruction begins with. Repetitions are bounded here and below, so that no text takes long.
_PREAMBLE = re.compile(
    r"\A\W{0,8}(?:(?:sure|certainly|absolutely|okay|ok)\s*[,!.:]|of course\s*!|here(?: is|['’]s| are)\b|"  # noqa: RUF001
    r"i(?: am|['’]m) sorry|i apologi[sz]e)|"  # noqa: RUF001
    r"(?:^|(?<=[.!?]\s))\W{0,8}(?:note|explanation|reasoning|disclaimer)\s*:|"
    r"^\W{0,8}(?:(?:rewritten|revised|modified|new|hard|counterfactual|negative|generated)\s+)*"
    r"(?:passage|document|text|snippet|query|question|answer|output|negative|counterfactual|title|response)"
    r"(?:\s+\d+)?\W{0,4}:",
    re.IGNORECASE | re.MULTILINE,
)
# Each kind of defect is one where the text has it and the positive has none of its kind.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("code fence", re.compile(r"```|~~~")),
    ("heading mark", re.compile(r"^[ \t]*#{1,6}\s", re.MULTILINE)),
    ("list item", re.compile(r"^[ \t]*[-*•‣▪+][ \t]+\S|\n[ \t]*\d{1,2}[.)]\s", re.MULTILINE)),
    ("emphasis mark", re.compile(r"\*\*\S[^*\n]{0,200}\*\*|(?<!\w)__[^\W_][^_\n]{0,200}__(?!\w)")),
    ("link mark", re.compile(r"\[[^\]\n]{1,200}\]\((?:https?:|/)")),
    ("table row", re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)),
    (
        "placeholder",
        re.compile(
            r"\[[A-Z][A-Z_ ]{3,40}\d*\]|"
            r"\[(?i:insert|your|name|date|entity|year|place|location|number|person)\b[^\]]{0,80}\]|"
            r"<[A-Z][A-Z_ ]{2,40}>|\{\{?[A-Za-z_ ]{1,40}\}?\}|_{3,}|\bX{4,}\b|(?i:lorem ipsum)"
        ),
    ),
    (
        "markup or data remnant",
        re.compile(
            r"</?[a-z][a-z0-9]*(?:\s[^<>]{0,200})?/?>|&(?:[a-z]{2,8}|#\d{1,6});|<\|[^|<>]{0,40}\|>|\[/?INST\]|"
            r"\{\s{0,8}\"|\"\s{0,8}\}|\"\s{0,8}:\s{0,8}[\"\[{]|\\[ntu\"]"
        ),
    ),
    ("space before punctuation", re.compile(r"(?<=\w) (?:,|\.(?! \.))(?=\s|$)")),
    ("missing space", re.compile(r"[^\W\d_A-Z]{3,24}[.!?][A-Z][a-z]|[^\W\d_]{3,24},[^\W\d_]{3,24}")),
    ("run of spaces", re.compile(r"\S[ \t]{3}")),
    ("spaced letters", re.compile(r"(?<!\S)(?:[^\W\d_] ){5,}")),
    (
        "garbled character",
        re.compile(
            "[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ud800-\udfff]|Ã[\x80-\xbf©¨¼¶¤]|â€|"
            r"([^\W\d_])\1{4,}"
        ),
    ),
)
_DOUBLED = re.compile(r"(?<![\w'’-])([^\W\d_]{2,}) (\1)(?![\w'’-])", re.IGNORECASE)  # noqa: RUF001
# Words that English, German and French may write twice in a row.
_MAY_DOUBLE = frozenset("had that so very long die der das den sie nous vous on il".split())
_PRONOUNS = frozenset("he she him his her it its such that their them these they this those".split())
_EXPLETIVE = re.compile(r"\W*it (?:\w+ ){1,4}(?:that|to)\b", re.IGNORECASE)
_PAIRS = ("()", "[]", "{}", "（）", "【】", "《》", "「」", "『』")  # noqa: RUF001
_QUOTES = re.compile('["“”„‟«»]')
_INCHES = re.compile(r"(?<=\d)\"")
_CLOSERS = " \t\n\r\"'’”»)]}）】》」』*"  # noqa: RUF001
_FOOTNOTES = re.compile(r"(?:\[\d{1,4}\]\s{0,2}){1,8}$")


def form_defects(text: str, positive_text: str) -> list[str]:
    """Return what betrays a generated text by its form, in words; nothing for one without defects.

    Talk about the text or the task, remnants of markup, data and templates, an end or an opening in the middle of a
    sentence, unbalanced brackets and quotes, a pronoun that points to nothing, doubled words, broken spacing, garbled
    characters. A kind of defect that the positive has as well is no defect: corpora have their habits. Of careful
    counterfactuals of SQuAD 3 in 1,000 have one; of an 8B model's texts for MS MARCO 42 in 100, most of them cut off.

    Args:
        text: the generated passage without its title.
        positive_text: the positive without its title.
    """
    if not text.strip():
        return ["no text"]
    return [*_phrases(text, positive_text), *_kinds(text, positive_text), *_frame(text, positive_text)]


def _phrases(text: str, positive_text: str) -> list[str]:
    known = " ".join(fold(positive_text).split())
    found = [m.group().strip() for pattern in (_META, _PREAMBLE) for m in pattern.finditer(text)]
    return [f"talks about itself: «{p}»" for p in dict.fromkeys(found) if " ".join(fold(p).split()) not in known]


def _kinds(text: str, positive_text: str) -> list[str]:
    defects = []
    for name, pattern in _FORMS:
        match = pattern.search(text)
        if match and not pattern.search(positive_text):
            defects.append(f"{name}: «{match.group().strip()[:40]}»")
    known = {m.group().lower() for m in _DOUBLED.finditer(positive_text)}
    # A name may be doubled, also with a word in lower case: «Full House house».
    doubled = (
        m
        for m in _DOUBLED.finditer(text)
        if m.group(2).islower() and (m.group(1).islower() or _opens_sentence(text, m.start()))
    )
    defects += [
        f"doubled word: «{m.group()}»"
        for m in doubled
        if m.group(1).lower() not in _MAY_DOUBLE and m.group().lower() not in known
    ]
    return defects


def _opens_sentence(text: str, at: int) -> bool:
    before = text[:at].rstrip()
    return not before or before[-1] in _ENDERS


def _frame(text: str, positive_text: str) -> list[str]:
    checks: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("ends in the middle of a sentence", _unfinished),
        ("opens in the middle of a sentence", _opens_inside),
        ("opens with a word that points to nothing", _opens_dangling),
        *((f"unbalanced brackets {pair}", _unbalanced(pair)) for pair in _PAIRS),
    )
    defects = [name for name, has in checks if has(text) and not has(positive_text)]
    return [*defects, "unbalanced quotes"] if _odd_quotes(text) and not _loose_quotes(positive_text) else defects


def _odd_quotes(text: str) -> bool:
    return len(_QUOTES.findall(_INCHES.sub("", text))) % 2 == 1


def _loose_quotes(text: str) -> bool:
    """Whether a text has quotation marks that nothing opens, or nothing closes, as corpora with lost marks have."""
    plain = _INCHES.sub("", text)
    places = [m.start() for m in _QUOTES.finditer(plain)]
    opening = sum(at == 0 or not (plain[at - 1].isalnum() or plain[at - 1] in f"{_ENDERS},;)") for at in places)
    return 2 * opening != len(places)


def _unbalanced(pair: str) -> Callable[[str], bool]:
    return lambda text: text.count(pair[0]) != text.count(pair[1])


def _unfinished(text: str) -> bool:
    """Whether a text has no sentence end at its end; an ellipsis is none."""
    end = _FOOTNOTES.sub("", text.rstrip()).rstrip(_CLOSERS)
    return not end or end[-1] not in _ENDERS or end.endswith(("...", "…"))


def _opens_dangling(text: str) -> bool:
    """Whether a text begins with a pronoun for something before it; the «it» of «it is said that» is none."""
    first = re.match(r"\W*(\w+)", text)
    return first is not None and first.group(1).lower() in _PRONOUNS and not _EXPLETIVE.match(text)


def _opens_inside(text: str) -> bool:
    """Whether a text begins with a sign that only follows something, or with a word in lower case."""
    first = re.match(r"\s*(\w+|[,.;:!?)\]}、。])", text)
    return first is not None and (first.group(1).islower() or not first.group(1)[0].isalnum())
