"""A pair, an engine that answers as a function says, and an encoder that needs no model."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from causalneg.generation.engines import Completion, Likelihood
from causalneg.generation.gates.style import CorpusStyle, corpus_style
from causalneg.generation.rows import Pair
from causalneg.generation.text import words
from causalneg.records import Lineage, Passage, Query

LINEAGE = Lineage(
    model="m", model_fingerprint="f", prompt_version="v", profile="generic", seed=0, temperature=0.0, max_tokens=64
)
PAIR = Pair(
    id="pair",
    query=Query(id="q", text="Who was taken prisoner in the battle of 25 October 1415?"),
    positive=Passage(
        id="agincourt",
        title="Battle of Agincourt",
        text="The Battle of Agincourt was won by Henry V on 25 October 1415. Rain had fallen. "
        "The Duke of Orléans was taken prisoner after that day.",
    ),
    other_positives=[],
    references=[
        Passage(id="crecy", title="Battle of Crécy", text="It was won on 26 August 1346."),
        Passage(id="poitiers", title="Battle of Poitiers", text="It was won on 19 September 1356."),
        Passage(
            id="agincourt-2",
            title="Battle of Agincourt",
            text="The French army blocked the road to Calais in great strength.",
        ),
    ],
    mined_scores=[0.1],
)


def pairs(count: int) -> list[Pair]:
    """Return so many pairs that differ in id and query only."""
    return [
        PAIR.model_copy(update={"id": f"pair-{n}", "query": PAIR.query.model_copy(update={"id": f"q-{n}"})})
        for n in range(count)
    ]


def style() -> CorpusStyle:
    """Return the style of the few passages here."""
    return corpus_style([PAIR.positive.text, *(r.text for r in PAIR.references)] * 5)


def encode(texts: Sequence[str], _kind: str) -> np.ndarray:
    """Encode texts as bags of words hashed into 512 places; vectors have length 1."""
    rows = np.full((len(texts), 512), 1e-3, dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in words(text):
            row[sum(ord(c) * 31**n for n, c in enumerate(word)) % 512] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class ScriptedEngine:
    """Answers as a function says; remembers what it was asked."""

    repeats = False

    def __init__(self, answer: Callable[[int, dict[str, Any]], Completion]) -> None:
        self.answer = answer
        self.chats: list[list[dict[str, str]]] = []
        self.seeds: list[int] = []
        self.budgets: list[int] = []
        self.heats: list[float] = []
        self.closed = False

    async def complete(
        self,
        chat: list[dict[str, str]],
        schema: dict[str, Any] | None,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_probabilities: int = 0,
    ) -> Completion:
        """Answer by the script."""
        self.chats.append(chat)
        self.seeds.append(seed)
        self.budgets.append(max_tokens)
        self.heats.append(temperature)
        return self.answer(len(self.chats), schema or {})

    async def likelihood(self, segments: Sequence[str]) -> Likelihood:
        """Find a query likelier after a passage with the date and the prisoner."""
        whole = "25 October 1415" in segments[0] and "prisoner" in segments[0]
        half = "prisoner" in segments[0]
        return Likelihood([-3.0, *(-1.0 if whole else -1.5 if half else -2.0 for _ in segments[1:])], 10, 4)

    async def close(self) -> None:
        """Remember it."""
        self.closed = True


def first_option(_number: int, schema: dict[str, Any]) -> Completion:
    """Take the first of the options."""
    return Completion(json.dumps({"choice": schema["properties"]["choice"]["enum"][0]}), "stop", 50, 10, 5)


def is_judgement(schema: dict[str, Any]) -> bool:
    """Whether a schema asks for a judgement."""
    return "answers" in schema["properties"]


def verdicts(schema: dict[str, Any], met: str = "no", answers: str = "no") -> dict[str, str]:
    """Give the same verdict on every requirement that a schema names, and one on the query."""
    return {name: answers if name == "answers" else met for name in schema["properties"]}
