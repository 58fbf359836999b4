"""Gates of the edit mode: each lets through what it should and stops what it should, by known answers."""

from typing import Any

import pytest
from generation_samples import LINEAGE

from causalneg.generation.gates.edits import answer_left, answer_values, edit_scores
from causalneg.generation.gates.requirements import judge_edit
from causalneg.generation.rows import Pair
from causalneg.records import (
    Analysis,
    Change,
    Edit,
    Facet,
    Negative,
    Operation,
    Passage,
    Query,
    Requirement,
    ViolationType,
)

POSITIVE = Passage(
    id="forth",
    title="Forth Bridge",
    text="The Forth Bridge is a railway bridge in Scotland. Work began in 1882. "
    "The Prince of Wales opened the bridge on 4 March 1890. Its span is 521 m.",
)
PAIR = Pair(
    id="pair",
    query=Query(id="q", text="Who opened the Forth Bridge?"),
    positive=POSITIVE,
    other_positives=[],
    references=[],
    mined_scores=[],
)


def negative(text: str, operation: Operation, changes: list[Change], title: str = "Forth Bridge") -> Negative:
    return Negative(
        id=text[:40],
        query_id="q",
        positive_id="forth",
        analysis_id="a",
        title=title,
        text=text,
        requirement_id=1,
        requirement="r",
        violation=ViolationType.INTENT_DRIFT,
        mode="edit",
        origin="edited_positive",
        explanation="e",
        edit=Edit(operation=operation, changes=changes),
        lineage=LINEAGE,
    )


def dropped(sentence: str, positive: Passage = POSITIVE) -> Negative:
    text = " ".join(positive.text.replace(sentence, "").split())
    return negative(text, Operation.DROP, [Change(removed=sentence)])


def replaced(old: str, new: str, text: str = POSITIVE.text, title: str = "Forth Bridge") -> Negative:
    change = Change(removed=old, inserted=new)
    return negative(text.replace(old, new), Operation.REPLACE, [change], title.replace(old, new))


def asking(question: str, text: str = POSITIVE.text) -> Pair:
    positive = POSITIVE.model_copy(update={"text": text})
    return PAIR.model_copy(update={"positive": positive, "query": Query(id="q", text=question)})


def test_a_clean_replacement_has_no_defects() -> None:
    assert edit_scores(replaced("Forth Bridge", "Tay Bridge"), PAIR) == {
        "outside_changes": 0,
        "dangling": 0,
        "edits_answer": 1,
        "details_left": 0,
        "answer_replaced": 0,
        "traces_left": 0,
        "candidates_left": 0,
    }


def test_what_is_not_edited_has_no_scores_of_edits() -> None:
    assert edit_scores(replaced("a", "b").model_copy(update={"edit": None}), PAIR) == {}


def test_values_are_of_the_kind_that_is_asked_for() -> None:
    text = "The Prince of Wales opened the bridge on 4 March 1890 before 5,000 people."
    assert answer_values(text, "When was it opened?", "Forth Bridge") == ["4 March 1890", "1890"]
    assert answer_values(text, "How many people came?", "Forth Bridge") == ["5,000 people", "people"][:1]
    assert answer_values(text, "Who opened it?", "Forth Bridge") == ["Prince of Wales", "Wales"]
    assert answer_values(text, "What did the Prince of Wales open?", "Forth Bridge") == []
    assert answer_values(text, "The bridge was opened in 1890.", "") == []  # a claim asks for nothing


def test_an_answer_that_stands_elsewhere_is_found() -> None:
    opened = "The Prince of Wales opened the bridge on 4 March 1890."
    assert answer_left(dropped(opened), PAIR) == []
    again = POSITIVE.model_copy(update={"text": POSITIVE.text + " Wales had come by train."})
    assert answer_left(dropped(opened, again), PAIR) == ["Wales"]


def test_a_replacement_leaves_no_answer_by_its_kind() -> None:
    assert answer_left(replaced("Forth Bridge", "Tay Bridge"), PAIR) == []


def test_replacing_a_detail_away_from_the_answer_is_found() -> None:
    change = replaced("1882", "1871")
    assert edit_scores(change, asking("How long is the bridge in Scotland begun in 1882?"))["edits_answer"] == 0
    assert edit_scores(change, asking("How long is the bridge begun in 1882?"))["edits_answer"] == 1  # the only detail
    opened = replaced("4 March 1890", "2 May 1871")
    assert edit_scores(opened, asking("Who opened it in Scotland on 4 March 1890?"))["edits_answer"] == 1


def test_telling_details_that_are_left_are_counted() -> None:
    pair = asking("Who opened the bridge in Scotland on 4 March 1890, begun in 1882?")
    assert edit_scores(replaced("4 March 1890", "2 May 1871"), pair)["details_left"] == pytest.approx(1 / 2)


def test_a_trace_of_the_replaced_span_is_found() -> None:
    text = POSITIVE.text + " Many Forthers worked there."
    assert edit_scores(replaced("Forth Bridge", "Tay Bridge", text), PAIR)["traces_left"] == 1


def test_the_month_of_another_date_is_no_trace() -> None:
    text = POSITIVE.text + " A storm came in March 1901."
    change = replaced("4 March 1890", "2 May 1871", text)
    assert edit_scores(change, asking("Who opened it on 4 March 1890?", text))["traces_left"] == 0


def test_a_second_change_is_found() -> None:
    changed = replaced("Forth Bridge", "Tay Bridge")
    sneaky = changed.model_copy(update={"text": changed.text.replace("1882", "1871")})
    assert edit_scores(sneaky, PAIR)["outside_changes"] == 2  # one word gone, one come


def test_replacing_the_answer_is_found() -> None:
    assert edit_scores(replaced("Prince of Wales", "Duke of York"), PAIR)["answer_replaced"] == 1


def test_where_figures_describe_the_subject_any_span_of_the_kind_may_be_the_answer() -> None:
    began = dropped("Work began in 1882.")
    assert edit_scores(began, asking("Who opened the bridge begun in 1882?"))["candidates_left"] > 0
    assert edit_scores(began, asking("Who opened the Forth Bridge begun in 1882?"))["candidates_left"] == 0  # named
    assert edit_scores(began, asking("Who opened the bridge in Scotland?"))["candidates_left"] == 0  # no figures
    assert (
        edit_scores(dropped("Its span is 521 m."), asking("How long is the span begun in 1882?"))["candidates_left"]
        == 0
    )


def test_a_sentence_that_points_to_a_removed_one_is_found() -> None:
    text = "The Forth Bridge is a railway bridge. Work began in 1882. It took years."
    positive = POSITIVE.model_copy(update={"text": text})
    pair = PAIR.model_copy(update={"positive": positive})
    assert edit_scores(dropped("Work began in 1882.", positive), pair)["dangling"] == 1
    assert edit_scores(dropped("It took years.", positive), pair)["dangling"] == 0


def requirement(number: int, evidence: str, **fields: Any) -> Requirement:
    return Requirement(id=number, facet=Facet.OTHER, content="c", evidence=evidence, critical=True, **fields)


def judged(change: Negative, *requirements: Requirement) -> dict[int, float]:
    analysis = Analysis(
        id="a",
        query_id="q",
        positive_id="forth",
        core_need="",
        how_positive_answers="",
        answer_boundary="",
        requirements=list(requirements),
        lineage=LINEAGE,
    )
    return {j.requirement_id: j.score for j in judge_edit(change, analysis, PAIR)}


def test_exactly_the_edited_requirement_is_broken() -> None:
    opened = "The Prince of Wales opened the bridge on 4 March 1890."
    scores = judged(dropped(opened), requirement(1, opened), requirement(2, "Work began in 1882."))
    assert scores == {1: -1, 2: 1}


def test_what_the_removed_sentence_alone_met_is_not_judged() -> None:
    opened = "The Prince of Wales opened the bridge on 4 March 1890."
    assert judged(dropped(opened), requirement(1, opened), requirement(2, "4 March 1890")) == {1: -1}


def test_a_replacement_carries_over_into_the_other_evidence() -> None:
    change = replaced("Forth Bridge", "Tay Bridge")
    scores = judged(change, requirement(1, "Forth Bridge"), requirement(2, "The Forth Bridge is a railway bridge"))
    assert scores == {1: -1, 2: 1}


def test_an_edit_that_was_not_made_breaks_nothing() -> None:
    whole = dropped("Work began in 1882.").model_copy(update={"text": POSITIVE.text})
    assert judged(whole, requirement(1, "Work began in 1882.")) == {1: 1}


def test_evidence_that_was_lost_beside_the_edit_is_found() -> None:
    change = dropped("Work began in 1882.")
    less = change.model_copy(update={"text": change.text.replace(" Its span is 521 m.", "")})
    assert judged(less, requirement(1, "Work began in 1882."), requirement(2, "Its span is 521 m."))[2] == -1
