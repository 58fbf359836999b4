"""Rewrites: what is planned, what the LLM is asked, what it may answer, and that nothing else passes."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from free_samples import (
    CANDIDATES,
    LINEAGE,
    PAIR,
    PROFILE,
    analysis,
    analysis_answer,
    passage_answer,
    requirement,
    rewrite_answer,
    violation,
)
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.free import AnswerError
from causalneg.generation.free.analysis import parse_analysis
from causalneg.generation.free.rewrite import (
    Rewrites,
    Task,
    parse_rewrites,
    plan_rewrites,
    rewrite_chat,
    rewrite_schema,
)
from causalneg.generation.rows import Pair
from causalneg.records import Analysis, Negative, Passage, ViolationType

ANALYSIS = analysis()
TASKS = [Task(r, v) for r in reversed(ANALYSIS.requirements[:2]) for v in reversed(r.violations)]


def parsed(
    answer: dict[str, Any] | str,
    pair: Pair = PAIR,
    references: Sequence[Passage] = CANDIDATES,
    count: int = 2,
    source: Analysis = ANALYSIS,
) -> Rewrites:
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return parse_rewrites(text, pair, source, TASKS, count, LINEAGE, references)


def one(passage: dict[str, Any], pair: Pair = PAIR, references: Sequence[Passage] = CANDIDATES) -> Negative:
    return parsed(rewrite_answer(passage), pair, references).negatives[1]


def fault(passage: dict[str, Any], pair: Pair = PAIR, references: Sequence[Passage] = CANDIDATES) -> str:
    made = parsed(rewrite_answer(passage, passage_answer(2, text="It rained.")), pair, references)
    assert list(made.negatives) in ([2], []), "the other passage is taken"
    return made.faults[1]


def refused(answer: dict[str, Any] | str, match: str, kind: str = "invalid_rewrite") -> None:
    with pytest.raises(AnswerError, match=match) as caught:
        parsed(answer)
    assert caught.value.kind == kind


def test_a_sound_passage_becomes_a_negative() -> None:
    row = one(passage_answer())
    assert (row.query_id, row.positive_id, row.analysis_id) == ("q", "agincourt", ANALYSIS.id)
    assert (row.title, row.text) == ("Battle of Crécy", 'The battle of 26 August 1346 is called "the battle of bows".')
    assert (row.requirement_id, row.requirement) == (2, "The passage is about Agincourt.")
    assert (row.violation, row.mode, row.origin) == (ViolationType.ENTITY_SHIFT, "rewrite", "rewritten_candidate")
    assert row.explanation == "It tells of another battle."
    assert row.lineage == LINEAGE
    assert row.edit is None
    assert row.verdict == "rejected", "until a gate says otherwise"


def test_an_answer_holds_several_passages_and_says_which_tasks_are_not_feasible() -> None:
    made = parsed(rewrite_answer(passage_answer(1), passage_answer(4, text="It rained."), skipped=[2]))
    assert {n: (row.requirement_id, row.violation) for n, row in made.negatives.items()} == {
        1: (2, ViolationType.ENTITY_SHIFT),
        4: (1, ViolationType.INTENT_DRIFT),
    }
    assert made.infeasible == {2: "It would still answer."}
    assert not made.faults


def test_the_id_follows_from_what_determines_the_row() -> None:
    first = one(passage_answer())
    assert one(passage_answer(explanation="It is about Crécy.")).id == first.id
    assert one(passage_answer(text="Rain fell at Crécy.")).id != first.id
    assert one(passage_answer(title="Crécy")).id != first.id
    assert parsed(rewrite_answer(passage_answer(2))).negatives[2].id != first.id


def test_white_space_around_title_and_text_is_left_out() -> None:
    row = one(passage_answer(title=" Battle of Crécy\n", text="\n Rain fell at Crécy. "))
    assert (row.title, row.text) == ("Battle of Crécy", "Rain fell at Crécy.")


def test_a_cut_answer_is_refused() -> None:
    whole = json.dumps(rewrite_answer())
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        refused(whole[:cut], "no whole JSON", "invalid_json")
    refused(f"```json\n{whole}\n```", "no whole JSON", "invalid_json")
    refused(whole.replace("another", "\\ud800"), "no whole JSON", "invalid_json")
    refused(whole.replace("another", "\ud800"), "no whole JSON", "invalid_json")


@pytest.mark.parametrize("member", ["task", "origin", "candidate", "title", "text", "explanation"])
def test_a_missing_member_is_refused(member: str) -> None:
    passage = passage_answer()
    del passage[member]
    refused(rewrite_answer(passage), f"passages.0.{member}: Field required")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"note": "x"}, "note: Extra inputs"),
        ({"task": "1"}, "task"),
        ({"task": 0}, "there are 4 tasks and no task 0"),
        ({"task": 5}, "there are 4 tasks and no task 5"),
        ({"task": 2}, "task 2 comes twice"),
        ({"origin": "edited_positive"}, "origin"),
        ({"candidate": "1"}, "candidate"),
        ({"candidate": 1.5}, "candidate"),
        ({"candidate": -1}, "candidate"),
        ({"candidate": True}, "candidate"),
        ({"title": None}, "title"),
        ({"text": ["a"]}, "text"),
        ({"text": " \n"}, "text: Value error, is empty"),
        ({"explanation": ""}, "explanation: Value error, is empty"),
        ({"explanation": "It is no longer about "}, "explanation: Value error, is broken off"),
    ],
)
def test_an_answer_of_another_form_is_refused(changes: dict[str, Any], match: str) -> None:
    refused(rewrite_answer(passage_answer(**changes), skipped=[2]), match)


def test_more_passages_than_were_asked_for_are_refused() -> None:
    passages = [passage_answer(n, text=f"It rained {n} days.") for n in (1, 2, 3)]
    refused(rewrite_answer(*passages), "there are 3 instead of 2")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"candidate": 3}, "there are 2 candidates and no candidate 3"),
        ({"candidate": 0}, "0 does not go with origin rewritten_candidate"),
        ({"origin": "from_scratch"}, "1 does not go with origin from_scratch"),
        ({"title": " "}, "title: is missing"),
        ({"text": "Rain\x00 fell."}, "control or hidden characters"),
        ({"text": "Rain\u200b fell."}, "control or hidden characters"),
    ],
)
def test_a_passage_that_cannot_be_taken_is_a_fault_of_its_task_alone(changes: dict[str, Any], match: str) -> None:
    assert match in fault(passage_answer(**changes))


def test_a_title_that_the_positive_lacks_is_a_fault() -> None:
    pair = PAIR.model_copy(update={"positive": PAIR.positive.model_copy(update={"title": ""})})
    assert "title: the positive has none" in fault(passage_answer(), pair)
    assert one(passage_answer(title=""), pair).title == ""


@pytest.mark.parametrize("known", [PAIR.positive, *PAIR.other_positives, *CANDIDATES])
def test_a_known_passage_handed_back_is_a_fault(known: Passage) -> None:
    assert "unchanged" in fault(passage_answer(text=known.text.upper().replace(" ", "  ")))


def test_the_same_passage_twice_is_a_fault() -> None:
    made = parsed(rewrite_answer(passage_answer(1), passage_answer(2)))
    assert list(made.negatives) == [1]
    assert "unchanged" in made.faults[2]


def test_without_candidates_there_is_none_to_name() -> None:
    assert "there are 0 candidates" in fault(passage_answer(), references=[])
    assert one(passage_answer(origin="from_scratch", candidate=0), references=[]).origin == "from_scratch"


def test_the_chats_of_a_pair_differ_in_their_last_lines_only() -> None:
    chats = [rewrite_chat(PAIR, ANALYSIS, [task], 1, PROFILE, CANDIDATES) for task in TASKS]
    assert len({c[0]["content"] for c in chats}) == 1
    before = {c[1]["content"].split("<tasks>")[0] for c in chats}
    assert len(before) == 1
    shared = before.pop()
    order = [shared.index(part) for part in ("<positive>", "<query>", "<analysis>", "<candidate_1>", "<candidate_2>")]
    assert order == sorted(order)
    assert "Agincourt" not in chats[0][0]["content"]


def test_the_chat_says_what_to_break_and_what_to_keep() -> None:
    system, user = rewrite_chat(PAIR, ANALYSIS, TASKS, 3, PROFILE, CANDIDATES)
    assert PROFILE.style in system["content"]
    end = user["content"].split("<tasks>")[1]
    assert "Task 1: break requirement 2 (entity) by entity_shift\n  What to change: Tell of another battle." in end
    assert "Task 4: break requirement 1 (information_need) by intent_drift" in end
    assert end.endswith("Write 3 passages.")
    for r in ANALYSIS.requirements:
        assert r.content in user["content"]
    assert "(information_need, critical)" in user["content"]
    assert "<candidate_2>\nTitle: Battle of Poitiers\nText: John II" in user["content"]
    assert "{" not in user["content"], "every place is filled"


def test_the_chat_without_candidates_says_so() -> None:
    _, user = rewrite_chat(PAIR, ANALYSIS, TASKS[:1], 1, PROFILE, [])
    assert "There are no candidates." in user["content"]
    assert user["content"].endswith("Write 1 passage.")


@pytest.mark.parametrize("references", [0, 1, 5])
def test_the_schema_offers_the_candidates_and_tasks_shown(references: int) -> None:
    schema = rewrite_schema(4, 3, references)["properties"]["passages"]
    members = schema["items"]["properties"]
    assert schema["maxItems"] == 3
    assert members["task"]["enum"] == [1, 2, 3, 4]
    assert members["candidate"]["enum"] == list(range(references + 1))
    assert ("rewritten_candidate" in members["origin"]["enum"]) == (references > 0)


def test_the_grammar_of_the_schema_lets_passages_hold_quotation_marks() -> None:
    xgrammar = pytest.importorskip("xgrammar", reason="xgrammar comes with vLLM")
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo([]))
    grammar = compiler.compile_json_schema(json.dumps(rewrite_schema(4, 2, 2)), any_whitespace=False)

    def accepted(answer: dict[str, Any]) -> bool:
        matcher = xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=True)
        return bool(matcher.accept_string(json.dumps(answer)) and matcher.is_completed())

    assert accepted(rewrite_answer())
    assert accepted(rewrite_answer(passage_answer(), passage_answer(2), skipped=[3, 4]))
    assert accepted(rewrite_answer(skipped=[1]) | {"passages": []})
    assert accepted(rewrite_answer(passage_answer(title='"Crécy"', text='A "bow" and a \\ and\na new line.')))
    assert not accepted(rewrite_answer(passage_answer(candidate=3)))
    assert not accepted(rewrite_answer(passage_answer(task=5)))
    assert not accepted(rewrite_answer(passage_answer(origin="edited_positive")))


def wide_analysis(critical: int, ways: int = 3, self_contained: bool = True) -> Analysis:
    answer = analysis_answer() | {"self_contained": self_contained}
    kinds = ["intent_drift", "intent_drift", "entity_shift"]
    answer["requirements"] = [
        requirement(f"It says thing {n}.", "Henry V", "entity" if n else "information_need", n < critical)
        for n in range(5)
    ]
    for each in answer["requirements"][:critical]:
        each["violations"] = [violation(kind, f"Leave out {n}.") for n, kind in enumerate(kinds[:ways])]
    return parse_analysis(json.dumps(answer), PAIR, LINEAGE, allow_negation=False)


def broken(tasks: Sequence[Task]) -> list[int]:
    return [task.requirement.id for task in tasks]


def test_every_critical_requirement_has_its_turn_first() -> None:
    planned = broken(plan_rewrites(wide_analysis(critical=3), seed=1))
    assert {*planned[:3]} == {1, 2, 3}
    assert planned[:3] == planned[3:6] == planned[6:]


def test_a_second_way_is_of_another_type() -> None:
    for seed in range(10):
        planned = plan_rewrites(wide_analysis(critical=2), seed)[:4]
        by_requirement = {n: {t.violation.type for t in planned if t.requirement.id == n} for n in broken(planned)}
        assert all(len(types) == 2 for types in by_requirement.values())


@given(st.integers(1, 5), st.integers(2, 3), st.integers(0, 5))
def test_a_plan_holds_ways_to_break_critical_requirements_each_once(critical: int, ways: int, seed: int) -> None:
    source = wide_analysis(critical, ways)
    planned = plan_rewrites(source, seed)
    assert planned == plan_rewrites(source, seed)
    assert len(planned) == critical * ways
    assert len({(t.requirement.id, t.violation.direction) for t in planned}) == len(planned)
    assert all(t.requirement.critical and t.violation in t.requirement.violations for t in planned)
    assert all(t.violation.type is not ViolationType.NEGATION for t in planned), "the analysis has none"


def test_the_subject_of_a_query_that_does_not_name_it_is_not_broken() -> None:
    assert {*broken(plan_rewrites(wide_analysis(3, self_contained=False), 0))} == {1}


def test_the_order_is_drawn_by_seed() -> None:
    plans = [plan_rewrites(wide_analysis(critical=4), seed)[:4] for seed in range(8)]
    assert len({tuple(broken(plan)) for plan in plans}) > 1
    assert len({tuple(t.violation.direction for t in plan) for plan in plans}) > 1
