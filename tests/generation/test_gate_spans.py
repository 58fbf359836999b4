"""Which spans can be the answer, and which of them are left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.gates.spans import (
    answer_left,
    answer_spans,
    evidence_phrases,
    evidence_values,
    spans_left,
)
from causalneg.records import Analysis, Facet, Requirement

QUERY = "When did the Humber Bridge open to traffic?"
TITLE = "Humber Bridge"
EVIDENCE = "The Humber Bridge opened to traffic on 24 June 1981"


def requirement(evidence: str, facet: Facet = Facet.INFORMATION_NEED, id: int = 1) -> Requirement:  # noqa: A002
    return Requirement(id=id, facet=facet, content="It is stated.", evidence=evidence, critical=True)


def analysis(*requirements: Requirement) -> Analysis:
    return Analysis.model_construct(requirements=list(requirements))


@pytest.mark.parametrize(
    ("evidence", "query", "values"),
    [
        (EVIDENCE, QUERY, ["24 June 1981"]),  # the name is the query's
        (EVIDENCE, "In which year did the bridge open?", ["Humber Bridge", "24 June 1981", "1981"]),
        ("304.8 sq mi (789 km2) is land", "How much is land?", ["304.8 sq", "304.8", "789"]),
        ("a span of 1,410 metres", "How long is the span?", ["1,410 metres", "1,410"]),
        ("it has 12 lanes", "How many lanes are there?", ["12 lanes"]),
        ("12 of them opened", "Which opened?", []),
        ("12 of them opened", "How many opened?", ["12"]),
        ("the 63rd tournament of 1,200 teams", "Who won it?", ["1,200", "1,200 teams"]),
        ("a net worth of 450 million dollars", "What is the highest salary?", ["450 million dollars", "450"]),
        ("some million of them", "What is the highest salary?", []),
        ("America's Got Talent: A Stunning Rise Up Performance Has Everybody on Their Feet", "Who sings it?", []),
        ("built by Johann Galle in 1846", "Who built it?", ["1846", "Johann Galle"]),
        ("two sons and eleven daughters", "Who were they?", []),
        ("two sons and eleven daughters", "How many were they?", ["two", "eleven"]),
        ("US$3.8 billion of revenue", "How much revenue?", ["3.8 billion"]),
        ("the iPod had a seat", "What had a seat?", []),
        ("the Gautama Buddha taught Buddha Ananda", "Who taught all Buddhas?", ["Gautama Buddha", "Buddha Ananda"]),
        ("taught by Buddha", "Who taught all Buddhas?", []),
        ("Later that year", "When did it close?", []),
    ],
)
def test_values_of_the_evidence(evidence: str, query: str, values: list[str]) -> None:
    assert sorted(evidence_values(evidence, query)) == sorted(values)


def test_the_title_is_no_answer() -> None:
    assert evidence_values("Johann Galle saw it", "Who saw it?", "Johann Galle") == []


def test_phrases_are_the_content_words_that_the_query_lacks() -> None:
    evidence = "defined as light that is excessive or intrudes where it is not wanted"
    query = "What is known as artificial light that is excessive?"
    assert evidence_phrases(evidence, query) == ["defined", "intrudes", "wanted"]
    assert evidence_phrases("song choice and performance", "What was taught?") == ["song choice", "performance"]


def test_phrases_end_after_six_words_and_begin_at_four_letters() -> None:
    assert evidence_phrases("north south east west left right upper", "") == [
        "north south east west left right",
        "upper",
    ]
    assert evidence_phrases("red", "") == []


def test_phrases_take_the_function_words_of_another_language() -> None:
    assert evidence_phrases("die Brücke über den Humber", "", "", {"die", "uber", "den"}) == ["brucke", "humber"]


def test_answer_spans_come_from_information_needs_and_attributes() -> None:
    spans = answer_spans(
        analysis(
            requirement("opened by Queen Elizabeth", Facet.ENTITY),
            requirement("opened on 24 June 1981", Facet.INFORMATION_NEED),
            requirement("a span of 1,410 metres", Facet.ATTRIBUTE),
        ),
        QUERY,
        TITLE,
    )
    assert spans == ["24 June 1981", "1,410 metres", "1,410", "opened", "span"]


def test_an_answer_span_that_is_a_value_and_a_phrase_comes_once() -> None:
    assert answer_spans(analysis(requirement("with Air France")), "With whom?") == ["Air France"]


@pytest.mark.parametrize(
    ("text", "span", "is_left"),
    [
        ("It opened on June 24, 1981.", "24 June 1981", True),
        ("It opened on June 25, 1981.", "24 June 1981", False),
        ("the CAFÉ Zurich", "Café Zürich", True),
        ("Paris and Texas", "Texas and Paris", False),  # only numbers may change places
        ("a span of 1410 metres", "1,410 metres", True),
        ("a span of 11,410 metres", "1,410", False),
        ("80 km to the west", "80%", False),
        ("80 percent of it", "80%", True),
        ("in Parisian style", "Paris", False),
        ("位于东京的塔", "东京", True),
        ("anything", "", False),
    ],
)
def test_spans_left(text: str, span: str, is_left: bool) -> None:
    assert spans_left(text, [span]) == ([span] if is_left else [])


def test_the_answer_is_left() -> None:
    score, reason = answer_left(
        "The toll bridge, finished on June 24, 1981, is long.", requirement(EVIDENCE), QUERY, TITLE
    )
    assert score == 1
    assert reason == "still has «24 June 1981»"


def test_the_answer_is_gone() -> None:
    assert answer_left("The bridge is painted every ten years.", requirement(EVIDENCE), QUERY, TITLE) == (0, "")


@pytest.mark.parametrize("facet", [Facet.ENTITY, Facet.CONSTRAINT, Facet.RELATION, Facet.REASONING, Facet.STYLE])
def test_the_value_may_stay_where_it_belongs_to_something_else(facet: Facet) -> None:
    text = "The Severn Bridge opened to traffic on 24 June 1981."
    assert answer_left(text, requirement(EVIDENCE, facet), QUERY, TITLE) == (0, "")


@given(st.text(alphabet="ab AB12,.é% ", max_size=60), st.text(alphabet="ab AB", max_size=20))
def test_every_span_stands_in_the_evidence_and_not_in_the_query(evidence: str, query: str) -> None:
    values = evidence_values(evidence, query)
    assert spans_left(evidence, values) == values
    assert spans_left(query, values) == []
    phrases = evidence_phrases(evidence, query)
    assert spans_left(evidence, phrases) == phrases


@given(st.text(max_size=80), st.lists(st.text(max_size=10), max_size=5))
def test_left_spans_are_among_those_looked_for(text: str, spans: list[str]) -> None:
    left = spans_left(text, spans)
    assert [s for s in spans if s in left] == left
    assert answer_left(text, requirement(text), "")[0] == len(evidence_values(text, ""))
