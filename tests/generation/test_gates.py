"""Gates and selection: each gate lets through what it should and stops what it should, by known answers."""

from typing import Any, Literal

import pytest

from causalneg.config import GateSettings
from causalneg.generation.rows import Pair
from causalneg.generation.select import GATES, first_failed, select
from causalneg.generation.verify import encoder_scores, text_scores, token_overlap
from causalneg.records import Change, Edit, Lineage, Negative, Passage, Query, ViolationType

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
    other_positives=[Passage(id="other", title="Forth Bridge", text="The Prince of Wales came to Scotland in 1890.")],
    references=[],
    mined_scores=[0.1, 0.2, 0.3, 0.6],
)
LINEAGE = Lineage(model="m", model_fingerprint="f", prompt_version="v", seed=0, temperature=0.0)
GOOD: dict[str, float] = {
    "length_ratio": 1.0,
    "form_defects": 0,
    "outside_changes": 0,
    "overlap": 0.9,
    "answer_replaced": 0,
    "answer_left": 0,
    "edits_answer": 1,
    "details_left": 0,
    "likelihood_margin": 0.5,
    "relative_score": 0.9,
    "hardness": 1.0,
}


def edit_of(operation: Literal["replace", "drop"], removed: str, inserted: str = "") -> Edit:
    return Edit(operation=operation, changes=[Change(removed=removed, inserted=inserted)])


def negative(text: str, edit: Edit, title: str = "Forth Bridge", **changes: Any) -> Negative:
    fields: dict[str, Any] = {
        "id": text[:40],
        "query_id": "q",
        "positive_id": "forth",
        "analysis_id": "a",
        "title": title,
        "text": text,
        "requirement_id": 1,
        "requirement": "r",
        "violation": ViolationType.INTENT_DRIFT,
        "mode": "edit",
        "origin": "edited_positive",
        "explanation": "e",
        "edit": edit,
        "lineage": LINEAGE,
    }
    return Negative(**(fields | changes))


def dropped(sentence: str) -> Negative:
    text = " ".join(POSITIVE.text.replace(sentence, "").split())
    return negative(text, edit_of("drop", sentence))


def replaced(old: str, new: str, text: str = POSITIVE.text, title: str = "Forth Bridge") -> Negative:
    edit = edit_of("replace", old, new)
    return negative(text.replace(old, new), edit, title.replace(old, new))


def test_a_clean_replacement_has_no_defects() -> None:
    scores = text_scores(replaced("Forth Bridge", "Tay Bridge"), PAIR)
    assert (
        scores["form_defects"] == scores["outside_changes"] == scores["answer_left"] == scores["answer_replaced"] == 0
    )
    assert scores["length_ratio"] == pytest.approx(1)
    assert 0 < scores["overlap"] < 1


def asking(question: str, text: str = POSITIVE.text) -> Pair:
    positive = POSITIVE.model_copy(update={"text": text})
    return PAIR.model_copy(update={"positive": positive, "query": Query(id="q", text=question)})


def test_dropping_the_only_quantity_takes_the_answer_away() -> None:
    scores = text_scores(dropped("Its span is 521 m."), asking("How long is the span of the Forth Bridge?"))
    assert scores["answer_left"] == scores["outside_changes"] == 0
    assert scores["edits_answer"] == 1


def test_an_answer_that_may_stand_elsewhere_is_found() -> None:
    opened = "The Prince of Wales opened the bridge on 4 March 1890."
    assert text_scores(dropped(opened), asking("When was the Forth Bridge opened?"))["answer_left"] == 1  # 1882
    assert text_scores(dropped(opened), asking("Who opened the Forth Bridge?"))["answer_left"] > 0  # Scotland


def test_dropping_a_sentence_that_holds_no_answer_is_found() -> None:
    scores = text_scores(dropped("Work began in 1882."), asking("How long is the span of the Forth Bridge?"))
    assert scores["edits_answer"] == 0


def test_a_claim_loses_its_support_with_the_evidence() -> None:
    scores = text_scores(dropped("Its span is 521 m."), asking("The Forth Bridge spans more than half a kilometre."))
    assert scores["edits_answer"] == 1
    assert scores["answer_left"] == 0


def test_replacing_a_detail_away_from_the_answer_is_found() -> None:
    change = replaced("1882", "1871")
    assert text_scores(change, asking("How long is the bridge in Scotland begun in 1882?"))["edits_answer"] == 0
    assert text_scores(change, asking("How long is the bridge begun in 1882?"))["edits_answer"] == 1  # the only detail
    opened = replaced("4 March 1890", "2 May 1871")
    assert text_scores(opened, asking("Who opened it in Scotland on 4 March 1890?"))["edits_answer"] == 1


def test_telling_details_that_are_left_are_counted() -> None:
    pair = asking("Who opened the bridge in Scotland on 4 March 1890, begun in 1882?")
    assert text_scores(replaced("4 March 1890", "2 May 1871"), pair)["details_left"] == pytest.approx(1 / 2)
    assert (
        text_scores(replaced("Forth Bridge", "Tay Bridge"), asking("Who opened the Forth Bridge?"))["details_left"] == 0
    )


def test_a_trace_of_the_replaced_span_is_found() -> None:
    text = POSITIVE.text + " Many Forthers worked there."
    assert text_scores(replaced("Forth Bridge", "Tay Bridge", text), PAIR)["answer_left"] == 1


def test_the_month_of_another_date_is_no_trace() -> None:
    text = POSITIVE.text + " A storm came in March 1901."
    change = replaced("4 March 1890", "2 May 1871", text)
    assert text_scores(change, asking("Who opened it on 4 March 1890?", text))["answer_left"] == 0


def test_a_second_change_is_found() -> None:
    changed = replaced("Forth Bridge", "Tay Bridge")
    sneaky = changed.model_copy(update={"text": changed.text.replace("1882", "1871")})
    assert text_scores(sneaky, PAIR)["outside_changes"] == 2  # one word gone, one come


def test_replacing_the_answer_is_found() -> None:
    assert text_scores(replaced("Prince of Wales", "Duke of York"), PAIR)["answer_replaced"] == 1


def test_a_copy_of_any_known_positive_overlaps_wholly() -> None:
    edit = edit_of("replace", "x", "y")
    assert text_scores(negative(POSITIVE.text.upper(), edit), PAIR)["overlap"] == 1
    assert text_scores(negative(PAIR.other_positives[0].text, edit), PAIR)["overlap"] == 1


def test_a_dangling_pronoun_and_meta_text_are_defects() -> None:
    edit = edit_of("drop", "Work began in 1882.")
    text = "The Forth Bridge is a railway bridge. Work began in 1882. It took years."
    pair = PAIR.model_copy(update={"positive": POSITIVE.model_copy(update={"text": text})})
    assert (
        text_scores(negative("The Forth Bridge is a railway bridge. It took years.", edit), pair)["form_defects"] == 1
    )
    meta = negative("This passage does not answer it.", edit_of("replace", "a", "b"))
    assert text_scores(meta, PAIR)["form_defects"] == 2


def test_overlap_by_hand() -> None:
    assert token_overlap("a b c", "b c d") == pytest.approx(2 / 4)
    assert token_overlap("a a", "a") == pytest.approx(1 / 2)


def test_encoder_scores_by_hand() -> None:
    scores = encoder_scores(0.45, 0.5, PAIR.mined_scores)
    assert scores["relative_score"] == pytest.approx(0.9)
    assert scores["hardness"] == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("gate", "change"),
    [
        ("length", {"length_ratio": 0.1}),
        ("form", {"form_defects": 1}),
        ("intended_change", {"outside_changes": 1}),
        ("near_copy", {"overlap": 1.0}),
        ("answer_replaced", {"answer_replaced": 1}),
        ("edits_answer", {"edits_answer": 0}),
        ("details_left", {"details_left": 0.5}),
        ("answer_left", {"answer_left": 1}),
        ("likelihood", {"likelihood_margin": 0.0}),
        ("positive_aware", {"relative_score": 1.03}),
    ],
)
def test_each_gate_stops_what_it_is_for(gate: str, change: dict[str, float]) -> None:
    assert first_failed(GOOD, GateSettings()) is None
    assert first_failed(GOOD | change, GateSettings()) == gate


def test_the_hardness_gate_is_off_until_it_is_set() -> None:
    easy = GOOD | {"hardness": 0.2}
    assert first_failed(easy, GateSettings()) is None
    assert first_failed(easy, GateSettings(min_hardness=0.5)) == "hardness"
    assert len({name for name, _ in GATES}) == len(GATES)


def test_selection_takes_different_requirements_first() -> None:
    edit = edit_of("replace", "a", "b")
    rows = [negative(f"t{i}.", edit, requirement_id=r, scores=GOOD) for i, r in enumerate([1, 1, 1, 2, 3])]
    verdicts = [n.verdict for n in select(rows, GateSettings(), limit=3)]
    assert verdicts == ["accepted", "rejected", "rejected", "accepted", "accepted"]


def test_every_rejected_negative_says_why() -> None:
    edit = edit_of("replace", "a", "b")
    rows = [negative("a.", edit, scores=GOOD | {"overlap": 1.0}), negative("b.", edit, scores=GOOD)]
    assert [(n.verdict, n.rejected_by) for n in select(rows, GateSettings(), 3)] == [
        ("rejected", "near_copy"),
        ("accepted", None),
    ]
    assert [n.rejected_by for n in select(rows[1:] * 2, GateSettings(), 1)] == [None, "negatives_per_query"]
