"""Sentences and typed spans."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.text import Kind, find, fold, opens_dangling, sentences, typed_spans

APOLLO = (
    "Apollo 12 was the second mission to land astronauts on the Moon. During the ascent on 14 November 1969, lightning "
    "struck the Saturn V twice. About 34 kg of samples were collected. In 2014 and 2016 nothing happened at St. Helens."
)


def kinds(text: str) -> dict[str, Kind]:
    return {span.text: span.kind for span in typed_spans(text)}


def test_sentences_end_where_they_end() -> None:
    assert [s[:9] for s in sentences(APOLLO)] == ["Apollo 12", "During th", "About 34 ", "In 2014 a"]


def test_abbreviations_and_initials_end_no_sentence() -> None:
    assert len(sentences("Dr. Smith met J. S. Bach near St. Gallen. They talked.")) == 2


def test_spans_have_their_kind() -> None:
    found = kinds(APOLLO)
    assert found["14 November 1969"] is Kind.DATE
    assert found["34 kg"] is Kind.QUANTITY
    assert found["2014"] is Kind.YEAR
    assert found["Apollo 12"] is Kind.NAME


@pytest.mark.parametrize(
    ("text", "span", "kind"),
    [
        ("It opened on July 4, 1976 in Boston.", "July 4, 1976", Kind.DATE),
        ("The statue fell in 226 BC after a quake.", "226 BC", Kind.YEAR),
        ("The tower is 1,250.5 m high.", "1,250.5 m", Kind.QUANTITY),
        ("It melts at 3,422 °C in vacuum.", "3,422 °C", Kind.QUANTITY),
        ("The risk is 1 in 5 million.", "5 million", Kind.QUANTITY),
        ("The work of Ludwig van Beethoven was played.", "Ludwig van Beethoven", Kind.NAME),
    ],
)
def test_forms_of_spans(text: str, span: str, kind: Kind) -> None:
    assert kinds(text).get(span) is kind


def test_a_word_that_opens_a_sentence_is_no_name() -> None:
    assert not {"The", "During", "About", "In"} & set(kinds(APOLLO))


@given(st.text(max_size=200))
def test_spans_lie_in_the_text_and_do_not_overlap(text: str) -> None:
    spans = typed_spans(text)
    assert all(text[s.start : s.end] == s.text for s in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))


@given(st.text(max_size=200))
def test_folding_keeps_the_length(text: str) -> None:
    assert len(fold(text)) == len(text)


@given(st.text(max_size=200))
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    assert "".join(" ".join(sentences(text)).split()) == "".join(text.split())


def test_finding_ignores_case_and_accents_and_wants_whole_words() -> None:
    assert find("crecy", "The Battle of Crécy") == [14]
    assert find("art", "The artist of art") == [14]
    assert find("", "anything") == []


def test_a_quotation_is_not_torn_apart() -> None:
    said = 'She commented: "I think of it. But there are few."'
    assert sentences(f"{said} Then she left. (It was late. Nobody saw.) So it went.") == [
        said,
        "Then she left.",
        "(It was late. Nobody saw.)",
        "So it went.",
    ]


def test_the_mark_that_ends_a_quotation_is_kept() -> None:
    text = 'He said "no." She went. It was "late."'
    assert " ".join(sentences(text)) == text


def test_a_quotation_that_never_ends_holds_nothing_together() -> None:
    assert len(sentences('He said "no. She went home. It rained. They slept. All was well. It was late.')) == 6


@pytest.mark.parametrize("sentence", ["He fled.", "The former was sold.", "The two never met again."])
def test_a_sentence_may_point_to_the_one_before(sentence: str) -> None:
    assert opens_dangling(sentence)
    assert not opens_dangling("The road was long.")
