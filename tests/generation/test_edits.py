"""The edit mode: what is found to be the evidence, what is edited, and that nothing else is."""

import numpy as np
import pytest

from causalneg.generation.edit.evidence import closed, evidence_of, grafts, harmless, without_details, word_overlap
from causalneg.generation.edit.operations import alternatives, drop, graft, replace_constraints
from causalneg.generation.edit.requirements import constraints, groups, requirements, shared_details, subject
from causalneg.generation.text import find, sentences
from causalneg.records import Facet, Passage, ViolationType

AGINCOURT = Passage(
    id="agincourt",
    title="Battle of Agincourt",
    text="The Battle of Agincourt was won by Henry V on 25 October 1415. Henry had taken Harfleur in September 1415. "
    "The Duke of Orléans was taken prisoner at Agincourt.",
)
CRECY = Passage(
    id="crecy",
    title="Battle of Crécy",
    text="The Battle of Crécy was won by Edward III on 26 August 1346. The king of Bohemia fell.",
)
BY_DATE = "Who was taken prisoner in the battle of 25 October 1415?"
BY_NAME = "Who was taken prisoner in the Battle of Agincourt?"


def test_a_described_subject_is_constrained_by_its_details() -> None:
    assert [c.span.text for c in constraints(BY_DATE, AGINCOURT)] == ["25 October 1415"]


def test_a_named_subject_is_the_one_constraint() -> None:
    found = constraints(BY_NAME + " on 25 October 1415", AGINCOURT)
    assert [(c.span.text, c.is_subject) for c in found] == [("Battle of Agincourt", True)]


def test_a_year_in_the_query_stands_for_the_date_in_the_passage() -> None:
    assert constraints("Who was taken prisoner in 1415?", AGINCOURT)[0].span.text == "25 October 1415"


def test_a_date_is_replaced_together_with_its_year() -> None:
    (constraint,) = constraints(BY_DATE, AGINCOURT)
    (option,) = alternatives(constraint, BY_DATE, AGINCOURT, [CRECY], 4)
    edited = replace_constraints(AGINCOURT, [(constraint, option)])
    assert option.text == "26 August 1346"
    assert "1415" not in edited.text
    assert "Harfleur in September 1346" in edited.text
    assert edited.title == AGINCOURT.title


def test_a_subject_is_replaced_in_text_and_title() -> None:
    (constraint,) = constraints(BY_NAME, AGINCOURT)
    (option,) = alternatives(constraint, BY_NAME, AGINCOURT, [CRECY], 4)
    edited = replace_constraints(AGINCOURT, [(constraint, option)])
    assert edited.title == "Battle of Crécy"
    assert not find("Agincourt", edited.text)
    assert "taken prisoner at Crécy" in edited.text


def test_details_are_broken_together_first_and_alone_where_there_are_two() -> None:
    query = "Who was taken prisoner in the battle of 25 October 1415 won by Henry V?"
    assert shared_details(query, AGINCOURT.text) == ["25 October 1415", "Henry V"]
    found = constraints(query, AGINCOURT)
    assert [c.span.text for c in groups(query, AGINCOURT, found)[0]] == ["25 October 1415", "Henry V"]
    two = Passage(id="t", text="The canal of 98 km was opened by Wilhelm on 20 June 1895.")
    asked = "western locks of the 98 km canal of 20 June 1895"
    both = groups(asked, two, constraints(asked, two))
    assert [[c.span.text for c in group] for group in both] == [["20 June 1895", "98 km"], ["20 June 1895"], ["98 km"]]


def test_no_alternative_stands_in_query_or_positive() -> None:
    (constraint,) = constraints(BY_DATE, AGINCOURT)
    assert alternatives(constraint, BY_DATE + " 26 August 1346", AGINCOURT, [CRECY, AGINCOURT], 4) == []


@pytest.mark.parametrize(
    "text", ["A span of 9 km was built.", "The bridge of 20,000 m was built.", "It is 1,300 m long."]
)
def test_a_quantity_of_another_unit_or_order_or_nearly_the_same_is_no_alternative(text: str) -> None:
    positive = Passage(id="p", text="The bridge is 1,298 m long and was built by Ammann.")
    (constraint,) = constraints("Which bridge is 1,298 m long?", positive)
    assert alternatives(constraint, "Which bridge is 1,298 m long?", positive, [Passage(id="r", text=text)], 4) == []


def test_dropping_takes_the_sentences_and_leaves_the_others() -> None:
    parts = sentences(AGINCOURT.text)
    edited = drop(AGINCOURT, [2])
    assert edited is not None
    assert edited.text == " ".join(parts[:2])
    assert [c.removed for c in edited.edit.changes] == [parts[2]]


def test_all_sentences_are_never_dropped() -> None:
    assert drop(Passage(id="p", text="Only one."), [0]) is None


def test_a_graft_stands_where_the_evidence_stood() -> None:
    parts = sentences(AGINCOURT.text)
    edited = graft(AGINCOURT, [1, 2], ["The road to Calais was long."])
    assert edited.text == f"{parts[0]} The road to Calais was long."
    assert [(c.removed, c.inserted) for c in edited.edit.changes] == [
        (parts[1], "The road to Calais was long."),
        (parts[2], ""),
    ]


def test_the_evidence_is_what_llm_and_encoder_agree_on_or_both_choices() -> None:
    assert evidence_of([-3.0, -1.0, -2.0], [0.1, 0.8, 0.2], [0.0, 1.0, 0.0]) == [1]
    assert sorted(evidence_of([-3.0, -1.0, -2.0], [0.1, 0.5, 0.8], [0.0, 1.0, 0.0])) == [1, 2]
    assert sorted(evidence_of([-3.0, -1.0, -2.0], [0.1, 0.8, 0.2], [2.0, 1.0, 0.0])) == [0, 1]
    assert evidence_of([-3.0, -1.0, -2.0], [0.1, 0.8, 0.2], [0.0, 0.0, 0.0]) == [1]  # no word tells anything
    assert evidence_of([], [0.1, 0.8, 0.2], [0.0, 0.0, 3.0]) == [2, 1]
    assert evidence_of([-1.0], [0.5], [0.0]) == [0]


def test_words_that_few_sentences_have_tell_the_most() -> None:
    parts = [
        "A torch was carried through the city.",
        "A banner hung above the city.",
        "The banners burned in the city.",
    ]
    overlaps = word_overlap("What stood on the banners and the torches in the city?", parts)
    assert overlaps[0] > overlaps[1] == overlaps[2] > 0
    assert word_overlap("Why?", parts) == [0, 0, 0]


LOWE = (
    "The biography by Victor Lowe is the standard one. He had known the family. Some letters are lost. "
    "Lowe himself doubted that it could be written."
)


def test_without_its_details_a_query_is_what_it_asks_for() -> None:
    query = "Who conducted the premiere at the Teatro Regio in Turin?"
    assert without_details(query, ["Teatro Regio", "Turin"]) == "Who conducted the premiere at the in ?"
    assert without_details(query, []) == query


def test_sentences_that_repeat_the_answer_or_point_back_go_with_the_evidence() -> None:
    parts = sentences(LOWE)
    assert closed(parts, [0], "Who wrote the biography of Whitehead?", "Alfred North Whitehead") == [0, 1, 3]


def test_a_sentence_that_names_what_is_asked_about_goes_with_the_evidence() -> None:
    parts = ["From Germany came Waldemar Gurian.", "Painters came, too.", "Gurian wrote under Max Scheler."]
    assert closed(parts, [0], "Under whom did Gurian write?", "Notre Dame") == [0, 2]
    assert closed(parts, [0], "Under whom did Gurian write?", "Gurian") == [0]  # then every sentence is about him


def test_grafts_are_whole_sentences_about_the_same_thing() -> None:
    references = [
        Passage(id="a", title="Battle of Agincourt", text="The French blocked the road to Calais. He fled at night."),
        Passage(id="b", title="Henry V", text="At the Battle of Agincourt the archers stood behind stakes."),
        Passage(id="c", title="Battle of Crécy", text="The king of Bohemia fell in this battle at dusk."),
        Passage(id="d", title="Battle of Agincourt", text="Too short."),
    ]
    assert [g.text for g in grafts(AGINCOURT, references)] == [
        "The French blocked the road to Calais.",
        "At the Battle of Agincourt the archers stood behind stakes.",
    ]


def test_a_sentence_of_the_positive_is_no_graft() -> None:
    again = Passage(id="a", title="Battle of Agincourt", text=AGINCOURT.text)
    assert grafts(AGINCOURT, [again]) == []


def test_only_sentences_clearly_farther_than_the_evidence_are_harmless() -> None:
    query = np.array([1.0, 0.0])
    options = np.array([[0.85, 0.5], [0.5, 0.8], [0.7, 0.7]])
    assert harmless(query, np.array([[0.9, 0.4]]), options, margin=0.1, limit=5) == [2, 1]
    assert harmless(query, np.array([[0.9, 0.4]]), options, margin=0.1, limit=1) == [2]
    assert harmless(query, np.array([[0.9, 0.4]]), np.empty((0, 2)), margin=0.1, limit=1) == []


def test_requirements_are_four_to_eight_with_verbatim_evidence() -> None:
    for query, passage in ((BY_DATE, AGINCOURT), ("Why?", Passage(id="p", text="Nobody knows it."))):
        parts = sentences(passage.text)
        rows = requirements(query, passage, parts[-1], [[c] for c in constraints(query, passage)])
        assert 4 <= len(rows) <= 8
        assert [r.id for r in rows] == list(range(1, len(rows) + 1))
        assert all(r.evidence and r.evidence in passage.full_text for r in rows)
        assert all(bool(r.violations) == r.critical for r in rows)
        assert all(len(r.violations) >= 2 for r in rows if r.critical)
        assert rows[0].facet is Facet.INFORMATION_NEED


def test_the_kind_of_span_tells_the_violation() -> None:
    rows = requirements(BY_DATE, AGINCOURT, AGINCOURT.text, [constraints(BY_DATE, AGINCOURT)])
    assert rows[1].violations[0].type is ViolationType.TEMPORAL_VIOLATION
    placed = Passage(id="p", text="The treaty was signed at Troyes after a siege.")
    rows = requirements("What was signed at Troyes?", placed, placed.text, [constraints("Signed at Troyes?", placed)])
    assert rows[1].violations[0].type is ViolationType.SPATIAL_VIOLATION


def test_a_subject_is_its_title_without_disambiguation() -> None:
    assert subject("Python (programming language)") == "Python"
