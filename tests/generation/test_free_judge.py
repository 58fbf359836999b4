"""Judgements: where the answer was generated, how sure it was, and that nothing else passes for one."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalneg.generation.engines import Completion
from causalneg.generation.free import AnswerError
from causalneg.generation.free.judge import (
    MOST_LOG_ODDS,
    TEXT_LOG_ODDS,
    judge_chat,
    judge_schema,
    read_judgement,
    read_verdicts,
)
from causalneg.records import Facet, Requirement

YES, NO = '{"meets": "yes"}', '{"meets": "no"}'
# How a tokenizer splits what comes before the answer; at each place something unlikely is reported, too.
LEAD = [{'{"': 0.6, "Yes": 0.3}, {"me": 1.0, "no": 0.0}, {"ets": 0.9, "et": 0.1}, {'":': 1.0}, {' "': 0.8, " yes": 0.2}]
END = [{'"}': 0.9, '"': 0.1}, {"<|im_end|>": 1.0}]
REQUIREMENTS = [
    Requirement(id=n, facet=Facet.ENTITY, content=f"The passage says\nthing {n}.", evidence="e", critical=True)
    for n in (1, 3)
]


def completion(text: str, places: list[dict[str, float]]) -> Completion:
    return Completion(text, "stop", 10, 0, len(places), places)


def odds(text: str, places: list[dict[str, float]]) -> float:
    verdict = read_verdicts(completion(text, places), {"meets": ("yes", "no")})["meets"]
    return verdict.log_odds(["yes"], ["no"])


def test_the_chat_lists_the_requirements_behind_the_passage() -> None:
    system, user = judge_chat("The passage.", "The query?", REQUIREMENTS)
    assert user["content"] == (
        "<passage>\nThe passage.\n</passage>\n<query>\nThe query?\n</query>\n"
        "<requirements>\n1. The passage says thing 1.\n3. The passage says thing 3.\n</requirements>\n"
        "Check the passage."
    )
    assert judge_chat("Another.", "The query?", REQUIREMENTS)[0] == system


def test_the_schema_has_a_verdict_for_each_requirement_and_one_for_the_query() -> None:
    schema = judge_schema(REQUIREMENTS)
    assert list(schema["properties"]) == schema["required"] == ["1", "3", "answers"]
    assert schema["properties"]["3"]["enum"] == ["yes", "no", "moot"]
    assert schema["properties"]["answers"]["enum"] == ["yes", "partly", "inferred", "no"]
    assert schema["additionalProperties"] is False


def test_each_verdict_is_read_at_its_own_place() -> None:
    text = '{"1": "yes", "3": "moot", "answers": "inferred"}'
    places = [{'{"1": "': 1.0}, {"yes": 0.9, "no": 0.1}, {'", "3": "': 1.0}, {"m": 0.6, "no": 0.3, "yes": 0.1}]
    places += [{"oot": 1.0}, {'", "answers": "': 1.0}, {"in": 0.5, "no": 0.2, "yes": 0.2, "part": 0.1}]
    places += [{"ferred": 1.0}, {'"}': 1.0}]
    judged, answers = read_judgement(completion(text, places), REQUIREMENTS)
    assert [(j.requirement_id, j.moot) for j in judged] == [(1, False), (3, True)]
    assert [j.score for j in judged] == pytest.approx([math.log(9), math.log(0.1 / 0.9)])
    assert answers == pytest.approx(math.log(0.8 / 0.2))


def test_without_probabilities_the_words_decide() -> None:
    judged, answers = read_judgement(completion('{"1":"no","3":"moot","answers":"partly"}', []), REQUIREMENTS)
    assert [(j.score, j.moot) for j in judged] == [(-TEXT_LOG_ODDS, False), (-TEXT_LOG_ODDS, True)]
    assert answers == TEXT_LOG_ODDS


def test_verdicts_in_tokens_that_do_not_make_up_the_text_are_taken_in_their_order() -> None:
    places = [{'Ġ{"1': 1.0}, {"Ġyes": 0.8, "Ġno": 0.2}, {'","3': 1.0}, {"Ġno": 0.9, "Ġyes": 0.1}, {"answers": 1.0}]
    text = '{"1":"yes","3":"no","answers":"no"}'
    judged, answers = read_judgement(completion(text, [*places, {"Ġno": 0.7, "Ġyes": 0.3}]), REQUIREMENTS)
    assert [j.score for j in judged] == pytest.approx([math.log(4), -math.log(9)])
    assert answers == pytest.approx(math.log(3 / 7))
    judged, answers = read_judgement(completion(text, places), REQUIREMENTS)
    assert [j.score for j in judged] == [TEXT_LOG_ODDS, -TEXT_LOG_ODDS], "a place is missing: nobody's is known"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"1":"yes","answers":"no"}', "the verdicts are on 1, answers"),
        ('{"1":"yes","3":"no","answers":"no","4":"no"}', "on 1, 3, answers, 4"),
        ('{"3":"yes","1":"no","answers":"no"}', "on 3, 1, answers"),
        ('{"1":"yes","3":"partly","answers":"no"}', "3: 'partly' is none of yes, no, moot"),
        ('{"1":"yes","3":"no","answers":"moot"}', "answers: 'moot' is none of"),
        ('{"1":"yes","1":"yes","3":"no","answers":"no"}', "no object of verdicts"),
        ('{"1":{"a":"yes"},"3":"no","answers":"no"}', "1: "),
    ],
)
def test_a_judgement_of_other_things_is_refused(text: str, said: str) -> None:
    with pytest.raises(AnswerError, match=said) as caught:
        read_judgement(completion(text, []), REQUIREMENTS)
    assert caught.value.kind == "invalid_judgement"


def test_the_odds_are_those_of_the_place_of_the_answer() -> None:
    assert odds(YES, [*LEAD, {"yes": 0.8, "no": 0.2}, *END]) == pytest.approx(math.log(4))
    assert odds(NO, [*LEAD, {"yes": 0.2, "no": 0.8}, *END]) == pytest.approx(-math.log(4))


def test_the_odds_may_contradict_a_sampled_answer() -> None:
    assert odds(YES, [*LEAD, {"yes": 0.2, "no": 0.8}, *END]) == pytest.approx(-math.log(4))


def test_variants_of_a_token_are_summed() -> None:
    place = {"yes": 0.5, "Yes": 0.1, " yes": 0.1, 'yes"': 0.05, "YES": 0.05, "no": 0.1, "No": 0.05, '"no"': 0.05}
    assert odds(YES, [*LEAD, place, *END]) == pytest.approx(math.log(0.8 / 0.2))


@pytest.mark.parametrize("other", ["none", "not", "maybe", "yesterday", "true", "", "  ", "!"])
def test_other_tokens_do_not_count(other: str) -> None:
    assert odds(YES, [*LEAD, {"yes": 0.4, "no": 0.1, other: 0.5}, *END]) == pytest.approx(math.log(4))


def test_the_answer_may_share_a_token_with_what_is_around_it() -> None:
    split = [{'{"meets': 1.0}, {'": "yes': 0.6, '": "no': 0.2, '":"yes': 0.15, '":"no': 0.05}, {'"}': 1.0}]
    assert odds(YES, split) == pytest.approx(math.log(0.75 / 0.25))
    assert odds(YES, [{'{"meets": "yes"}': 0.9, '{"meets": "no"}': 0.1}]) == pytest.approx(math.log(9))


def test_an_answer_in_several_tokens_counts_by_its_first() -> None:
    assert odds(YES, [*LEAD, {"y": 0.7, "n": 0.3}, {"es": 1.0}, *END]) == pytest.approx(math.log(0.7 / 0.3))


def test_white_space_before_the_answer_is_no_hindrance() -> None:
    text = '{\n  "meets" :  "yes"\n}'
    places = [{"{": 1.0}, *({piece: 0.5, " ": 0.25, "  ": 0.25} for piece in ["\n", " ", " ", '"', "meets", '"', " "])]
    places += [{":": 1.0}, {"  ": 1.0}, {'"': 1.0}, {"yes": 0.9, "no": 0.1}, {'"\n': 1.0}, {"}": 1.0}]
    assert odds(text, places) == pytest.approx(math.log(9))


def test_tokens_that_lead_nowhere_are_no_place_of_the_answer() -> None:
    places = [
        {'{"meets": "': 0.6, '{"meets': 0.4},
        {"yes": 0.8, "no": 0.1, '": "': 0.1},
        {'"}': 0.9, "yes": 0.1},
        END[1],
    ]
    assert odds(YES, places) == pytest.approx(math.log(8))


def test_long_white_space_takes_no_long_time() -> None:
    places = [{" ": 0.5, "  ": 0.5}] * 300 + [{'{"meets": "': 1.0}, {"yes": 0.9, "no": 0.1}, {'"}': 1.0}]
    assert odds(" " * 400 + YES, places) == pytest.approx(math.log(9))


def test_tokens_that_do_not_make_up_the_text_are_searched_for_the_answer() -> None:
    places = [{'Ġ{"': 1.0, "Yes": 0.0}, {"meets": 1.0}, {"Ġyes": 0.8, "Ġno": 0.2}, {"}": 1.0}]
    assert odds(YES, places) == pytest.approx(math.log(4))
    assert odds(NO, [{"yes": 0.3}, {"Ġyes": 0.2, "Ġno": 0.8}]) == pytest.approx(-math.log(4))
    assert odds(r'{"meets": "\u0079es"}', places) == pytest.approx(math.log(4)), "an escaped letter"


def test_an_answer_that_is_not_reported_is_taken_as_likely_as_can_be() -> None:
    assert odds(YES, [*LEAD, {"yes": 0.9, "maybe": 0.01}, *END]) == pytest.approx(math.log(0.9 / 0.01))
    assert odds(YES, [*LEAD, {"yes": 0.9, "maybe": 0.08}, *END]) == pytest.approx(math.log(0.9 / 0.02))
    assert odds(NO, [*LEAD, {"no": 0.6, "maybe": 0.3}, *END]) == pytest.approx(-math.log(0.6 / 0.1))


def test_the_odds_are_clipped() -> None:
    assert odds(YES, [*LEAD, {"yes": 1.0}, *END]) == MOST_LOG_ODDS
    assert odds(NO, [*LEAD, {"no": 1.0, "yes": 1e-12}, *END]) == -MOST_LOG_ODDS


@pytest.mark.parametrize("places", [[], [{}], [{}, {}], [{'{"': 1.0}, {"meets": 1.0}, {"maybe": 1.0}]])
def test_without_probabilities_the_text_decides(places: list[dict[str, float]]) -> None:
    assert odds(YES, places) == TEXT_LOG_ODDS
    assert odds(NO, places) == -TEXT_LOG_ODDS


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "invalid_json"),
        ("yes", "invalid_json"),
        ('{"meets": "yes', "invalid_json"),
        ("```json\n" + YES + "\n```", "invalid_json"),
        (YES + YES, "invalid_json"),
        ("{}", "invalid_judgement"),
        ("[]", "invalid_judgement"),
        ('{"meets": "Yes"}', "invalid_judgement"),
        ('{"meets": true}', "invalid_judgement"),
        ('{"meets": "maybe"}', "invalid_judgement"),
        ('{"meets": "yes", "why": "so"}', "invalid_judgement"),
        ('{"answer": "yes"}', "invalid_judgement"),
    ],
)
def test_what_is_no_judgement_is_refused(text: str, kind: str) -> None:
    with pytest.raises(AnswerError) as caught:
        odds(text, [{"yes": 0.9, "no": 0.1}])
    assert caught.value.kind == kind


@given(
    st.sampled_from(["yes", "no"]),
    st.lists(st.dictionaries(st.text(max_size=8), st.floats(0, 1), max_size=4), max_size=8),
)
def test_whatever_is_reported_the_odds_are_a_number(answer: str, places: list[dict[str, float]]) -> None:
    value = odds(json.dumps({"meets": answer}), places)
    assert -MOST_LOG_ODDS <= value <= MOST_LOG_ODDS
