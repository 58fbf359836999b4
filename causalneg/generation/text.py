"""Sentences, and the typed spans that an edit can replace: dates, years, quantities, names."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

MONTHS = frozenset("january february march april may june july august september october november december".split())
_MONTH = f"(?:{'|'.join(sorted(month.capitalize() for month in MONTHS))})"
_DATE = re.compile(
    rf"\b(?:\d{{1,2}} {_MONTH} \d{{4}}|{_MONTH} \d{{1,2}}, \d{{4}}|\d{{1,2}} {_MONTH}|{_MONTH} \d{{4}})\b(?! BC)"
)
_YEAR = re.compile(r"\b(?:\d{1,4} BC|AD \d{1,4}|(?:1\d{3}|20\d{2})s?)\b(?![,.]?\d)")
_QUANTITY = re.compile(
    r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?: (?:thousand|million|billion))? ?(?:%|°C|°F|[^\W\d_]+\b)(?:²|³)?"
)
_UNIT = re.compile(r"^[\d.,]+(?: (?:thousand|million|billion))? ?")
_WORD = r"[^\W\d_a-zß-öø-ÿ][\w'’.-]*[\w]|[A-Z]\."  # noqa: RUF001 - a typographic apostrophe is meant
_LINK = r"(?:of|the|de|del|della|di|da|du|des|la|le|van|von|der|den|zu|y|e|al)"
_NAME = re.compile(rf"(?:{_WORD})(?: (?:{_LINK} ){{0,2}}(?:{_WORD}|[A-Z]\b|\d{{1,4}}\b))*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*(?=\s+[\"'“‘(\[]?[^\W_a-z])")  # noqa: RUF001 - quotation marks
_ABBREVIATION = re.compile(
    r"(?:\b(?:St|Mt|Dr|Mr|Mrs|Ms|Jr|Sr|Prof|Gen|Col|Capt|Lt|No|vs|etc|al|ca?|approx|Fig|Op|Vol|pp|Ed|Rev|Sgt|Gov|Sen|Rep|Inc|Ltd|Co|Corp|est|U\.S|e\.g|i\.e|cf|[A-Z]))\.$"
)
# Words that open a sentence in upper case without being names.
_OPENERS = frozenset(
    "a about after all although among an and another any are around as at because before below beneath beside "
    "between beyond both but by did do does during each eight every few five following for four from had has have "
    "he her here his how however i if in inside into is it its just like many more most much near nearly nine no "
    "nobody none nor not on once one only or other our out over seven several she since six some soon such ten "
    "than that the their them then there these they this those three through throughout thus to today together "
    "two under unlike until up upon was we were what when where whether which while who whom whose why will with "
    "within without you your".split()
)
_BEFORE_NAMES = frozenset("a an at beside by from in into near of off on over the to towards under with".split())
_ADJECTIVE = re.compile(r"(?:ic|ish|ese|ian|ean|can)$")
# Words that may follow a name that stands for itself; another word makes the name an attribute of it.
_FOLLOWERS = frozenset(
    "a after against along also an and are as at be became before began between but by came can could did during "
    "for from gave had has have in into is it its made may near of off on or over rose than that the then through "
    "to took under until was were when where which while who whose will with within without would".split()
)
_PRONOUNS = frozenset(
    "afterwards also another both he her here him his however instead it its later meanwhile she such that their "
    "them then there these they this those".split()
)

_POINTING = frozenset(("the", word) for word in "former latter two three same other others".split())
_QUOTED_SENTENCES = 4  # that a quotation may go on for


class Kind(StrEnum):
    """What a span denotes, as far as its form tells."""

    DATE = "date"
    YEAR = "year"
    QUANTITY = "quantity"
    NAME = "name"


@dataclass(frozen=True)
class Span:
    """A stretch of a text.

    Attributes:
        form: what a replacement must share: the pattern of a date, the unit of a quantity, the place of a name.
    """

    text: str
    kind: Kind
    form: str
    start: int

    @property
    def end(self) -> int:
        """Where the span ends."""
        return self.start + len(self.text)


def fold(text: str) -> str:
    """Return a text for comparison: without case and accents, one character for each of its letters."""
    return "".join(_fold_letter(c) for c in text)


def _fold_letter(letter: str) -> str:
    base = unicodedata.normalize("NFKD", letter)[0]
    folded = base.casefold()
    return folded if len(folded) == 1 else base.lower()[:1] or letter


def find(needle: str, text: str) -> list[int]:
    """Return where `needle` stands in a text as whole words, whatever the case and accents."""
    if not needle.strip():
        return []
    return [m.start() for m in re.finditer(rf"(?<!\w){re.escape(fold(needle))}(?!\w)", fold(text))]


def replace(text: str, old: str, new: str) -> str:
    """Put `new` in the place of `old` wherever `find` finds it."""
    for start in reversed(find(old, text)):
        text = text[:start] + new + text[start + len(old) :]
    return text


def sentences(text: str) -> list[str]:
    """Split a text into sentences; joined by a space they give the text with its white space normalised."""
    parts: list[str] = []
    plain = " ".join(text.split())
    ends = [match.end() for match in _SENTENCE_END.finditer(plain)]
    pieces = [piece for a, b in pairwise([0, *ends, len(plain)]) if (piece := plain[a:b].strip())]
    for at, piece in enumerate(pieces):
        if parts and (_ABBREVIATION.search(parts[-1]) or _closes(parts[-1], pieces[at : at + _QUOTED_SENTENCES])):
            parts[-1] += " " + piece
        else:
            parts.append(piece)
    return parts


def _open(text: str) -> bool:
    """Whether a quotation or bracket that is opened in a text does not end in it."""
    return text.count('"') % 2 == 1 or any(text.count(a) > text.count(b) for a, b in ("“”", "()", "[]"))


def _closes(before: str, following: list[str]) -> bool:
    """Whether the quotation or bracket that a text leaves open ends in the pieces that follow."""
    return _open(before) and any(not _open(" ".join([before, *following[: n + 1]])) for n in range(len(following)))


def words(text: str) -> list[str]:
    """Return the words of a text, folded."""
    return re.findall(r"\w+", fold(text))


def opens_dangling(sentence: str) -> bool:
    """Whether a sentence opens with words that point to the one before it."""
    first = words(sentence)[:2]
    return bool(first) and (first[0] in _PRONOUNS or tuple(first) in _POINTING)


def _free(start: int, end: int, taken: list[Span]) -> bool:
    return all(end <= s.start or start >= s.end for s in taken)


def _date_form(text: str) -> str:
    return re.sub(r"\d", "9", re.sub(_MONTH, "M", text)).replace("99 M", "9 M")


def _name_spans(text: str) -> Iterator[tuple[int, str]]:
    for match in _NAME.finditer(text):
        start, name = match.start(), match.group()
        first = re.match(r"[\w'’]+", name)  # noqa: RUF001
        while first and first.group().lower() in _OPENERS:
            cut = re.match(rf"[\w'’]+ (?:{_LINK} )*", name)  # noqa: RUF001
            if cut is None:
                name = ""
                break
            start, name = start + cut.end(), name[cut.end() :]
            first = re.match(r"[\w'’]+", name)  # noqa: RUF001
        name = re.sub(r"['’]s$", "", name)  # noqa: RUF001
        if len(name) > 1 and not name[0].isdigit() and not name[0].islower():
            yield start, name


def _name_form(text: str, start: int, name: str) -> str:
    """Describe a name's shape and place: words, the article or preposition before it, whether it stands for itself."""
    before = re.search(r"(\w+) $", text[:start])
    after = re.match(r" (\w+)", text[start + len(name) :])
    word = before.group(1).lower() if before else ""
    parts = name.split()
    shape = "number" if name[-1].isdigit() else "linked" if any(p.islower() for p in parts) else str(min(2, len(parts)))
    stands = not after or after.group(1) in _FOLLOWERS or not after.group(1).islower()
    return f"{shape} {word if word in _BEFORE_NAMES else '-'} {'itself' if stands else 'attribute'}"


def common_words(texts: Iterable[str]) -> frozenset[str]:
    """Return the words that stand in lower case in some text: no name consists of them alone."""
    return frozenset(w for text in texts for w in re.findall(r"\w+", text) if w.islower())


def is_proper(name: str, common: frozenset[str]) -> bool:
    """Whether a name is no adjective and has no common word but links: «Johann Galle», and not «Humber Bridge»."""
    if _ADJECTIVE.search(name):
        return False
    return not any(fold(word) in common for word in name.split() if not word.islower())


def typed_spans(text: str) -> list[Span]:
    """Find the dates, years, quantities and names of a text, in order, not overlapping."""
    found: list[Span] = [Span(m.group(), Kind.DATE, _date_form(m.group()), m.start()) for m in _DATE.finditer(text)]
    for match in _QUANTITY.finditer(text):
        unit = _UNIT.sub("", match.group()) or match.group().split()[-1]  # of «5 million» the unit is the million
        is_unit = unit.lower() not in _OPENERS and not unit[0].isupper()
        if is_unit and _free(match.start(), match.end(), found):
            found.append(Span(match.group(), Kind.QUANTITY, unit.lower(), match.start()))
    for match in _YEAR.finditer(text):
        if _free(match.start(), match.end(), found):
            form = re.sub(r"\d+", "9", match.group())
            found.append(Span(match.group(), Kind.YEAR, form, match.start()))
    for start, name in _name_spans(text):
        if _free(start, start + len(name), found) and not re.fullmatch(_MONTH, name):
            found.append(Span(name, Kind.NAME, _name_form(text, start, name), start))
    return sorted(found, key=lambda s: s.start)


def number_of(text: str) -> float | None:
    """Return the first number in a text, if there is one; commas part thousands."""
    match = re.search(r"\d[\d,]*(?:\.\d+)?", text)
    return float(match.group().replace(",", "")) if match else None


def year_of(text: str) -> str | None:
    """Return the year in a date or year, if there is one."""
    match = re.search(r"\d{1,4} BC|AD \d{1,4}|\b\d{4}\b", text)
    return match.group() if match else None
