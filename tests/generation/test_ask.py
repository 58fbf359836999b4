"""Asking: another seed after a broken answer, twice the budget after a cut one, nothing repaired, all counted."""

import asyncio
from typing import Any

import pytest
from generation_samples import ScriptedEngine, first_option

from causalneg.generation.ask import Asker, choice_schema, parse_choice
from causalneg.generation.engines import Completion, EngineDeadError, EngineError
from causalneg.generation.free import AnswerError
from causalneg.generation.rows import Usage


def choose(engine: ScriptedEngine, options: int = 3, attempts: int = 3) -> tuple[int, Asker]:
    asker = Asker(engine, attempts, "key")
    names = [f"option {n}" for n in range(options)]
    return asyncio.run(asker.choose("choose_replacement", names, "what", context="x ____")), asker


def test_the_choice_is_the_option_that_stood_at_the_chosen_number() -> None:
    engine = ScriptedEngine(first_option)
    chosen, _ = choose(engine)
    assert f"1. option {chosen}\n" in engine.chats[0][1]["content"]


def test_options_are_shuffled_by_the_row() -> None:
    places = set()
    for key in range(12):
        engine = ScriptedEngine(first_option)
        asyncio.run(Asker(engine, 1, f"row {key}").choose("choose_replacement", ["a", "b", "c"], "w", context="____"))
        places.add(engine.chats[0][1]["content"])
    assert len(places) > 2


def test_a_single_option_is_not_asked_for() -> None:
    engine = ScriptedEngine(first_option)
    assert choose(engine, options=1)[0] == 0
    assert not engine.chats


def test_a_cut_answer_is_asked_for_again_with_twice_the_budget_and_another_seed() -> None:
    engine = ScriptedEngine(lambda *_: Completion('{"choice":', "length", 50, 0, 16))
    with pytest.raises(EngineError) as caught:
        choose(engine)
    assert (caught.value.kind, caught.value.retryable) == ("length", True)
    assert engine.budgets == [16, 32, 64]
    assert len(set(engine.seeds)) == 3


def test_after_a_broken_answer_the_sampling_is_warmer() -> None:
    broken = Completion("{", "stop", 50, 0, 1)
    engine = ScriptedEngine(lambda number, schema: broken if number == 1 else first_option(number, schema))
    _, asker = choose(engine)
    assert engine.heats[0] == 0.0
    assert engine.heats[1] > 0
    assert asker.usage == Usage(requests=2, prompt_tokens=100, cached_tokens=10, generated_tokens=6)
    assert asker.attempts == 2


def test_a_refused_request_is_not_made_again() -> None:
    def refuse(*_: Any) -> Completion:
        raise EngineError("too_long", "the prompt is too long", retryable=False)

    engine = ScriptedEngine(refuse)
    with pytest.raises(EngineError):
        choose(engine)
    assert len(engine.chats) == 1


def test_an_answer_that_was_filtered_is_a_refusal() -> None:
    engine = ScriptedEngine(lambda *_: Completion("", "content_filter", 1, 0, 0))
    with pytest.raises(EngineError) as caught:
        choose(engine)
    assert caught.value.kind == "refusal"


def test_a_dead_engine_is_no_failed_attempt() -> None:
    def die(*_: Any) -> Completion:
        raise EngineDeadError("gone")

    engine = ScriptedEngine(die)
    with pytest.raises(EngineDeadError):
        choose(engine)
    assert len(engine.chats) == 1


@pytest.mark.parametrize(
    "text",
    ['{"choice":9}', '{"choice":0}', '{"choice":"x"}', "{}", "[]", "", '{"choice":1,"more":2}', '{"choice":1', "1"],
)
def test_an_answer_beside_the_schema_is_refused_and_never_repaired(text: str) -> None:
    with pytest.raises(AnswerError) as caught:
        parse_choice(text, 3)
    assert caught.value.kind == "invalid_json"


def test_true_is_no_number() -> None:
    with pytest.raises(AnswerError):
        parse_choice('{"choice":true}', 3)


def test_the_schema_names_the_options() -> None:
    assert choice_schema(3)["properties"]["choice"]["enum"] == [1, 2, 3]
