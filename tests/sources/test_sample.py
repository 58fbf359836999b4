"""The embedded sample keeps the promises that the demo and the tests of generation rest on."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import causalneg.sources

FOLDER = Path(causalneg.sources.__file__).parent / "sample"


@cache
def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def passages() -> dict[str, dict[str, Any]]:
    return {row["_id"]: row for row in read("corpus.jsonl")}


def queries() -> dict[str, dict[str, Any]]:
    return {row["_id"]: row for row in read("queries.jsonl")}


def positives(split: str) -> dict[str, str]:
    header, *lines = (FOLDER / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    judged = [line.split("\t") for line in lines]
    assert {score for _, _, score in judged} == {"1"}
    pairs = {query: passage for query, passage, _ in judged}
    assert len(pairs) == len(judged)
    return pairs


def test_passages_are_enough_and_of_even_length() -> None:
    assert len(passages()) == len(read("corpus.jsonl")) >= 240
    lengths = {row["_id"]: len(row["text"].split()) for row in read("corpus.jsonl")}
    assert {name: n for name, n in lengths.items() if not 50 <= n <= 120} == {}
    assert len({row["text"] for row in read("corpus.jsonl")}) == len(passages())


def test_every_query_has_one_positive_in_one_split() -> None:
    train, test = positives("train"), positives("test")
    assert len(queries()) == len(read("queries.jsonl")) >= 120
    assert not train.keys() & test.keys()
    assert train.keys() | test.keys() == queries().keys()
    assert not set(train.values()) & set(test.values())
    assert set(train.values()) | set(test.values()) <= passages().keys()
    for split, pairs in (("train", train), ("test", test)):
        for query, positive in pairs.items():
            metadata = queries()[query]["metadata"]
            assert (metadata["split"], metadata["positive"]) == (split, positive)


def test_answers_stand_verbatim_in_the_positive_and_not_in_the_query() -> None:
    for query in read("queries.jsonl"):
        answer = query["metadata"]["answer"]
        assert answer
        assert answer in passages()[query["metadata"]["positive"]]["text"], query["_id"]
        assert answer not in query["text"], query["_id"]
