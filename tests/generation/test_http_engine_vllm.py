"""The engine behind an endpoint on vLLM's own server."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import pytest

from benchmarks.servers import vllm_server
from causalneg.config import EngineSettings
from causalneg.errors import UserError
from causalneg.generation.engines import EngineError
from causalneg.generation.engines.http import HttpEngine
from causalneg.models import resolve

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

Result = TypeVar("Result")

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
CHAT = [{"role": "user", "content": "Is Paris the capital of France? Answer yes or no, as JSON."}]
PASSAGE = "The Battle of Agincourt was won by Henry V on 25 October 1415."
QUESTION = "\n\nQuestion: Who won the Battle of Agincourt?"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with vllm_server(resolve("embedded:smollm2-135m").path, served_model_name="small") as address:
        yield address


def with_engine(url: str, work: Callable[[HttpEngine], Awaitable[Result]], model: str = "small") -> Result:
    async def scenario() -> Result:
        engine = HttpEngine(model, EngineSettings(url=url))
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(scenario())


@pytest.fixture(scope="module")
def logprobs() -> Callable[[list[str]], list[list[float]]]:
    """What the likelihood of segments is made of: the log-probabilities of their tokens, by transformers in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve("embedded:smollm2-135m").path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def of_segments(segments: list[str]) -> list[list[float]]:
        parts = [tokenizer.encode(text) for text in segments]  # this model has no special token at the start
        tokens = torch.tensor([[token for part in parts for token in part]])
        with torch.inference_mode():
            found = model(tokens).logits[0].log_softmax(-1)
        taken = found[:-1].gather(1, tokens[0, 1:, None])[:, 0]
        sizes = [len(parts[0]) - 1, *map(len, parts[1:])]
        return [part.tolist() for part in taken.split(sizes)]

    return of_segments


def test_an_answer_follows_the_schema(url: str) -> None:
    async def work(engine: HttpEngine) -> None:
        answers = await asyncio.gather(*(engine.complete(CHAT, SCHEMA, 30, 1.0, seed) for seed in range(8)))
        assert all(json.loads(answer.text)["answer"] in ("yes", "no") for answer in answers)
        assert all(answer.finish_reason == "stop" for answer in answers)
        assert all(answer.prompt_tokens > 20 and answer.generated_tokens > 3 for answer in answers)
        again = await engine.complete(CHAT, SCHEMA, 30, 1.0, 0)
        assert again.cached_tokens > 0  # the server counts them where it is told to
        assert replace(again, cached_tokens=0) == replace(answers[0], cached_tokens=0)

    with_engine(url, work)


def test_free_text_is_cut_at_its_limit(url: str) -> None:
    answer = with_engine(url, lambda engine: engine.complete(CHAT, None, 3, 0.0, 0))
    assert (answer.finish_reason, answer.generated_tokens) == ("length", 3)


def test_probabilities_of_yes_and_no(url: str) -> None:
    answer = with_engine(url, lambda engine: engine.complete(CHAT, SCHEMA, 30, 0.0, 0, top_probabilities=20))
    assert len(answer.probabilities) == answer.generated_tokens
    assert all(0 <= chance <= 1 for place in answer.probabilities for chance in place.values())
    place = next(place for place in answer.probabilities if place.get("yes", 0) > 0)
    assert place["yes"] + place["no"] == pytest.approx(1, abs=0.02)  # nothing else is let through by the schema


@pytest.mark.parametrize(
    "segments",
    [
        [PASSAGE, QUESTION],
        ["Passage:\n", PASSAGE, "\n\nQuestion:", " Who won the Battle of Agincourt?", "\n"],
        # Characters of one, two, three and four bytes, in words and by themselves, in parts and whole.
        [
            "Le café de Saint-Étienne, 北京烤鸭店, был открыт 😀 in Ærø.",
            " Où est le café? 北京 😀🦆",
            " Wo steht Müllers Weißbierkeller? ናይ ኢትዮጵያ",
        ],
        ["😀🦆 ducks are", " 🦆", "🦆🦆", " nice"],
        # A replacement character that stands in the text itself.
        ["The caf\N{REPLACEMENT CHARACTER} in Paris", " is \N{REPLACEMENT CHARACTER} nice one", "."],
    ],
)
def test_likelihoods_are_those_of_transformers(
    segments: list[str], url: str, logprobs: Callable[[list[str]], list[list[float]]]
) -> None:
    found = with_engine(url, lambda engine: engine.likelihood(segments))
    expected = logprobs(segments)
    assert found.prompt_tokens == 1 + sum(map(len, expected))
    for mean, values in zip(found.mean_logprobs, expected, strict=True):
        # In bf16 a single token is off by up to 0.3, and the mean of many hardly; one token too few or too many
        # would change these segments by more.
        assert mean == pytest.approx(sum(values) / len(values), abs=0.02 + 0.3 / len(values))


def test_a_passage_with_the_answer_makes_its_question_likelier(url: str) -> None:
    async def work(engine: HttpEngine) -> None:
        others = ["Ducks are birds that live on water and on land.", "The Battle of Crécy was won by Edward III."]
        found = await asyncio.gather(*(engine.likelihood([text, QUESTION]) for text in (PASSAGE, *others)))
        with_answer, *without = [likelihood.mean_logprobs[1] for likelihood in found]
        assert all(with_answer > value + 0.1 for value in without)

    with_engine(url, work)


def test_what_the_server_has(url: str) -> None:
    told = with_engine(url, HttpEngine.describe)
    assert told.max_model_len == 2048
    assert told.revision.startswith("small@")
    assert with_engine(url, HttpEngine.describe) == told


def test_a_model_that_the_server_does_not_have(url: str) -> None:
    with pytest.raises(UserError, match="no model 'large'; it has small"):
        with_engine(url, HttpEngine.describe, model="large")
    with pytest.raises(UserError, match="'large'"):
        with_engine(url, lambda engine: engine.complete(CHAT, None, 3, 0.0, 0), model="large")


def test_an_address_without_its_end(url: str) -> None:
    short = url.removesuffix("/v1")
    assert not with_engine(short, HttpEngine.describe).listed
    with pytest.raises(UserError, match="this address is whole"):
        with_engine(short, lambda engine: engine.complete(CHAT, None, 3, 0.0, 0))


@pytest.mark.parametrize("words", [3000, 1_000_000])
def test_what_is_too_long_is_told_as_such(words: int, url: str) -> None:
    text = "duck " * words

    async def work(engine: HttpEngine) -> list[str]:
        asked = [
            engine.complete([{"role": "user", "content": text}], SCHEMA, 30, 0.0, 0),
            engine.complete(CHAT, SCHEMA, words, 0.0, 0),
            engine.likelihood([text, QUESTION]),
        ]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(result, EngineError) and not result.retryable for result in results)
        return [result.kind for result in results if isinstance(result, EngineError)]

    assert with_engine(url, work) == ["too_long"] * 3


def test_a_schema_that_the_server_cannot_follow_goes_into_the_prompt(url: str) -> None:
    done = with_engine(url, lambda engine: engine.complete(CHAT, {"type": "nonsense"}, 30, 0.0, 0))
    assert 0 < done.generated_tokens <= 30
