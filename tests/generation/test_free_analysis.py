# ruff: noqa: RUF001 - typographic characters are meant
"""Analyses: what the LLM is asked, what it may answer, and that nothing else passes."""

import json
from typing import Any

import pytest
from free_samples import CANDIDATES, LINEAGE, PAIR, PROFILE, analysis, analysis_answer, requirement, violation

from causalneg.generation.free import AnswerError
from causalneg.generation.free.analysis import analysis_chat, analysis_schema, parse_analysis
from causalneg.generation.free.form import WORDS_LIMIT
from causalneg.generation.rows import Pair
from causalneg.records import Analysis, Facet, ViolationType


def parsed(answer: dict[str, Any] | str, pair: Pair = PAIR, allow_negation: bool = False) -> Analysis:
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return parse_analysis(text, pair, LINEAGE, allow_negation, CANDIDATES)


def refused(answer: dict[str, Any] | str, match: str, kind: str = "invalid_analysis") -> None:
    with pytest.raises(AnswerError, match=match) as caught:
        parsed(answer)
    assert caught.value.kind == kind


def with_requirement(number: int, **changes: Any) -> dict[str, Any]:
    answer = analysis_answer()
    answer["requirements"][number - 1] |= changes
    return answer


def test_a_sound_answer_becomes_an_analysis() -> None:
    row = parsed(analysis_answer())
    assert (row.query_id, row.positive_id, row.lineage) == ("q", "agincourt", LINEAGE)
    assert row.core_need == "The commander of the English at Agincourt."
    assert [r.id for r in row.requirements] == [1, 2, 3, 4]
    assert [r.critical for r in row.requirements] == [True, True, False, False]
    assert row.requirements[0].facet is Facet.INFORMATION_NEED
    assert [v.type for v in row.requirements[0].violations] == [ViolationType.INTENT_DRIFT, ViolationType.ENTITY_SHIFT]


def test_the_id_follows_from_the_answer() -> None:
    assert analysis().id == analysis().id
    assert parsed(with_requirement(3, content="The passage tells when it was.")).id != analysis().id


def test_evidence_is_stored_as_it_stands() -> None:
    row = parsed(with_requirement(1, evidence=" won by  Henry V on 25 October 1415. "))
    assert row.requirements[0].evidence == "won by Henry V\n on 25 October 1415."
    assert row.requirements[1].evidence == "Battle of Agincourt", "from the title"
    assert parsed(with_requirement(3, evidence='called "the battle of mud"')).requirements[2].evidence == (
        'called "the battle of mud"'
    )


@pytest.mark.parametrize("evidence", ["of \u2039b>bold\u2039/b> men", "of <b>bold</b> men"])
def test_evidence_may_be_quoted_as_the_prompt_shows_it(evidence: str) -> None:
    text = PAIR.positive.text + " An army of\u200b <b>bold</b> men."
    pair = PAIR.model_copy(update={"positive": PAIR.positive.model_copy(update={"text": text})})
    row = parsed(with_requirement(3, evidence=evidence), pair)
    assert row.requirements[2].evidence == "of\u200b <b>bold</b> men"


@pytest.mark.parametrize(
    ("text", "evidence", "stands"),
    [
        ("It is the “battle of mud” – so they say…", "the 'battle of mud' - so they say...", None),
        ("It is the “battle of mud” – so they say…", 'the "battle of mud" - so', "the “battle of mud” – so"),
        ("King Henry’s men", "Henry's men", "Henry’s men"),
        ("from 1415‑1420", "1415–1420", "1415‑1420"),
        ("and so on... in rain", "so on… in", "so on... in"),
        ("The battle was won by Henry V on 25 October 1415.", "won by … 1415", "won by Henry V on 25 October 1415"),
        ("The battle was won by Henry V.", "…won by Henry V...", "won by Henry V"),
        ("won" + " x" * 200 + " by Henry", "won … by Henry", None),
    ],
)
def test_evidence_matches_across_typography(text: str, evidence: str, stands: str | None) -> None:
    pair = PAIR.model_copy(update={"positive": PAIR.positive.model_copy(update={"text": text})})
    answer = analysis_answer()
    answer["requirements"] = [
        *answer["requirements"][:2],
        *(requirement(f"It says {n}.", "Battle of Agincourt") for n in range(2)),
        requirement("It is quoted.", evidence),
    ]
    answer["requirements"][0]["evidence"] = "Battle"
    assert [r.evidence for r in parsed(answer, pair).requirements[4:]] == ([stands] if stands else [])


@pytest.mark.parametrize(
    "evidence", ["won by henry V", "won by Henry V.", "Henry  VI", "Agincourt The battle", "…", " "]
)
def test_evidence_of_a_critical_requirement_must_stand_in_the_positive(evidence: str) -> None:
    refused(with_requirement(1, evidence=evidence), "evidence")


def test_a_requirement_that_is_not_critical_goes_alone_with_its_evidence() -> None:
    row = parsed(with_requirement(3, evidence="what nobody wrote"))
    assert [(r.id, r.evidence) for r in row.requirements[2:]] == [(3, "The Duke of Orléans was taken prisoner.")]


def test_candidates_that_answer_are_named_by_their_ids() -> None:
    assert parsed(analysis_answer()).answering == []
    assert parsed(analysis_answer() | {"answering_candidates": [2, 2]}).answering == ["poitiers"]
    refused(analysis_answer() | {"answering_candidates": [3]}, "there are 2 candidates and no candidate 3")
    refused(analysis_answer() | {"answering_candidates": [0]}, "no candidate 0")


@pytest.mark.parametrize("cut", [0, 1, 40, 300, -1])
def test_a_cut_answer_is_refused(cut: int) -> None:
    refused(json.dumps(analysis_answer())[:cut], "no whole JSON", "invalid_json")


@pytest.mark.parametrize("around", ["```json\n{}\n```", "Here it is: {}", "{} I hope it helps.", "{}{}"])
def test_anything_around_the_answer_is_refused(around: str) -> None:
    refused(around.replace("{}", json.dumps(analysis_answer())), "no whole JSON", "invalid_json")


@pytest.mark.parametrize("text", ["null", "[]", '"text"', "1"])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    refused(text, "answer: ")


@pytest.mark.parametrize("member", ["core_need", "how_positive_answers", "answer_boundary", "requirements"])
def test_a_missing_member_is_refused(member: str) -> None:
    answer = analysis_answer()
    del answer[member]
    refused(answer, f"{member}: Field required")


@pytest.mark.parametrize("member", ["facet", "critical", "content", "evidence", "violations"])
def test_a_missing_member_of_a_requirement_is_refused(member: str) -> None:
    answer = analysis_answer()
    del answer["requirements"][2][member]
    refused(answer, rf"requirements\.2\.{member}: Field required")


@pytest.mark.parametrize("member", ["type", "direction", "why_not_answer"])
def test_a_missing_member_of_a_violation_is_refused(member: str) -> None:
    answer = analysis_answer()
    del answer["requirements"][0]["violations"][1][member]
    refused(answer, rf"violations\.1\.{member}: Field required")


def test_further_members_are_refused() -> None:
    refused(analysis_answer() | {"note": "x"}, "note: Extra inputs")
    refused(with_requirement(1, id=1), r"requirements\.0\.id: Extra inputs")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"facet": "topic"}, "facet"),
        ({"critical": "true"}, "critical"),
        ({"critical": 1}, "critical"),
        ({"content": 7}, "content"),
        ({"content": " "}, "content: Value error, is empty"),
        ({"evidence": ""}, "evidence: Value error, is empty"),
        ({"content": "The passage names the author of "}, "content: Value error, is broken off"),
        ({"content": "x" * WORDS_LIMIT}, "content: Value error, is broken off"),
        ({"violations": None}, "violations"),
        ({"violations": [violation("drift"), violation()]}, r"violations\.0\.type"),
    ],
)
def test_a_member_of_another_form_is_refused(changes: dict[str, Any], match: str) -> None:
    refused(with_requirement(1, **changes), match)


@pytest.mark.parametrize("count", [0, 3, 9])
def test_too_few_or_too_many_requirements_are_refused(count: int) -> None:
    requirements = analysis_answer()["requirements"][:1] + [
        requirement(f"It says thing {n}.", "Henry V") for n in range(1, count)
    ]
    refused(analysis_answer() | {"requirements": requirements[:count]}, "requirements: List should have")


def test_some_requirement_must_be_critical() -> None:
    answer = analysis_answer()
    for each in answer["requirements"]:
        each |= {"critical": False, "violations": []}
    refused(answer, "0 critical requirements say what is asked")


def test_exactly_one_critical_requirement_says_what_is_asked() -> None:
    refused(with_requirement(1, facet="attribute"), "0 critical requirements say what is asked")
    refused(with_requirement(2, facet="information_need"), "2 critical requirements say what is asked")
    assert parsed(with_requirement(3, facet="information_need")), "one that is not critical does not count"


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_critical_requirement_has_two_or_three_violations(count: int) -> None:
    ways = [violation(direction=f"Tell of thing {n}.") for n in range(count)]
    refused(with_requirement(2, violations=ways), f"requirement 2 is critical and has {count} violations")


def test_a_requirement_that_is_not_critical_has_no_violations() -> None:
    refused(with_requirement(3, violations=[violation()]), "requirement 3 is not critical and has violations")


def test_the_same_violation_twice_is_refused() -> None:
    refused(with_requirement(1, violations=[violation(), violation(direction="tell of the weather, only")]), "twice")


@pytest.mark.parametrize(
    "content", ["The passage names the commander of its battle.", "the passage  names the Commander of its battle!"]
)
def test_the_same_requirement_twice_is_refused(content: str) -> None:
    refused(with_requirement(4, content=content), "requirement 4 says the same as requirement 1")


def test_negation_only_where_it_is_allowed() -> None:
    answer = with_requirement(1, violations=[violation("negation"), violation()])
    refused(answer, "requirement 1 has a negation, which is not allowed")
    assert parsed(answer, allow_negation=True).requirements[0].violations[0].type is ViolationType.NEGATION


def test_the_chat_puts_what_all_rows_share_first() -> None:
    system, user = analysis_chat(PAIR, PROFILE, CANDIDATES)
    assert (system["role"], user["role"]) == ("system", "user")
    assert PROFILE.relevance in system["content"]
    assert "Agincourt" not in system["content"]
    assert user["content"].startswith("<positive>\nTitle: Battle of Agincourt\nText: The battle was won")
    order = [user["content"].index(part) for part in ("</positive>", "<candidate_1>", "<query>\nWho commanded")]
    assert order == sorted(order)
    assert "{" not in user["content"], "every place is filled"


def test_every_name_that_may_be_answered_is_explained() -> None:
    without, allowed = (analysis_chat(PAIR, PROFILE, CANDIDATES, allow)[0]["content"] for allow in (False, True))
    for name in [*Facet, *(v for v in ViolationType if v is not ViolationType.NEGATION)]:
        assert name.value in without
    assert "negation" not in without
    assert "- negation:" in allowed


def test_a_passage_without_a_title_has_no_title_line() -> None:
    positive = PAIR.positive.model_copy(update={"title": ""})
    _, user = analysis_chat(PAIR.model_copy(update={"positive": positive}), PROFILE, [])
    assert user["content"].startswith("<positive>\nText: The battle")


def nodes(schema: object) -> list[dict[str, Any]]:
    """Every schema within a schema."""
    if isinstance(schema, list):
        return [node for part in schema for node in nodes(part)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(node for part in schema.values() for node in nodes(part))]


def test_the_schema_bounds_everything_but_copied_text() -> None:
    schema = analysis_schema(False, 2)
    for node in nodes(schema):
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False
            strings = {k for k, v in node["properties"].items() if v.get("type") == "string" and len(v) == 1}
            assert strings <= {"evidence"}
        if node.get("type") == "array":
            assert {"minItems", "maxItems"} <= node.keys()
    assert "negation" not in json.dumps(schema)
    assert "negation" in json.dumps(analysis_schema(True, 2))


def test_the_grammar_of_the_schema_and_the_parser_agree() -> None:
    xgrammar = pytest.importorskip("xgrammar", reason="xgrammar comes with vLLM")
    compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo([]))
    grammar = compiler.compile_json_schema(json.dumps(analysis_schema(False, 2)), any_whitespace=False)

    def accepted(answer: dict[str, Any]) -> bool:
        matcher = xgrammar.GrammarMatcher(grammar, terminate_without_stop_token=True)
        return bool(matcher.accept_string(json.dumps(answer, ensure_ascii=False)) and matcher.is_completed())

    assert accepted(analysis_answer())
    assert accepted(analysis_answer() | {"answering_candidates": [1, 2]})
    assert not accepted(analysis_answer() | {"answering_candidates": [3]})
    assert accepted(with_requirement(3, evidence='called "the battle of mud"\nand rain')), "quotes and line breaks"
    assert not accepted(with_requirement(1, violations=[violation()]))
    assert not accepted(with_requirement(3, violations=[violation(), violation()]))
    assert not accepted(with_requirement(1, violations=[violation("negation"), violation()]))
    assert not accepted(with_requirement(1, content="x" * (WORDS_LIMIT + 1)))
    assert not accepted(analysis_answer() | {"requirements": analysis_answer()["requirements"][:3]})
    assert not accepted(analysis_answer() | {"note": "x"})
