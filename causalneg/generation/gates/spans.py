"""Gate of the answer: what of the broken requirement's evidence still stands in a negative.

A negative must give no answer, so the spans that can be the answer must be gone from it. They are looked for where the
analysis says that the positive meets what the query asks for: in the verbatim evidence of its requirements.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from causalneg.generation.gates.copying import runs, tokens
from causalneg.generation.text import Kind, Span, typed_spans, year_of
from causalneg.records import Analysis, Facet, Requirement

# Facets whose evidence is the answer or a part of it. That of the others tells about whom, when or where the answer
# holds: once it is broken, the same value is another thing's value and answers nothing.
ANSWERING = frozenset({Facet.INFORMATION_NEED, Facet.ATTRIBUTE})

FUNCTION_WORDS = frozenset(
    "a about after all also an and any are as at be because been before being between both but by can could did do "
    "does each few for from had has have he her here his how i if in into is it its just later may might more most "
    "much my no nor not of off often on once one only or other our out over she should since so some such than that "
    "the their them then there these they this those through to under until up upon very was we were what when where "
    "which while who whom whose why will with within without would you your".split()
)
_SMALL_NUMBERS = frozenset("two three four five six seven eight nine".split())
_LARGE_NUMBERS = frozenset(
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety".split()
)
_TITLE_CASE_WORDS, _TITLE_CASE_SHARE = 6, 0.75  # so many words, and so many of them in upper case: a headline
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*(?!\w)")
_ASKS_NUMBER = re.compile(
    r"\b(?:how (?!did\b|do\b|does\b|is\b|was\b|were\b|are\b)|number|percent|percentage|ratio)", re.IGNORECASE
)
_ASKS_YEAR = re.compile(r"\byear\b", re.IGNORECASE)
_CURRENCIES = ("$", "€", "£", "¥")
_TELLING_DIGITS = 3  # a number of so many digits is known again without its unit
_SHORTEST_WORD = 4  # letters of a word that can be an answer by itself
_LONGEST_RUN = 6  # words


def evidence_values(evidence: str, query: str, title: str = "") -> list[str]:
    """Return the dates, years, numbers and names of a stretch of evidence, in order of their kinds, each once.

    A quantity of three digits or more gives its number, too, and a date its year where the query asks for the year.
    Where the query asks for a number, each one counts, also in words; elsewhere only figures of three digits or more.
    Of a headline, whose words are all in upper case, no names are taken. What the query or the title names is no answer
    and is left out.
    """
    spans = [s for s in typed_spans(evidence) if s.kind is not Kind.NAME or not _is_headline(evidence)]
    found = [form for span in spans for form in _forms(span, evidence, query)]
    found += [n for n in _plain_numbers(evidence, query) if not _stands(n, found)]
    # Not all that looks like a name is a word of its own: the «Pod» of an «iPod».
    return [s for s in dict.fromkeys(found) if _stands(s, [evidence]) and not _is_given(s, f"{query}\n{title}")]


def _forms(span: Span, evidence: str, query: str) -> list[str]:
    if span.kind is Kind.NAME:
        is_currency = evidence[span.end : span.end + 1] in _CURRENCIES  # the «US» of «US$»
        return [] if is_currency or span.text.lower() in FUNCTION_WORDS else [span.text]
    if span.kind is Kind.QUANTITY:
        return _quantity_forms(span.text, bool(_ASKS_NUMBER.search(query)))
    year = year_of(span.text) if span.kind is Kind.DATE and _ASKS_YEAR.search(query) else None
    return [span.text, year] if year else [span.text]


def _quantity_forms(text: str, asked: bool) -> list[str]:
    """Return a quantity and, if it tells enough, its number; of «12 of», which has no unit, nothing.

    Where no number is asked for, an ordinal or a number of one or two digits is no answer.
    """
    words, number = text.split(), _NUMBER.match(text)
    telling = number is not None and sum(c.isdigit() for c in number.group()) >= _TELLING_DIGITS
    if not asked and not telling:
        return []
    if words[-1].lower() in FUNCTION_WORDS:
        words.pop()
    whole = [" ".join(words)] if len(words) > 1 or not number or number.group() != words[0] else []
    return [*whole, *([number.group()] if number and telling else [])]


def _plain_numbers(evidence: str, query: str) -> list[str]:
    figures = [m.group() for m in _NUMBER.finditer(evidence)]
    if _ASKS_NUMBER.search(query):
        return figures + [w for w in tokens(evidence) if w in _SMALL_NUMBERS or w in _LARGE_NUMBERS]
    return [n for n in figures if sum(c.isdigit() for c in n) >= _TELLING_DIGITS]


def _is_headline(text: str) -> bool:
    words = [w for w in re.findall(r"[^\W\d_]+", text) if len(w) >= _SHORTEST_WORD]
    upper = sum(w[0].isupper() for w in words)
    return len(words) >= _TITLE_CASE_WORDS and upper >= _TITLE_CASE_SHARE * len(words)


def _is_given(span: str, given: str) -> bool:
    """Whether query or title has a span, or for a longer word another form of it: «Buddha» for «Buddhas»."""
    if _stands(span, [given]):
        return True
    words = tokens(span)
    return len(words) == 1 and len(span) >= _SHORTEST_WORD and any(w.startswith(words[0]) for w in tokens(given))


def evidence_phrases(
    evidence: str, query: str, title: str = "", function_words: Collection[str] = FUNCTION_WORDS
) -> list[str]:
    """Return the longest runs of the evidence's content words that neither the query nor the title has, in order.

    Runs end at function words, at words of query and title, and after six words. A single word counts from four
    letters on. For other languages than English give the function words of the corpus's style.
    """
    given = {*tokens(query), *tokens(title), *function_words}
    phrases: list[list[str]] = [[]]
    for word in tokens(evidence):
        if word in given:
            phrases.append([])
        elif len(phrases[-1]) == _LONGEST_RUN:
            phrases.append([word])
        else:
            phrases[-1].append(word)
    return list(dict.fromkeys(" ".join(p) for p in phrases if len(" ".join(p)) >= _SHORTEST_WORD))


def answer_spans(
    analysis: Analysis, query: str, title: str = "", function_words: Collection[str] = FUNCTION_WORDS
) -> list[str]:
    """Return the spans of the positive that can be the answer, the likeliest first, each once.

    From the evidence of every information need and attribute, critical or not: its dates, years, numbers and names,
    then the runs of its content words that neither the query nor the positive's title has.
    """
    evidence = [r.evidence for r in analysis.requirements if r.facet in ANSWERING]
    values = [v for e in evidence for v in evidence_values(e, query, title)]
    phrases = [p for e in evidence for p in evidence_phrases(e, query, title, function_words)]
    distinct: dict[str, str] = {}
    for span in [*values, *phrases]:
        distinct.setdefault(" ".join(tokens(span)), span)
    return list(distinct.values())


def spans_left(negative_text: str, spans: Iterable[str]) -> list[str]:
    """Return the spans that stand in a text as whole words, whatever the case, accents and commas between thousands.

    The words of a span with a number may stand in another order: «14 November 1969», «November 14, 1969».
    """
    words = tokens(negative_text)
    return [span for span in spans if _stands_in(tokens(span), words)]


def _stands_in(span: Sequence[str], words: Sequence[str]) -> bool:
    if not span:
        return False
    if any(w[0].isdigit() for w in span):
        return sorted(span) in (sorted(run) for run in runs(words, len(span)))
    return tuple(span) in runs(words, len(span))


def _stands(span: str, texts: Iterable[str]) -> bool:
    return any(spans_left(text, [span]) for text in texts)


def answer_left(negative_text: str, requirement: Requirement, query: str, title: str = "") -> tuple[float, str]:
    """Count the values of the broken requirement's evidence that a negative still has, and name them.

    Values are what `evidence_values` returns: dates, years, numbers and names that neither query nor title gives. Only
    an information need and an attribute are counted: a negative that breaks an entity, a constraint or a relation may
    keep the value, which then belongs to something else and answers nothing; it scores 0. So does evidence without
    values, about every second: it takes a judge. Of careful counterfactuals of SQuAD that break an information need or
    an attribute 97 in 100 have no value left.

    Args:
        negative_text: the negative without its title.
        requirement: the requirement that the negative was written to break.
        query: the query.
        title: the title of the positive.
    """
    if requirement.facet not in ANSWERING:
        return 0.0, ""
    left = spans_left(negative_text, evidence_values(requirement.evidence, query, title))
    return float(len(left)), f"still has {', '.join(f'«{span}»' for span in left)}" if left else ""
