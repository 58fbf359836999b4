"""Drafting a pair: choices are parsed strictly, what goes wrong becomes a failure row, nothing is imputed."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from causalneg.config import EngineSettings, GenerateSettings
from causalneg.generation.draft import Drafter, choice_model, parse_choice
from causalneg.generation.engines import Completion, EngineDeadError, EngineError, Likelihood
from causalneg.generation.prompts import fill, messages
from causalneg.generation.rows import Draft, Pair
from causalneg.records import Lineage, Passage, Query

LINEAGE = Lineage(model="m", model_fingerprint="f", prompt_version="v", seed=0, temperature=0.0)
PAIR = Pair(
    id="pair",
    query=Query(id="q", text="Who was taken prisoner in the battle of 25 October 1415?"),
    positive=Passage(
        id="agincourt",
        title="Battle of Agincourt",
        text="The Battle of Agincourt was won by Henry V on 25 October 1415. Rain had fallen. "
        "The Duke of Orléans was taken prisoner.",
    ),
    other_positives=[],
    references=[
        Passage(id="crecy", title="Battle of Crécy", text="It was won on 26 August 1346."),
        Passage(id="poitiers", title="Battle of Poitiers", text="It was won on 19 September 1356."),
    ],
    mined_scores=[0.1],
)


class ScriptedEngine:
    """Answers as a function says; remembers what it was asked."""

    def __init__(self, answer: Callable[[int, dict[str, Any]], Completion]) -> None:
        self.answer = answer
        self.chats: list[list[dict[str, str]]] = []
        self.seeds: list[int] = []

    async def complete(
        self, chat: list[dict[str, str]], schema: dict[str, Any], max_tokens: int, temperature: float, seed: int
    ) -> Completion:
        self.chats.append(chat)
        self.seeds.append(seed)
        return self.answer(len(self.chats), schema)

    async def likelihood(self, prefix: str, continuation: str) -> Likelihood:
        return Likelihood(-1.0 if "25 October 1415" in prefix and "prisoner" in prefix else -2.0, 10)


def first_option(_number: int, schema: dict[str, Any]) -> Completion:
    choice = schema["properties"]["choice"]["enum"][0]
    return Completion(json.dumps({"choice": choice}), "stop", 50, 10, 5)


def draft(scripted: ScriptedEngine, pair: Pair = PAIR, **settings: Any) -> Draft:
    return asyncio.run(Drafter(scripted, GenerateSettings(**settings), LINEAGE).draft(pair))


def test_a_pair_becomes_an_analysis_and_negatives_with_lineage_and_scores() -> None:
    result = draft(ScriptedEngine(first_option))
    assert result.failure is None
    assert result.analysis is not None
    assert {n.requirement_id for n in result.negatives} <= {r.id for r in result.analysis.requirements}
    assert all(n.lineage == LINEAGE and n.analysis_id == result.analysis.id for n in result.negatives)
    replaced = next(n for n in result.negatives if n.edit and n.edit.operation == "replace")
    assert "1415" not in replaced.text
    assert replaced.scores["likelihood_margin"] == pytest.approx(1.0)
    assert result.prompt_tokens > 0


def test_the_same_pair_gives_the_same_ids() -> None:
    first, second = draft(ScriptedEngine(first_option)), draft(ScriptedEngine(first_option))
    assert [n.id for n in first.negatives] == [n.id for n in second.negatives]


def test_a_cut_answer_is_a_failure_after_all_attempts() -> None:
    engine = ScriptedEngine(lambda *_: Completion('{"choice":', "length", 50, 0, 16))
    result = draft(engine, engine=EngineSettings(max_attempts=3))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.retryable, result.failure.attempts) == ("length", True, 3)
    assert result.negatives == []
    assert result.analysis is None
    assert len(engine.chats) == len(set(engine.seeds)) == 3  # each attempt with another seed


def test_an_attempt_that_fails_is_followed_by_another() -> None:
    broken = Completion("{", "stop", 50, 0, 1)
    result = draft(ScriptedEngine(lambda number, schema: broken if number == 1 else first_option(number, schema)))
    assert result.failure is None


def test_a_refused_request_is_not_tried_again() -> None:
    def refuse(*_: Any) -> Completion:
        raise EngineError("too_long", "the prompt is too long", retryable=False)

    engine = ScriptedEngine(refuse)
    result = draft(engine)
    assert result.failure is not None
    assert (result.failure.kind, result.failure.attempts, len(engine.chats)) == ("too_long", 1, 1)


def test_an_unforeseen_error_is_a_failure_of_its_pair_alone() -> None:
    def stumble(*_: Any) -> Completion:
        raise IndexError("string index out of range")

    result = draft(ScriptedEngine(stumble))
    assert result.failure is not None
    assert (result.failure.kind, result.failure.retryable) == ("IndexError", False)


def test_a_dead_engine_is_no_failure_of_a_pair() -> None:
    def die(*_: Any) -> Completion:
        raise EngineDeadError("gone")

    with pytest.raises(EngineDeadError):
        draft(ScriptedEngine(die))


@pytest.mark.parametrize(
    "text", ['{"choice":9}', '{"choice":"x"}', "{}", "[]", "", '{"choice":1,"more":2}', '{"choice":1', "1"]
)
def test_an_answer_beside_the_schema_is_refused_and_never_repaired(text: str) -> None:
    with pytest.raises(EngineError) as caught:
        parse_choice(Completion(text, "stop", 1, 0, 1), choice_model(3))
    assert caught.value.kind == "invalid_json"


def test_a_passage_with_braces_stays_as_it_is_in_a_prompt() -> None:
    assert fill("{a} and {b}", a="{b}", b="2") == "{b} and 2"
    chat = messages("choose_evidence", options="1. {query}", query="who?")
    assert "1. {query}" in chat[1]["content"]
    assert [m["role"] for m in chat] == ["system", "user"]
