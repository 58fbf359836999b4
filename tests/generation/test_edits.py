"""Decompose and perturb: what is edited, and that nothing else is."""

import pytest

from causalneg.generation.decompose import constraints, groups, requirements, shared_details, subject
from causalneg.generation.perturb import alternatives, drop_evidence, replace_constraints
from causalneg.generation.text import find
from causalneg.records import Passage, ViolationType

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


@pytest.mark.parametrize("text", ["A span of 9 km was built.", "The bridge of 20,000 m was built."])
def test_a_quantity_of_another_unit_or_order_is_no_alternative(text: str) -> None:
    positive = Passage(id="p", text="The bridge is 1,298 m long and was built by Ammann.")
    (constraint,) = constraints("Which bridge is 1,298 m long?", positive)
    assert alternatives(constraint, "Which bridge is 1,298 m long?", positive, [Passage(id="r", text=text)], 4) == []


def test_dropping_takes_one_sentence_and_leaves_the_others() -> None:
    evidence = "The Duke of Orléans was taken prisoner at Agincourt."
    edited = drop_evidence(AGINCOURT, evidence)
    assert edited is not None
    assert edited.text + " " + evidence == AGINCOURT.text


def test_a_single_sentence_is_not_dropped() -> None:
    assert drop_evidence(Passage(id="p", text="Only one."), "Only one.") is None


def test_requirements_carry_verbatim_evidence_and_a_violation() -> None:
    rows = requirements(
        BY_DATE, AGINCOURT, "Henry had taken Harfleur in September 1415.", [constraints(BY_DATE, AGINCOURT)]
    )
    assert [r.id for r in rows] == [1, 2]
    assert all(r.evidence in AGINCOURT.text and r.critical and r.violations for r in rows)
    assert rows[1].violations[0].type is ViolationType.TEMPORAL_VIOLATION


def test_a_subject_is_its_title_without_disambiguation() -> None:
    assert subject("Python (programming language)") == "Python"
