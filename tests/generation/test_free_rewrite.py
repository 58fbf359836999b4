"""Rewrites: what is planned, what the LLM is asked, what it may answer, and that nothing else passes."""

import json
from typing import Any

import pytest
from free_samples import (
    CANDIDATES,
    LINEAGE,
    PAIR,
    PROFILE,
    analysis,
    analysis_answer,
    requirement,
    rewrite_answer,
    violation,
)
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.free import AnswerError
from causalneg.generation.free.analysis import parse_analysis
from causalneg.generation.free.rewrite import parse_rewrite, plan_rewrites, rewrite_chat, rewrite_schema
from causalneg.generation.rows import Pair
from causalneg.records import Analysis, Negative, Passage, ViolationType

ANALYSIS = analysis()
TARGET = ANALYSIS.requirements[1]
WAY = TARGET.violations[1]


def parsed(answer: dict[str, Any] | str, pair: Pair = PAIR, references: list[Passage] | None = None) -> Negative:
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return parse_rewrite(text, pair, ANALYSIS, TARGET, WAY, LINEAGE, CANDIDATES if references is None else references)


def refused(
    answer: dict[str, Any] | str,
    match: str,
    kind: str = "invalid_rewrite",
    pair: Pair = PAIR,
    references: list[Passage] | None = None,
) -> None:
    with pytest.raises(AnswerError, match=match) as caught:
        parsed(answer, pair, references)
    assert caught.value.kind == kind


def test_a_sound_answer_becomes_a_negative() -> None:
    row = parsed(rewrite_answer())
    assert (row.query_id, row.positive_id, row.analysis_id) == ("q", "agincourt", ANALYSIS.id)
    assert (row.title, row.text) == ("Battle of Crécy", 'The battle of 26 August 1346 is called "the battle of bows".')
    assert (row.requirement_id, row.requirement) == (2, "The passage is about Agincourt.")
    assert (row.violation, row.mode, row.origin) == (ViolationType.ENTITY_SHIFT, "rewrite", "rewritten_candidate")
    assert row.explanation == "It tells of another battle."
    assert row.lineage == LINEAGE
    assert row.edit is None
    assert row.verdict == "rejected", "until a gate says otherwise"


def test_the_id_follows_from_what_determines_the_row() -> None:
    first = parsed(rewrite_answer())
    assert parsed(rewrite_answer(explanation="It is about Crécy.")).id == first.id
    assert parsed(rewrite_answer(text="Rain fell at Crécy.")).id != first.id
    assert parsed(rewrite_answer(title="Crécy")).id != first.id
    other = parse_rewrite(
        json.dumps(rewrite_answer()), PAIR, ANALYSIS, TARGET, TARGET.violations[0], LINEAGE, CANDIDATES
    )
    assert other.id != first.id


def test_white_space_around_title_and_text_is_left_out() -> None:
    row = parsed(rewrite_answer(title=" Battle of Crécy\n", text="\n Rain fell at Crécy. "))
    assert (row.title, row.text) == ("Battle of Crécy", "Rain fell at Crécy.")


def test_a_cut_answer_is_refused() -> None:
    whole = json.dumps(rewrite_answer())
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        refused(whole[:cut], "no whole JSON", "invalid_json")
    refused(f"```json\n{whole}\n```", "no whole JSON", "invalid_json")
    refused(whole.replace("another", "\\ud800"), "no whole JSON", "invalid_json")
    refused(whole.replace("another", "\ud800"), "no whole JSON", "invalid_json")


@pytest.mark.parametrize("member", ["origin", "candidate", "title", "text", "explanation"])
def test_a_missing_member_is_refused(member: str) -> None:
    answer = rewrite_answer()
    del answer[member]
    refused(answer, f"{member}: Field required")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"note": "x"}, "note: Extra inputs"),
        ({"origin": "edited_positive"}, "origin"),
        ({"candidate": "1"}, "candidate"),
        ({"candidate": 1.5}, "candidate"),
        ({"candidate": -1}, "candidate"),
        ({"candidate": True}, "candidate"),
        ({"candidate": 3}, "there are 2 candidates and no candidate 3"),
        ({"candidate": 0}, "0 does not go with origin rewritten_candidate"),
        ({"origin": "from_scratch"}, "1 does not go with origin from_scratch"),
        ({"title": None}, "title"),
        ({"title": " "}, "title: is missing"),
        ({"text": ["a"]}, "text"),
        ({"text": " \n"}, "text: Value error, is empty"),
        ({"text": "Rain\x00 fell."}, "control or hidden characters"),
        ({"text": "Rain\u200b fell."}, "control or hidden characters"),
        ({"explanation": ""}, "explanation: Value error, is empty"),
        ({"explanation": "It is no longer about "}, "explanation: Value error, is broken off"),
    ],
)
def test_an_answer_of_another_form_is_refused(changes: dict[str, Any], match: str) -> None:
    refused(rewrite_answer(**changes), match)


def test_a_title_that_the_positive_lacks_is_refused() -> None:
    pair = PAIR.model_copy(update={"positive": PAIR.positive.model_copy(update={"title": ""})})
    refused(rewrite_answer(), "title: the positive has none", pair=pair)
    assert parsed(rewrite_answer(title=""), pair=pair).title == ""


@pytest.mark.parametrize("known", [PAIR.positive, *PAIR.other_positives, *CANDIDATES])
def test_a_known_passage_handed_back_is_refused(known: Passage) -> None:
    refused(rewrite_answer(text=known.text.upper().replace(" ", "  ")), "unchanged")


def test_without_candidates_there_is_none_to_name() -> None:
    refused(rewrite_answer(), "there are 0 candidates", references=[])
    assert parsed(rewrite_answer(origin="from_scratch", candidate=0), references=[]).origin == "from_scratch"


def test_the_candidates_are_those_of_the_pair_when_not_given() -> None:
    text = json.dumps(rewrite_answer(candidate=2))
    assert parse_rewrite(text, PAIR, ANALYSIS, TARGET, WAY, LINEAGE).origin == "rewritten_candidate"


def test_the_chats_of_a_pair_differ_in_their_last_lines_only() -> None:
    chats = [rewrite_chat(PAIR, ANALYSIS, r, v, PROFILE, CANDIDATES) for r, v in plan_rewrites(ANALYSIS, 4, 0)]
    assert len({c[0]["content"] for c in chats}) == 1
    before = {c[1]["content"].split("<requirement>")[0] for c in chats}
    assert len(before) == 1
    shared = before.pop()
    order = [shared.index(part) for part in ("<positive>", "<query>", "<analysis>", "<candidate_1>", "<candidate_2>")]
    assert order == sorted(order)
    assert "Agincourt" not in chats[0][0]["content"]


def test_the_chat_says_what_to_break_and_what_to_keep() -> None:
    system, user = rewrite_chat(PAIR, ANALYSIS, TARGET, WAY, PROFILE, CANDIDATES)
    assert PROFILE.style in system["content"]
    end = user["content"].split("<requirement>")[1]
    assert "2. The passage is about Agincourt." in end
    assert "Type: entity_shift\nWhat to change: Tell of another battle." in end
    for r in ANALYSIS.requirements:
        assert r.content in user["content"]
    assert "(information_need, critical)" in user["content"]
    assert "<candidate_2>\nTitle: Battle of Poitiers\nText: John II" in user["content"]
    assert "{" not in user["content"], "every place is filled"


def test_the_chat_without_candidates_says_so() -> None:
    _, user = rewrite_chat(PAIR, ANALYSIS, TARGET, WAY, PROFILE, [])
    assert "There are no candidates." in user["content"]


@pytest.mark.parametrize("references", [0, 1, 5])
def test_the_schema_offers_the_candidates_shown(references: int) -> None:
    members = rewrite_schema(references)["properties"]
    assert members["candidate"]["enum"] == list(range(references + 1))
    assert ("rewritten_candidate" in members["origin"]["enum"]) == (references > 0)


def test_the_grammar_of_the_schema_lets_passages_hold_quotation_marks() -> None:
    xgrammar = pytest.importorskip("xgrammar", reason="xgrammar comes with vLLM")
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo([]))
    grammar = compiler.compile_json_schema(json.dumps(rewrite_schema(2)), any_whitespace=False)

    def accepted(answer: dict[str, Any]) -> bool:
        matcher = xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=True)
        return bool(matcher.accept_string(json.dumps(answer)) and matcher.is_completed())

    assert accepted(rewrite_answer())
    assert accepted(rewrite_answer(title='"Crécy"', text='A "bow" and a \\ and\na new line.'))
    assert not accepted(rewrite_answer(candidate=3))
    assert not accepted(rewrite_answer(origin="edited_positive"))


def wide_analysis(critical: int, ways: int = 3) -> Analysis:
    answer = analysis_answer()
    kinds = ["intent_drift", "intent_drift", "entity_shift"]
    answer["requirements"] = [
        requirement(f"It says thing {n}.", "Henry V", "information_need", n < critical) for n in range(5)
    ]
    for each in answer["requirements"][:critical]:
        each["violations"] = [violation(kind, f"Leave out {n}.") for n, kind in enumerate(kinds[:ways])]
    return parse_analysis(json.dumps(answer), PAIR, LINEAGE, allow_negation=False)


def test_every_critical_requirement_has_its_turn_first() -> None:
    planned = plan_rewrites(wide_analysis(critical=3), 9, seed=1)
    assert {r.id for r, _ in planned[:3]} == {1, 2, 3}
    assert [r.id for r, _ in planned[:3]] == [r.id for r, _ in planned[3:6]] == [r.id for r, _ in planned[6:]]


def test_a_second_way_is_of_another_type() -> None:
    for seed in range(10):
        planned = plan_rewrites(wide_analysis(critical=2), 4, seed)
        by_requirement = {r.id: {v.type for q, v in planned if q.id == r.id} for r, _ in planned}
        assert all(len(types) == 2 for types in by_requirement.values())


@given(st.integers(1, 5), st.integers(2, 3), st.integers(0, 20), st.integers(0, 5))
def test_a_plan_holds_ways_to_break_critical_requirements_each_once(
    critical: int, ways: int, count: int, seed: int
) -> None:
    source = wide_analysis(critical, ways)
    planned = plan_rewrites(source, count, seed)
    assert planned == plan_rewrites(source, count, seed)
    assert len(planned) == min(count, critical * ways)
    assert len({(r.id, v.direction) for r, v in planned}) == len(planned)
    assert all(r.critical and v in r.violations for r, v in planned)
    assert all(v.type is not ViolationType.NEGATION for _, v in planned), "the analysis has none"


def test_the_order_is_drawn_by_seed() -> None:
    plans = [plan_rewrites(wide_analysis(critical=4), 4, seed) for seed in range(8)]
    assert len({tuple(r.id for r, _ in plan) for plan in plans}) > 1
    assert len({tuple(v.direction for _, v in plan) for plan in plans}) > 1
